"""The engine beside its peers on the same work: the same images, prompt and number of new tokens.

`make bench`, or `python -m benchmarks.engines --help`. Weights are random, so that nothing is said about answers here;
all read the same checkpoint folder, each in a process of its own, from decoded images to tokens. In every round all of
them answer every image once, in an order that turns, and the machine's ceilings are measured with them. Then all answer
one image at a time, which is the second result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from transformers import LlavaConfig

from benchmarks.latency import one_at_a_time
from benchmarks.limits import decode_bytes
from benchmarks.lineup import Contestant, ours, transformers, vllm
from benchmarks.machine import ROOT, copy_rate, dtype_name, fastest_dtype, matmul_rate, spread, write_result
from benchmarks.random_llava import SIDE, save_random, small
from benchmarks.trials import Field, Started
from benchmarks.work import CHECKPOINT, Work, draw_pictures

RESULTS = ROOT / "benchmarks" / "results"
SETTINGS = ("off", "256/320", "100/156", "64/156")
"""All tokens, and the settings of the paper's LLaVA rows."""
MAX_RUNNING = 32
"""Of every engine that batches by itself."""


def measure(
    images: Annotated[int, typer.Option(min=1)] = 32,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    new_tokens: Annotated[int, typer.Option(min=1, help="Generated for every image; no answer ends earlier.")] = 32,
    output: Annotated[Path, typer.Option(help="The folder that the JSON goes to.")] = RESULTS,
) -> None:
    """Measure throughput, then latency, and write a JSON file each."""
    lineup = (ours(SETTINGS), transformers(), vllm())
    throughput, latency = compare(small(), lineup, images=images, rounds=rounds, new_tokens=new_tokens)
    write_result(output / "engines.json", "engines", throughput)
    write_result(output / "latency.json", "latency", latency)


def compare(
    config: LlavaConfig, contestants: Sequence[Contestant], *, images: int, rounds: int, new_tokens: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start everyone and let them take turns: throughput, and latency, each ready for JSON."""
    device = torch.device("cpu")
    dtype = fastest_dtype(device)
    common = {"dtype": dtype_name(dtype), "rounds": rounds, "new_tokens": new_tokens}
    with TemporaryDirectory() as folder:
        save_random(Path(folder) / CHECKPOINT, config, dtype=dtype)
        draw_pictures(Path(folder), count=images, side=SIDE)
        work = Work(folder=folder, requests=images, new_tokens=new_tokens)
        with Field() as field:
            for contestant in contestants:
                field.start(contestant, dtype=dtype_name(dtype), trial=replace(work, requests=min(16, images)))
            throughput = {"engines": field.report(), **take_turns(field.rows(), work, rounds, device, dtype)}
            field.go_alone(dtype=dtype_name(dtype), folder=folder)
            latency = {"engines": field.report(), **one_at_a_time(field.rows(), work, rounds=rounds)}
    return {**common, "images": images, **throughput}, {**common, **latency}


def take_turns(
    rows: Sequence[tuple[str, Started]], work: Work, rounds: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Run everything in every round; the first round begins with the first, the second with the last."""
    replies: dict[str, list[dict[str, Any]]] = {setting: [] for setting, _ in rows}
    matmul, copy = [], []
    for number in range(rounds):
        matmul.append(matmul_rate(device, dtype))
        copy.append(copy_rate(device))
        for setting, engine in rows[:: 1 if number % 2 == 0 else -1]:
            replies[setting].append(engine.answer_all(setting, work))
    reference = replies["transformers"][-1]["output_ids"] if "transformers" in replies else None
    return {
        "matmul_flops_per_second": spread(matmul),
        "copy_bytes_per_second": spread(copy),
        "runs": [
            {
                "name": setting,
                "engine": engine.contestant.name,
                **_speed(replies[setting], work, reference),
                **_stages_and_work(replies[setting], work.shared_by(len(engine.workers))),
            }
            for setting, engine in rows
        ],
    }


def _speed(replies: list[dict[str, Any]], work: Work, reference: list[list[int]] | None) -> dict[str, Any]:
    speed = {"images_per_second": spread([work.requests / reply["seconds"] for reply in replies])}
    if reference is None:
        return speed
    same = [ids == expected for ids, expected in zip(replies[-1]["output_ids"], reference, strict=True)]
    return {**speed, "same_answers_as_transformers": sum(same)}


def _stages_and_work(replies: list[dict[str, Any]], parts: Sequence[Work]) -> dict[str, Any]:
    """What our engine tells about itself: seconds by stage, and the work of a request. Nothing, of a peer."""
    last = replies[-1]
    if "stage_seconds" not in last:
        return {}
    return {
        "stage_seconds": {
            stage: spread([reply["stage_seconds"][stage] for reply in replies]) for stage in last["stage_seconds"]
        },
        "prompt_tokens": last["prompt_tokens"],
        "work": last["work"],
        "decode_bytes": sum(
            decode_bytes(last["work"], requests=part.requests, max_running=MAX_RUNNING) for part in parts
        ),
    }


if __name__ == "__main__":
    typer.run(measure)
