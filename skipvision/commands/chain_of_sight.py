"""`skipvision chain-of-sight`: give a LLaVA checkpoint a multi-scale projector, to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipvision.commands.output import say
from skipvision.errors import ConfigError


def chain_of_sight(
    model: Annotated[str, typer.Argument(help="LLaVA-1.5 checkpoint folder or hub id, or `zoo`.")],
    output: Annotated[Path, typer.Argument(help="Folder for the new checkpoint.")],
    scale: Annotated[
        list[str] | None,
        typer.Option(help="WINDOW:QUERIES, the coarsest first; repeat it. Default: the paper's 32:16, 4:4 and 2:4."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides how the new weights start.")] = 0,
) -> None:
    """Copy a checkpoint with a new chain-of-sight projector, which `skipvision tune` then trains."""
    from skipvision.families.chain_of_sight import add_chain_of_sight
    from skipvision.method.chain_of_sight import PAPER_SCALES, Scale

    if output.exists():
        raise ConfigError(f"{output} exists already; name a folder that does not")
    scales = [Scale(*_numbers(each)) for each in scale] if scale else PAPER_SCALES
    add_chain_of_sight(model, scales, output, seed=seed)
    say(f"{output} has a chain-of-sight projector that has learnt nothing yet; train it with skipvision tune")


def _numbers(text: str) -> tuple[int, int]:
    window, _, queries = text.partition(":")
    if not (window.isdecimal() and queries.isdecimal()):
        raise ConfigError(f"a scale is written WINDOW:QUERIES, such as 4:4; got {text!r}")
    return int(window), int(queries)
