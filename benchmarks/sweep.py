"""Throughput against one thing at a time: requests at once, words of the prompt, new tokens, images of a request.

`make bench`, or `python -m benchmarks.sweep --help`. This project's engine alone, with all tokens and skipping.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from transformers import LlavaConfig

from benchmarks.lineup import KEEPING_ALLOCATOR
from benchmarks.machine import ROOT, dtype_name, fastest_dtype, spread, write_result
from benchmarks.random_llava import SIDE, save_random, small
from benchmarks.work import CHECKPOINT, Work, draw_pictures
from benchmarks.workers.process import WorkerProcess

RESULT = ROOT / "benchmarks" / "results" / "sweep.json"
SETTINGS = ("off", "100/156")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What one measurement is taken at."""

    max_running: int = 16
    prompt_words: int = 16
    new_tokens: int = 32
    images_each: int = 1


AXES = {
    "max_running": (1, 2, 4, 8, 16),
    "prompt_words": (16, 128, 512),
    "new_tokens": (8, 32, 128),
    "images_each": (1, 2, 4),
}
"""What each is set to while the others stay as `Point` says."""


def measure(
    images: Annotated[int, typer.Option(min=1, help="Answered at each point, in as many requests as that makes.")] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    write_result(output, "sweep", sweep(small(), AXES, images=images, rounds=rounds))


def sweep(config: LlavaConfig, axes: Mapping[str, Sequence[int]], *, images: int, rounds: int) -> dict[str, Any]:
    """Measure every point of every axis under each setting, in `rounds` turns."""
    points = list(dict.fromkeys(replace(Point(), **{axis: value}) for axis in axes for value in axes[axis]))
    dtype = fastest_dtype(torch.device("cpu"))
    with (
        TemporaryDirectory() as folder,
        WorkerProcess(sys.executable, "benchmarks.workers.ours", environment=KEEPING_ALLOCATOR) as worker,
    ):
        save_random(Path(folder) / CHECKPOINT, config, dtype=dtype)
        draw_pictures(Path(folder), count=images, side=SIDE)
        facts = worker.ask("load", folder=folder, dtype=dtype_name(dtype))
        turns = [[_measured(worker, point, folder, images) for point in points] for _ in range(rounds)]
    return {
        "dtype": dtype_name(dtype),
        "images": images,
        "rounds": rounds,
        **facts,
        "axes": {axis: list(values) for axis, values in axes.items()},
        "base": asdict(Point()),
        "points": [
            {
                **asdict(point),
                "images_per_second": {
                    setting: spread([turn[place][setting] for turn in turns]) for setting in SETTINGS
                },
            }
            for place, point in enumerate(points)
        ],
    }


def _measured(worker: WorkerProcess, point: Point, folder: str, images: int) -> dict[str, float]:
    """Images per second under each setting."""
    worker.ask("limit", max_running=point.max_running)
    work = Work(
        folder=folder,
        requests=max(1, images // point.images_each),
        prompt=" ".join(["circle"] * point.prompt_words),
        new_tokens=point.new_tokens,
        images_each=point.images_each,
    )
    warm_up = replace(work, requests=1, new_tokens=2)
    rates = {}
    for setting in SETTINGS:
        worker.ask("answer_all", work=asdict(warm_up), skip=setting)
        seconds = worker.ask("answer_all", work=asdict(work), skip=setting)["seconds"]
        rates[setting] = work.requests * work.images_each / seconds
    return rates


if __name__ == "__main__":
    typer.run(measure)
