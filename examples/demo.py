"""`make demo`: the real job on the example images, three ways in, and what skipping saved and changed.

Writes `demo-output/`: a job's folder for each kind of input, and `index.html`, the page to look at.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cluster import cluster
from pipelines.comparison import Comparison, compare
from pipelines.comparison_page import write_comparison
from pipelines.job import run
from skipvision import Engine
from skipvision.config import JobConfig
from skipvision.errors import ImageError
from skipvision.images import read_image
from skipvision.scenes import named_shapes

EXAMPLES = Path(__file__).parent
INPUTS = {"folder": "images", "parquet": "images.parquet", "jsonl": "images.jsonl"}
"""Job -> its input, relative to this folder."""
PROMPT = "Describe the image."
MAX_TOKENS = 64
ROUNDS = 7
WIDTH_IN_A_LOG = 140
"""Characters to a line where there is no terminal to ask."""
ROWS_PER_SHARD = 4
"""Small, so that even fourteen rows are several commits and the report's plot has something to show."""


def main(output: Path = Path("demo-output"), *, model: str | None = None, skip: str = "auto") -> Comparison:
    """Run the three jobs, compare on the images that can be read, print the table and the bill, write the page."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH_IN_A_LOG)
    jobs = [job_config(name, output, model=model, skip=skip) for name in INPUTS]
    with cluster(jobs[0]):  # one Ray for the three jobs; `skipvision run` starts its own
        for job in jobs:
            shutil.rmtree(job.output, ignore_errors=True)  # of an earlier demo: a finished job would do nothing
            console.rule(f"examples/{Path(job.input).name} -> {job.output}", align="left")
            run(job)
    console.rule("all tokens beside skipping", align="left")
    comparison = compare_examples(model=model, skip=skip)
    console.print(table(comparison))
    links = {name: f"{name}/report.html" for name in INPUTS}
    write_comparison(
        output / "index.html", comparison, model=model or "zoo", links=links, note=shapes_right(comparison)
    )
    console.print(shapes_right(comparison), highlight=False)
    console.print(comparison.bill.line(), style="bold", highlight=False)
    console.print(f"Look at {output / 'index.html'}", highlight=False)
    return comparison


def job_config(name: str, output: Path, *, model: str | None, skip: str) -> JobConfig:
    """The settings of one of the jobs, as flags of `skipvision run` would give them."""
    return JobConfig(
        input=str(EXAMPLES / INPUTS[name]),
        output=str(output / name),
        prompt=PROMPT,
        model=model,
        skip=skip,
        max_tokens=MAX_TOKENS,
        rows_per_shard=ROWS_PER_SHARD,
    )


def compare_examples(*, model: str | None, skip: str) -> Comparison:
    """Answer for every example image that can be read, with all tokens and with skipping, in this process."""
    truths = {Path(row["image"]).name: row["truth"] for row in example_rows()}
    images = {}
    for row in example_rows():
        try:
            images[Path(row["image"]).name] = read_image(EXAMPLES / row["image"])
        except ImageError:
            continue  # broken on purpose: the jobs above have shown what becomes of it
    engine = Engine.load(model, skip=skip)
    try:
        return compare(engine, images, prompt=PROMPT, truths=truths, max_tokens=MAX_TOKENS, rounds=ROUNDS)
    finally:
        engine.close()


def example_rows() -> list[dict[str, str]]:
    """The rows of `images.jsonl`: a relative path, and what the picture shows."""
    return [json.loads(line) for line in (EXAMPLES / "images.jsonl").read_text().splitlines()]


def shapes_right(comparison: Comparison) -> str:
    """How often an answer names every shape and colour of the picture and invents none."""
    truths = [named_shapes(pair.truth or "") for pair in comparison.pairs]
    full = sum(named_shapes(p.all_tokens.text) == t for p, t in zip(comparison.pairs, truths, strict=True))
    skipped = sum(named_shapes(p.skipping.text) == t for p, t in zip(comparison.pairs, truths, strict=True))
    return f"every shape and colour right, none invented: all tokens {full}, skipping {skipped} of {len(truths)}"


def table(comparison: Comparison) -> Table:
    """Every image with its truth, both answers and the tokens kept."""
    drawn = Table(show_lines=True, expand=True)
    for column in ("image", "shown", "all tokens", "skipping", "same", "tokens kept"):
        is_text = column in ("shown", "all tokens", "skipping")
        drawn.add_column(column, overflow="fold", no_wrap=not is_text, ratio=1 if is_text else None)
    for pair in comparison.pairs:
        plan = pair.skipping.plan
        kept = f"{plan.retained_tokens} + {plan.skipped_tokens} of {plan.visual_tokens}"
        same = "yes" if pair.same else "no"
        cells = (pair.name, pair.truth or "", pair.all_tokens.text, pair.skipping.text, same, kept)
        drawn.add_row(*map(Text, cells))
    return drawn


if __name__ == "__main__":
    main()
