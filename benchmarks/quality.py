"""What skipping costs in answers: the shipped twins on held-out exercises, under every setting and with every control.

`python -m benchmarks.quality --help`; no part of `make bench`, since it takes several minutes. The twins learnt the
same pictures and questions in as many steps, one with all tokens and one with skipping.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import typer
from transformers import LlavaForConditionalGeneration

from benchmarks.machine import ROOT, write_result
from skipvision.evaluation import Trial, evaluate, exercise_items, summarise
from skipvision.evaluation.page import plot_accuracy_by_flops, plot_accuracy_by_size
from skipvision.exercises import HELD_OUT_SEEDS, STRATA
from skipvision.families.checkpoint import read_config, resolve_model, visual_tokens
from skipvision.method.flops import DecoderShape, prefill_flops
from skipvision.method.plan import SkipConfig, plan_prompt
from skipvision.method.summary import SummaryPooling
from skipvision.zoo.lessons import Reader
from skipvision.zoo.schedule import Schedule
from skipvision.zoo.shape import build_tokenizer
from skipvision.zoo.train import Recipe, lesson_stage

RESULT = ROOT / "benchmarks" / "results" / "quality.json"
PLOTS = ROOT / "docs"
SETTINGS = ("28/69", "44/69", "114/142")
"""The paper's 64/156, 100/156 and 256/320 of 576, scaled to 256 tokens."""
CARRIED = "44/69"
_UNDRAWN = 900_000_000
"""Seeds for steps that are timed and thrown away."""


def measure(
    items: Annotated[int, typer.Option(min=1, help="Held-out exercises of each stratum.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="Training steps that are timed under each setting.")] = 7,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
    plots: Annotated[Path, typer.Option(help="Folder for the plots.")] = PLOTS,
) -> None:
    """Answer under every setting, time training steps, write one JSON file and two plots."""
    asked = exercise_items([*STRATA], seeds=HELD_OUT_SEEDS[:items])
    trials = [Trial.parse(text, model=None) for text in _trials()]
    summary = summarise(asked, evaluate(asked, trials, max_tokens=80))
    seconds = step_seconds(("off", *SETTINGS), rounds=rounds)
    for trial in summary["trials"]:
        trial["step_seconds"] = seconds.get(trial["skip"].removesuffix(":keep")) if _is_taught(trial) else None
    write_result(output, "quality", {"rounds": rounds, **summary})
    plot_accuracy_by_flops(summary, plots / "accuracy-by-flops.png")
    shown = {"zoo-plain=off", f"zoo={CARRIED}", f"zoo-plain={CARRIED}:plain", "zoo-plain=resize:64"}
    by_size = {**summary, "trials": [trial for trial in summary["trials"] if trial["name"] in shown]}
    plot_accuracy_by_size(by_size, plots / "accuracy-by-size.png")


def _trials() -> list[str]:
    """The first is what all others are compared with."""
    reduced = equal_flops_tokens(CARRIED)
    return [
        "zoo-plain=off",
        *(f"zoo={setting}{kept}" for setting in SETTINGS for kept in ("", ":keep")),
        f"zoo={CARRIED}:plain",
        "zoo=off",
        f"zoo-plain={CARRIED}:plain",
        *(f"zoo-plain={reducer}:{reduced}" for reducer in ("saliency", "uniform", "random")),
        "zoo-plain=resize:64",  # a square grid, the nearest
        "zoo-plain=off@blank",
        "zoo-plain=off@nothing",
    ]


def _is_taught(trial: dict[str, Any]) -> bool:
    """Whether there is training under a trial's setting, whose time could be told."""
    return trial["shown"] == "picture" and trial["name"] not in ("zoo=off", f"zoo={CARRIED}:plain") and (
        trial["model"] == "zoo" or trial["skip"] == "off"
    )  # fmt: skip


def equal_flops_tokens(setting: str) -> int:
    """How many tokens cost as much to read, as the paper counts, as all of an image under a setting."""
    config = read_config("zoo")
    shape = DecoderShape.from_config(config.text_config.to_dict())
    tokens = visual_tokens(config)

    def cost(skip: SkipConfig) -> int:
        plan = plan_prompt(skip, text_tokens=0, visual_tokens=[tokens])
        return prefill_flops(shape, plan, convention="paper")

    wanted = cost(SkipConfig.parse(setting))
    return min(range(1, tokens), key=lambda kept: abs(cost(SkipConfig.parse(f"uniform:{kept}")) - wanted))


def step_seconds(settings: tuple[str, ...], *, rounds: int) -> dict[str, float]:
    """Median seconds of a training step of the round in which the twins part, under each setting, in turns."""
    model = LlavaForConditionalGeneration.from_pretrained(resolve_model("zoo-plain"))
    reader = Reader(model, SummaryPooling(model.config.text_config.hidden_size), build_tokenizer())
    spent: dict[str, list[float]] = {setting: [] for setting in settings}
    for number in range(rounds + 1):
        for setting in settings:
            stage = lesson_stage(reader, replace(Recipe().skipping[0], mix=((setting, 1.0),), first_seed=_UNDRAWN))
            schedule = Schedule(stage.module, peak=1e-9, steps=rounds + 1, name="timing")
            started = perf_counter()
            stage.step(number, schedule)
            spent[setting].append(perf_counter() - started)
    return {setting: median(seconds[1:]) for setting, seconds in spent.items()}  # the first ones warm up


if __name__ == "__main__":
    typer.run(measure)
