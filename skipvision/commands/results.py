"""`skipvision results`: a job's answers as one file or table."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

import typer


def results(
    folder: Annotated[str, typer.Argument(help="The job's folder.")],
    to: Annotated[
        Literal["jsonl", "csv", "parquet", "lance", "delta", "openai"], typer.Option(help="Format to write.")
    ] = "jsonl",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Path or s3:// address to write. Default: the folder's name, here."),
    ] = None,
) -> None:
    """Write what a job has committed so far as one file or table, in the order of its input.

    With `--to openai` rows that ended as errors stand in a file beside it.
    """
    named_after = PurePosixPath(folder).name or "results"
    target = output or f"{named_after}.{'jsonl' if to == 'openai' else to}"
    if to == "openai":
        from pipelines.openai_results import export_openai

        print(export_openai(folder, output=target).describe())
        return
    from pipelines.results import export

    print(export(folder, to, output=target).describe())
