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
from benchmarks.lineup import Contestant, Lineup, Started, ours, transformers, vllm
from benchmarks.machine import ROOT, copy_rate, dtype_name, fastest_dtype, matmul_rate, spread, write_result
from benchmarks.random_llava import SIDE, save_random, small
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
    with TemporaryDirectory() as temporary, Lineup() as lineup:
        folder = Path(temporary)
        save_random(folder / CHECKPOINT, config, dtype=dtype)
        draw_pictures(folder, count=images, side=SIDE)
        work = Work(folder=temporary, requests=images, new_tokens=new_tokens)
        for contestant in contestants:
            lineup.start(
                contestant, folder=folder, dtype=dtype_name(dtype), trial=replace(work, requests=min(16, images))
            )
        common = {"dtype": dtype_name(dtype), "rounds": rounds, "new_tokens": new_tokens, "engines": lineup.report}
        throughput = {**common, "images": images, **take_turns(lineup.rows(), work, rounds, device, dtype)}
        return throughput, {**common, **one_at_a_time(lineup.rows(), work, rounds=rounds)}


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
    reference = replies["transformers"][-1]["output_ids"]
    return {
        "matmul_flops_per_second": spread(matmul),
        "copy_bytes_per_second": spread(copy),
        "runs": [
            {"name": setting, "engine": engine.contestant.name, **_summary(replies[setting], work, reference)}
            for setting, engine in rows
        ],
    }


def _summary(replies: list[dict[str, Any]], work: Work, reference: list[list[int]]) -> dict[str, Any]:
    """One row: speed with its spread, and what the worker told about stages and modelled work, if it did."""
    last = replies[-1]
    summary = {
        "images_per_second": spread([work.requests / reply["seconds"] for reply in replies]),
        "same_answers_as_transformers": sum(a == b for a, b in zip(last["output_ids"], reference, strict=True)),
    }
    if "stage_seconds" in last:
        stages = {name: spread([reply["stage_seconds"][name] for reply in replies]) for name in last["stage_seconds"]}
        read = decode_bytes(last["work"], requests=work.requests, max_running=MAX_RUNNING)
        summary |= {"stage_seconds": stages, "prompt_tokens": last["prompt_tokens"], "work": last["work"]}
        summary |= {"decode_bytes": read}
    return summary


if __name__ == "__main__":
    typer.run(measure)
