"""`skipvision zoo`: the figures of the models that ship, measured again, and the recipe that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skipvision.commands.output import print_json, print_table


def card(
    model: Annotated[
        str | None, typer.Option(help="zoo, zoo-plain, a checkpoint folder or hub id. Default: zoo.")
    ] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Held-out scenes to caption and to ask about.")] = 500,
    exercises: Annotated[int, typer.Option(min=1, help="Held-out exercises of each kind.")] = 200,
    save: Annotated[bool, typer.Option("--save", help="Also write the card beside the weights.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a shipped model on held-out pictures and print its card."""
    from skipvision.families.checkpoint import resolve_model
    from skipvision.zoo.card import measure
    from skipvision.zoo.model_card import rows, save_card

    figures = measure(model, scenes=scenes, exercises=exercises)
    if save:
        save_card(Path(resolve_model(model)), figures)
    title = (
        f"{figures['parameters'] / 1e6:.1f} million parameters, {figures['weights_bytes'] / 1e6:.1f} MB, "
        f"{figures['visual_tokens']} visual tokens, carries {figures['carried_skip']}"
    )
    head, *shares = rows(figures)
    print_json(figures) if json else print_table(title, head, shares)


def train(
    work: Annotated[Path, typer.Argument(help="Folder for stages; a run that was stopped goes on there.")],
    plain: Annotated[Path, typer.Argument(help="Folder for the checkpoint that is taught with all tokens.")],
    skipping: Annotated[Path, typer.Argument(help="Folder for the one that is taught with Skip-Vision.")],
) -> None:
    """Train the models that ship from nothing, on rendered pictures: over an hour on two cores with bfloat16 units."""
    from skipvision.zoo.train import train as follow_recipe

    follow_recipe(work, plain, skipping)
