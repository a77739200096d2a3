"""What skipping costs in answers: the same short fine-tuning with all tokens and with skipping, on held-out exercises.

`python -m benchmarks.quality --help`; not part of `make bench`, since it trains twice. Both runs start from the shipped
model, see the same pictures in the same order and take as many steps.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks.machine import ROOT, write_result
from skipvision.commands.exercises import exercises
from skipvision.config import check
from skipvision.evaluation import Trial, evaluate, exercise_items, summarise
from skipvision.exercises import HELD_OUT_SEEDS
from skipvision.families.checkpoint import resolve_model
from skipvision.tuning import Run, TuneConfig, tune

RESULT = ROOT / "benchmarks" / "results" / "quality.json"
STRATA = ("global", "counting", "list")
"""Near enough to what the shipped model's tower was taught, which rests."""
SKIP = "44/69"
"""The paper's 100/156 of 576, scaled to 256 tokens."""
SIDE = 128


def measure(
    steps: Annotated[int, typer.Option(min=1)] = 1200,
    batch: Annotated[int, typer.Option(min=1, help="Pictures of a step.")] = 16,
    items: Annotated[int, typer.Option(min=1, help="Held-out exercises of each stratum.")] = 400,
    model: Annotated[str | None, typer.Option(help="What both runs start from. Default: the shipped model.")] = None,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Train twice, answer, and write one JSON file."""
    with TemporaryDirectory() as folder:
        data, runs = Path(folder) / "data", Path(folder) / "runs"
        exercises(data, count=steps * batch, strata=[*STRATA], questions=3, side=SIDE, first=0)
        common = {"model": resolve_model(model), "data": str(data / "samples.jsonl"), "batch": batch, "steps": steps}
        plain = train({**common, "skip": "off", "output": str(runs / "plain")})
        skipping = train({**common, "skip": SKIP, "forgetting": True, "output": str(runs / "skipping")})
        models = {"plain": str(runs / "plain" / "model"), "skipping": str(runs / "skipping" / "model")}
        summary = compare(models, items=items)
    training = {"steps": steps, "batch": batch, "plain": plain, "skipping": skipping}
    write_result(output, "quality", {"training": training, **summary})


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """One run; its report."""
    how = {"learning_rate": 1e-3, "max_tokens": 512, "gradient_checkpointing": False, "save_every": 200, "loaders": 0}
    return tune(Run.prepare(check(settings | how, TuneConfig, origin="the benchmark")))


def compare(models: dict[str, str], *, items: int) -> dict[str, Any]:
    """Answers of both on held-out exercises, as trained and otherwise; `models` by what their trials are called."""
    rows = [
        ("plain", "off", "picture"),
        ("skipping", SKIP, "picture"),
        ("skipping", f"{SKIP}:keep", "picture"),
        ("skipping", "off", "picture"),
        ("plain", f"{SKIP}:plain", "picture"),
        ("plain", "off", "blank"),
        ("plain", "off", "nothing"),
    ]
    trials = [Trial(model=models[name], skip=skip, shown=shown) for name, skip, shown in rows]
    asked = exercise_items(STRATA, seeds=HELD_OUT_SEEDS[:items], side=SIDE)
    summary = summarise(asked, evaluate(asked, trials, max_tokens=80))
    for (name, skip, shown), trial in zip(rows, summary["trials"], strict=True):
        trial |= {"model": name, "name": f"{name}={skip}" + ("" if shown == "picture" else f"@{shown}")}
    return summary


if __name__ == "__main__":
    typer.run(measure)
