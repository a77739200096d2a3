"""Figures by trial and stratum, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from skipvision.evaluation.intervals import paired_difference, wilson
from skipvision.evaluation.items import Item
from skipvision.evaluation.run import Outcome

_SIZES_IN_PATCHES = (0, 0.75, 1, 1.25, 1.5, 2, 3, 1000)
"""Edges of the classes of size of what is asked about."""


def summarise(items: Sequence[Item], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What all trials came to, the first being what the others are compared with.

    Accuracies are mean grades; the average over strata counts each stratum once, as tables of benchmarks do.
    """
    strata = list(dict.fromkeys(item.stratum for item in items))
    baseline = outcomes[0]
    return {
        "items": len(items),
        "strata": {stratum: sum(item.stratum == stratum for item in items) for stratum in strata},
        "trials": [_of_trial(items, strata, outcome, baseline) for outcome in outcomes],
    }


def _of_trial(items: Sequence[Item], strata: Sequence[str], outcome: Outcome, baseline: Outcome) -> dict[str, Any]:
    by_stratum = {
        stratum: [grade for item, grade in zip(items, outcome.grades, strict=True) if item.stratum == stratum]
        for stratum in strata
    }
    accuracies = {stratum: _share(grades) for stratum, grades in by_stratum.items()}
    average = sum(each["mean"] for each in accuracies.values()) / len(accuracies)
    difference, low, high = paired_difference(outcome.grades, baseline.grades)
    same = sum(a == b for a, b in zip(outcome.answers, baseline.answers, strict=True))
    return {
        "name": outcome.trial.name,
        "model": outcome.trial.model or "zoo",
        "skip": outcome.skip.describe(),
        "shown": outcome.trial.shown,
        "accuracy": {**accuracies, "average": average, "all": _share(outcome.grades)},
        "difference": {"mean": difference, "low": low, "high": high},
        "same_answer": same / len(items),
        "kept_tokens": sum(outcome.kept_tokens) / len(items),
        "visual_tokens": sum(outcome.visual_tokens) / len(items),
        "paper_flops_share": _ratio(outcome.paper_flops),
        "causal_flops_share": _ratio(outcome.causal_flops),
        "items_per_second": len(items) / outcome.seconds,
        "latency_seconds": outcome.latency_seconds,
        "by_size": _by_size(items, outcome),
    }


def _share(grades: Sequence[float]) -> dict[str, float]:
    low, high = wilson(grades)
    return {"mean": sum(grades) / len(grades), "low": low, "high": high, "items": len(grades)}


def _ratio(spent_and_full: Sequence[tuple[int, int]]) -> float | None:
    """What is spent of what all tokens would cost; None where there is nothing to spend it on."""
    spent, full = (sum(each) for each in zip(*spent_and_full, strict=True))
    return spent / full if full else None


def _by_size(items: Sequence[Item], outcome: Outcome) -> list[dict[str, Any]]:
    """Accuracy by the height of what is asked about, in patches; items that do not tell it are left out."""
    sized = [
        (item.share * outcome.visual_grid, grade)
        for item, grade in zip(items, outcome.grades, strict=True)
        if item.share is not None
    ]
    classes = []
    for low, high in pairwise(_SIZES_IN_PATCHES):
        grades = [grade for size, grade in sized if low <= size < high]
        if grades:
            middle = sum(size for size, _ in sized if low <= size < high) / len(grades)
            classes.append({"from_patches": low, "to_patches": high, "mean_patches": middle, **_share(grades)})
    return classes
