"""Several questions about each image as one job, grouped and not: what is prepared and read, and how long it takes.

`python -m benchmarks.questions`. The input asks the first question about every image, then the second about every
image, and so on, as a table of questions often does. Both jobs give the same answers; they take turns.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import pyarrow.dataset
import ray
import typer

from benchmarks.machine import ROOT, spread, write_result
from pipelines.job import run
from pipelines.statistics import JobReport
from skipvision.config import JobConfig
from skipvision.scenes import COLOURS, scene

RESULT = ROOT / "benchmarks" / "results" / "questions.json"
SETTINGS = {"grouped": True, "in the order of the input": False}


def measure(
    model: Annotated[str, typer.Option(help="Checkpoint folder or hub id, or zoo: the model that ships.")] = "zoo",
    images: Annotated[int, typer.Option(min=2)] = 96,
    questions: Annotated[int, typer.Option(min=2)] = 10,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    side: Annotated[int, typer.Option(min=64, help="Pixels of a side of each image.")] = 1024,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    answers: dict[str, dict[str, str]] = {}
    with TemporaryDirectory() as scratch:
        config = JobConfig(
            input=str(_written(Path(scratch), images, questions, side)), output="", model=model, prompt_column="prompt",
            key_column="id", max_tokens=8, rows_per_shard=128, dtype="float32",
        )  # fmt: skip
        for number in range(rounds + 1):  # the first one warms up
            for name in list(SETTINGS)[:: 1 if number % 2 == 0 else -1]:
                job = replace(config, output=f"{scratch}/{number}-{name}", group_images=SETTINGS[name])
                figures = _figures(job)
                answers[name] = _answers(job)
                if number:
                    turns[name].append(figures)
    ray.shutdown()
    assert len({json.dumps(each, sort_keys=True) for each in answers.values()}) == 1, "grouping changed an answer"
    settings = [
        {"setting": name, **{figure: spread([turn[figure] for turn in turns[name]]) for figure in turns[name][0]}}
        for name in SETTINGS
    ]
    result = {"model": model, "images": images, "questions": questions, "side": side, "rounds": rounds}
    write_result(output, "questions", {**result, "settings": settings})


def _written(folder: Path, images: int, questions: int, side: int) -> Path:
    """The images, and a table of all questions."""
    for number in range(images):
        scene(number).render(side).save(folder / f"{number}.jpg", quality=90)
    colours = [*COLOURS]
    asked = [f"How many {colours[each % len(colours)]} shapes are there{'?' * (1 + each // len(colours))}"
             for each in range(questions)]  # fmt: skip
    lines = [
        {"id": f"{number}-{question}", "image": f"{number}.jpg", "prompt": prompt}
        for question, prompt in enumerate(asked)
        for number in range(images)
    ]
    table = folder / "questions.jsonl"
    table.write_text("\n".join(map(json.dumps, lines)))
    return table


def _figures(job: JobConfig) -> dict[str, float]:
    started = perf_counter()
    report = run(job)
    assert report.errors == 0, report.errors_by_code
    return {
        "seconds": perf_counter() - started,
        "prepare_seconds": report.stage_seconds["read"] + report.stage_seconds["prepare"],
        "prefill_seconds": report.stage_seconds["prefill"],
        "images_encoded": report.engine.vision_cache_misses,
        "prompt_tokens_read": _prompt_tokens(report) - report.engine.shared_prompt_tokens,
    }


def _prompt_tokens(report: JobReport) -> int:
    tokens = report.tokens
    return tokens.text + tokens.retained + tokens.skipped + tokens.summary


def _answers(job: JobConfig) -> dict[str, Any]:
    rows = pyarrow.dataset.dataset(f"{job.output}/data", format="parquet").to_table(columns=["row_key", "answer"])
    return dict(zip(rows.column("row_key").to_pylist(), rows.column("answer").to_pylist(), strict=True))


if __name__ == "__main__":
    typer.run(measure)
