"""`skipvision evaluate`: how right a model is under each setting, by stratum, and what that costs."""

from __future__ import annotations

import json as json_text
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipvision.commands.output import print_json, say
from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from skipvision.evaluation import Item, Trial

DEFAULT_TRIALS = ("off", "auto", "auto@blank", "auto@nothing")
SCENES = "scenes"
"""The pictures that the shipped model was made for."""
_SECONDS_BETWEEN_LINES = 10.0


def evaluate(
    trial: Annotated[
        list[str] | None,
        typer.Option(
            help="[MODEL=]SKIP[@blank|@nothing], such as off, 100/156 or runs/a/model=auto; repeat it, the first is "
            "what the others are compared with. Default: off, auto, auto@blank and auto@nothing."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of trials that name none. Default: the model that ships.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="CSV, JSONL, JSON or Parquet with image, question and answer. Default: rendered exercises."),
    ] = None,
    match: Annotated[str, typer.Option(help="How answers to --data are graded: exact or contains.")] = "exact",
    strata: Annotated[
        list[str] | None,
        typer.Option(help="Kinds of exercises, or scenes; repeat it. Default: all kinds of exercises."),
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Held-out exercises of each kind.")] = 100,
    side: Annotated[int, typer.Option(min=16, help="Pixels that exercises are drawn at.")] = 224,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    output: Annotated[
        Path | None, typer.Option(help="Folder for summary.json, table.md, answers.jsonl and the plots.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, or a torch device name.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Answer labelled questions under several settings, and say how right the answers are and what they cost."""
    missing = [package for package in ("aiohttp", "matplotlib", "pyarrow") if find_spec(package) is None]
    if missing:
        raise ConfigError(f"evaluating needs {', '.join(missing)}: pip install 'skipvision[tune]'")
    from skipvision.evaluation import Trial, summarise
    from skipvision.evaluation import evaluate as answer_all
    from skipvision.evaluation.page import table

    trials = [Trial.parse(text, model=model) for text in trial or DEFAULT_TRIALS]
    asked = _items(data, match, strata, items, side)
    outcomes = answer_all(asked, trials, max_tokens=max_tokens, device=device, dtype=dtype, listener=_lines(len(asked)))
    summary = summarise(asked, outcomes)
    if output is not None:
        _write(output, summary, asked, outcomes)
    print_json(summary) if json else print(table(summary))


def _items(data: Path | None, match: str, strata: list[str] | None, count: int, side: int) -> list[Item]:
    from skipvision.evaluation import exercise_items, file_items, scene_items
    from skipvision.exercises import HELD_OUT_SEEDS, STRATA

    if match not in ("exact", "contains"):
        raise ConfigError(f"match must be 'exact' or 'contains'; got {match!r}")
    if data is None:
        seeds, kinds = HELD_OUT_SEEDS[:count], strata or [*STRATA]
        drawn = exercise_items([kind for kind in kinds if kind != SCENES], seeds=seeds, side=side)
        return drawn + (scene_items(seeds=seeds, side=side) if SCENES in kinds else [])
    if strata:
        raise ConfigError("strata are kinds of exercises, and data has its own questions: drop one of them")
    return file_items(data, match="exact" if match == "exact" else "contains")


def _write(output: Path, summary: dict[str, Any], items: list[Item], outcomes: list[Any]) -> None:
    """The summary, its table and plots, and every answer."""
    from skipvision.evaluation.page import plot_accuracy_by_flops, plot_accuracy_by_size, table

    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_text(json_text.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    (output / "table.md").write_text(table(summary) + "\n")
    with (output / "answers.jsonl").open("w", encoding="utf-8") as file:
        for at, item in enumerate(items):
            said = {each.trial.name: {"answer": each.answers[at], "grade": each.grades[at]} for each in outcomes}
            line = {"stratum": item.stratum, "question": item.question, "truth": item.truth, "trials": said}
            file.write(json_text.dumps(line, ensure_ascii=False) + "\n")
    plot_accuracy_by_flops(summary, output / "accuracy-by-flops.png")
    plot_accuracy_by_size(summary, output / "accuracy-by-size.png")


def _lines(total: int) -> Callable[[Trial, int], None]:
    """Tells of progress now and then."""
    told = time.monotonic()

    def tell(trial: Trial, done: int) -> None:
        nonlocal told
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            say(f"{trial.name}: {done} of {total} answered")

    return tell
