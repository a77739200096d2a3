"""All tokens against skipping on this machine: the same images, the same engine, in turns.

`make bench`, or `python -m benchmarks.skipping --help`. Each round answers the same rendered scenes once under each
setting, and the settings take turns in going first, so that a machine that slows down slows both. The machine's
matrix rate is measured in every round too, so that each result is also a share of a limit.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.machine import ROOT, dtype_name, matmul_rate, spread, write_result
from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.families import Family, load_family
from skipvision.method.flops import decode_flops, kv_bytes, prefill_flops
from skipvision.method.plan import SkipConfig
from skipvision.scenes import CAPTION_PROMPTS, Scene, named_shapes, scene

RESULT = ROOT / "benchmarks" / "results" / "skipping.json"


def measure(
    model: Annotated[str, typer.Option(help="Checkpoint folder or hub id, or zoo: the model that ships.")] = "zoo",
    skip: Annotated[str, typer.Option(help="R/S, or auto: what the checkpoint carries.")] = "auto",
    images: Annotated[int, typer.Option(min=1)] = 128,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    prompt: Annotated[str, typer.Option()] = CAPTION_PROMPTS[0],
    max_tokens: Annotated[int, typer.Option(min=1)] = 64,
    device: Annotated[str, typer.Option()] = "auto",
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    family = load_family(model, device=device)
    chosen = family.carried_skip if skip == "auto" else SkipConfig.parse(skip)
    engines = {
        setting.describe(): Engine(family, skip=setting, vision_cache_bytes=0) for setting in (SkipConfig(), chosen)
    }
    drawn = [scene(seed) for seed in range(images)]  # held out: the shipped model's recipe never draws these seeds
    pixels = [engines["off"].prepare(np.asarray(picture.render())) for picture in drawn]
    requests = [
        Request(prompt=prompt, images=(pixel,), sampling=Sampling(max_tokens=max_tokens), request_id=f"image {index}")
        for index, pixel in enumerate(pixels)
    ]
    result = {
        "model": model,
        "dtype": dtype_name(family.dtype),
        "images": images,
        "rounds": rounds,
        "prompt": prompt,
        "max_tokens": max_tokens,
        **compare(engines, requests, drawn, rounds=rounds),
    }
    write_result(output, "skipping", result)


def compare(engines: dict[str, Engine], requests: list[Request], drawn: list[Scene], *, rounds: int) -> dict[str, Any]:
    """Let the engines take turns; every figure with its spread. The first engine is the baseline."""
    for engine in engines.values():
        engine.answer(requests[:4])  # warm up
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    answers: dict[str, list[Answer]] = {}
    rates = []
    family = next(iter(engines.values())).family
    for number in range(rounds):
        rates.append(matmul_rate(family.device, family.dtype))
        for name in list(engines)[:: 1 if number % 2 == 0 else -1]:
            turn, answers[name] = one_turn(engines[name], requests)
            turns[name].append(turn)
    baseline = answers[next(iter(engines))]
    return {
        "matmul_flops_per_second": spread(rates),
        "settings": [
            {
                "skip": name,
                **{figure: spread([turn[figure] for turn in turns[name]]) for figure in turns[name][0]},
                **modelled(family, answers[name]),
                "shapes_right": sum(
                    names_what_is_there(answer.text, truth) for answer, truth in zip(answers[name], drawn, strict=True)
                ),
                "same_answer_as_all_tokens": sum(
                    ours.text == theirs.text for ours, theirs in zip(answers[name], baseline, strict=True)
                ),
            }
            for name in engines
        ],
    }


def one_turn(engine: Engine, requests: list[Request]) -> tuple[dict[str, float], list[Answer]]:
    """Answer all requests once: seconds in all and by stage, and the answers."""
    before = engine.stats().stage_seconds
    started = perf_counter()
    answers = engine.answer(requests)
    seconds = perf_counter() - started
    stages = {f"{stage}_seconds": after - before[stage] for stage, after in engine.stats().stage_seconds.items()}
    return {"images_per_second": len(requests) / seconds, "seconds": seconds, **stages}, answers


def modelled(family: Family, answers: list[Answer]) -> dict[str, int]:
    """What the formulas say the language model did for these answers; operations counted causally."""
    return {
        "prefill_flops": sum(prefill_flops(family.shape, answer.plan) for answer in answers),
        "decode_flops": sum(
            decode_flops(family.shape, cached_tokens=answer.plan.cached_tokens, output_tokens=len(answer.output_ids))
            for answer in answers
        ),
        "kv_bytes": sum(
            kv_bytes(family.shape, answer.plan.cached_tokens, bytes_per_value=family.dtype.itemsize)
            for answer in answers
        ),
        "output_tokens": sum(len(answer.output_ids) for answer in answers),
    }


def names_what_is_there(text: str, truth: Scene) -> bool:
    """Whether an answer names every colour and shape of the scene, as often as it is there, and no other."""
    return named_shapes(text) == sorted((shape.colour, shape.shape) for shape in truth.shapes)


if __name__ == "__main__":
    typer.run(measure)
