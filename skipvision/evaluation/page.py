"""An evaluation as a Markdown table of the paper's shape, and as plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

Summary = dict[str, Any]
_MARKERS = "os^D"
"""After ten trials colours come again, with another marker."""
_WHOLE_PICTURE = 8.0
"""Sizes in patches from here on are drawn at the end of the axis: what is asked about is the whole picture."""


def table(summary: Summary) -> str:
    """Accuracy by stratum in percent, tokens kept, FLOPs and speed; a row for each trial."""
    strata = [*summary["strata"]]
    heads = ["trial", *strata, "average", "to the first", "same answer", "kept", "FLOPs (paper)", "latency", "items/s"]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for trial in summary["trials"]:
        accuracy, change = trial["accuracy"], trial["difference"]
        is_first = trial is summary["trials"][0]
        rows.append(
            [
                f"`{trial['name']}`",
                *(f"{accuracy[stratum]['mean']:.1%}" for stratum in strata),
                f"{accuracy['average']:.1%}",
                "–" if is_first else f"{change['mean']:+.1%} ({change['low']:+.1%} to {change['high']:+.1%})",
                "–" if is_first else f"{trial['same_answer']:.1%}",
                f"{trial['kept_tokens']:.0f} of {trial['visual_tokens']:.0f}",
                "–" if trial["paper_flops_share"] is None else f"{trial['paper_flops_share']:.1%}",
                f"{1000 * trial['latency_seconds']:.1f} ms",
                f"{trial['items_per_second']:.1f}",
            ]
        )
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    counts = ", ".join(f"{count} {stratum}" for stratum, count in summary["strata"].items())
    note = (
        f"*{summary['items']} items ({counts}), answered greedily. Accuracies are mean grades; the average counts each "
        "stratum once. To the first trial: the mean difference over the same items, with the 95% interval of a paired "
        "bootstrap. Kept: visual tokens that enter the language model. FLOPs: of the prefill, visual tokens only, as "
        "the paper counts. Latency: until the first token when nothing else is asked, vision tower included; settings "
        "of one model take turns.*"
    )
    return "\n".join([*lines, "", note])


def plot_accuracy_by_flops(summary: Summary, path: Path) -> None:
    """Every trial as a point, with the 95% interval of its accuracy over all items; saved as the path's ending says."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for at, trial in enumerate(summary["trials"]):
        if trial["paper_flops_share"] is None:
            continue
        accuracy = trial["accuracy"]["all"]
        below, above = accuracy["mean"] - accuracy["low"], accuracy["high"] - accuracy["mean"]
        axes.errorbar(
            100 * trial["paper_flops_share"], 100 * accuracy["mean"], yerr=[[100 * below], [100 * above]],
            fmt=_MARKERS[at // 10 % len(_MARKERS)], color=f"C{at % 10}", capsize=3, label=trial["name"],
        )  # fmt: skip
    axes.set_xlim(0, 105)
    axes.set_xlabel("prefill FLOPs, % of all visual tokens (paper's count)")
    axes.set_ylabel("accuracy, %")
    _finish(figure, path)


def plot_accuracy_by_size(summary: Summary, path: Path) -> None:
    """A line for each trial over the height of what is asked about, in patches."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for at, trial in enumerate(summary["trials"]):
        classes: Sequence[dict[str, float]] = trial["by_size"]
        if not classes:
            continue
        sizes = [min(each["mean_patches"], _WHOLE_PICTURE) for each in classes]
        axes.plot(sizes, [100 * each["mean"] for each in classes], "o-", color=f"C{at % 10}", label=trial["name"])
        axes.fill_between(
            sizes, [100 * each["low"] for each in classes], [100 * each["high"] for each in classes],
            color=f"C{at % 10}", alpha=0.12, linewidth=0,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"height of what is asked about, in patches ({_WHOLE_PICTURE:.0f}: the picture as a whole)")
    axes.set_ylabel("accuracy, %")
    _finish(figure, path)


def _finish(figure: Figure, path: Path) -> None:
    [axes] = figure.axes
    axes.set_ylim(-2, 102)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)
