"""Memory of a running sequence: keys and values that stay cached, and what the process grows by.

`make bench`, or `python -m benchmarks.memory --help`. Each setting has a process of its own, which has answered nothing
before: pages of a pool that was filled once do not show again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from transformers import LlavaConfig

from benchmarks.engines import MAX_RUNNING, SETTINGS
from benchmarks.lineup import KEEPING_ALLOCATOR
from benchmarks.machine import ROOT, dtype_name, fastest_dtype, write_result
from benchmarks.random_llava import SIDE, save_random, small
from benchmarks.work import CHECKPOINT, Work, draw_pictures
from benchmarks.workers.process import WorkerProcess

RESULT = ROOT / "benchmarks" / "results" / "memory.json"


def measure(
    requests: Annotated[int, typer.Option(min=1, help="Running at the same time.")] = MAX_RUNNING,
    new_tokens: Annotated[int, typer.Option(min=1)] = 4,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    write_result(output, "memory", weigh(small(), SETTINGS, requests=requests, new_tokens=new_tokens))


def weigh(config: LlavaConfig, settings: Sequence[str], *, requests: int, new_tokens: int) -> dict[str, Any]:
    """Let as many requests run at once under each setting."""
    dtype = fastest_dtype(torch.device("cpu"))
    with TemporaryDirectory() as folder:
        save_random(Path(folder) / CHECKPOINT, config, dtype=dtype)
        draw_pictures(Path(folder), count=requests, side=SIDE)
        work = Work(folder=folder, requests=requests, new_tokens=new_tokens)
        weighed = [{"skip": setting, **_weigh(setting, work, dtype_name(dtype))} for setting in settings]
    return {"dtype": dtype_name(dtype), "requests": requests, "new_tokens": new_tokens, "settings": weighed}


def _weigh(setting: str, work: Work, dtype: str) -> dict[str, Any]:
    with WorkerProcess(sys.executable, "benchmarks.workers.ours", environment=KEEPING_ALLOCATOR) as worker:
        worker.ask("load", folder=work.folder, dtype=dtype, max_running=work.requests)
        weighed: dict[str, Any] = worker.ask("answer_weighed", work=asdict(work), skip=setting)
    return weighed


if __name__ == "__main__":
    typer.run(measure)
