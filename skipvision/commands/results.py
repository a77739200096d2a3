"""`skipvision results`: a job's answers as one file or table."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

import typer


def results(
    folder: Annotated[str, typer.Argument(help="The job's folder.")],
    to: Annotated[
        Literal["jsonl", "csv", "parquet", "lance", "delta"], typer.Option(help="Format to write.")
    ] = "jsonl",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Path or s3:// address to write. Default: the folder's name, here."),
    ] = None,
) -> None:
    """Write what a job has committed so far as one file or table, in the order of its input."""
    from pipelines.results import export

    named_after = PurePosixPath(folder).name or "results"
    print(export(folder, to, output=output or f"{named_after}.{to}").describe())
