"""Fine-tuning steps with skipping on against off: seconds and memory on the same batch, in turns.

`make bench`, or `python -m benchmarks.training --help`. Each setting has a process of its own, since memory is the
process's. The aims are the paper's savings of training time (arXiv:2503.21817, table 1): 22.5% for LLaVA at 100/156
of 576 visual tokens, 35.8% for LLaVA-HD at 576/576 of 2880.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from transformers import LlavaConfig, LlavaNextConfig

from benchmarks.lineup import KEEPING_ALLOCATOR
from benchmarks.machine import ROOT, matmul_rate, spread, write_result
from benchmarks.random_llava import eight_billion, eight_billion_tiled, seven_billion, small, small_tiled
from benchmarks.workers.process import WorkerProcess
from skipvision.families import choose_device, choose_dtype

RESULT = ROOT / "benchmarks" / "results" / "training.json"
SHAPES = {
    "small": (small, "100/156"),
    "small-hd": (small_tiled, "576/576"),
    "7b": (seven_billion, "100/156"),
    "8b": (eight_billion, "100/156"),
    "8b-hd": (eight_billion_tiled, "576/576"),
}
"""What is trained, and the paper's setting for it."""
ALL_TOKENS = "off"
PARTS = ("forward", "backward", "optimizer")


def measure(
    shape: Annotated[list[str] | None, typer.Option(help="Shapes to measure; default: small and small-hd.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    samples: Annotated[int, typer.Option(min=1, help="Conversations of a step.")] = 2,
    text_tokens: Annotated[int, typer.Option(min=10, help="Tokens of each beside its picture's.")] = 100,
    tokens_per_pass: Annotated[int, typer.Option(min=1)] = 3000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    lora: Annotated[bool, typer.Option("--lora", help="Train adapters, where whole weights would not fit.")] = False,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    where = choose_device(device)
    batch = {"samples": samples, "text_tokens": text_tokens, "tokens_per_pass": tokens_per_pass}
    options = {**batch, "device": device, "lora": lora}
    measured = []
    for name in shape or ["small", "small-hd"]:
        build, skip = SHAPES[name]
        measured.append({"shape": name, **compare(build(), skip, rounds=rounds, options=options)})
    rate = matmul_rate(where, choose_dtype("auto", where))
    write_result(
        output,
        "training",
        {**batch, "rounds": rounds, "lora": lora, "matmul_flops_per_second": rate, "shapes": measured},
    )


def compare(
    config: LlavaConfig | LlavaNextConfig, skip: str, *, rounds: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Steps of one shape, all tokens and fewer in turn, after one of each that warms up."""
    settings = (ALL_TOKENS, skip)
    with ExitStack() as stack:
        workers = {
            skip: stack.enter_context(
                WorkerProcess(sys.executable, "benchmarks.workers.training", environment=KEEPING_ALLOCATOR)
            )
            for skip in settings
        }
        folders = {skip: stack.enter_context(TemporaryDirectory()) for skip in settings}
        facts = {
            skip: worker.ask("load", folder=folders[skip], config=config.to_dict(), skip=skip, **options)
            for skip, worker in workers.items()
        }
        steps: dict[str, list[dict[str, float]]] = {skip: [] for skip in settings}
        for number in range(rounds + 1):
            for skip in settings[:: 1 if number % 2 == 0 else -1]:
                steps[skip].append(workers[skip].ask("step"))
        looks = {skip: worker.ask("look")["seconds"] for skip, worker in workers.items()}
    return {
        "settings": [
            {"skip": skip, **facts[skip], **_figures(steps[skip][1:]), "vision_seconds": looks[skip]}
            for skip in settings
        ],
    }


def _figures(steps: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "step_seconds": spread([step["seconds"] for step in steps]),
        **{f"{part}_seconds": spread([step[part] for step in steps]) for part in PARTS},
        "peak_bytes": max(step["peak_bytes"] for step in steps),
    }


if __name__ == "__main__":
    typer.run(measure)
