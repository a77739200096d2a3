"""`skipvision zoo`: the figures of the model that ships, measured again, and the recipe that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skipvision.commands.output import print_json, print_table

SETTINGS = {"all_tokens": "all tokens", "skipping": "skip {carried_skip}", "blank_picture": "blank picture"}
SCORES = {
    "shapes_right": "every shape and colour right, none invented",
    "captions_right": "whole caption right",
    "questions_right": "questions right",
}


def card(
    scenes: Annotated[int, typer.Option(min=1, help="Held-out scenes to caption and to ask about.")] = 500,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint folder or hub id. Default: the model that ships.")
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Also write the card beside the weights.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the shipped model on held-out scenes and print its card."""
    from skipvision.zoo import path
    from skipvision.zoo.card import evaluate
    from skipvision.zoo.model_card import save_card

    figures = evaluate(model, scenes=scenes)
    if save:
        save_card(Path(model) if model else path(), figures)
    print_json(figures) if json else _print_card(figures)


def train(
    work: Annotated[Path, typer.Argument(help="Folder for unfinished stages; a run that was stopped goes on there.")],
    output: Annotated[Path, typer.Argument(help="Folder for the finished checkpoint.")],
) -> None:
    """Train the model that ships from nothing, on rendered scenes; well over an hour on two cores."""
    from skipvision.zoo.train import train as follow_recipe

    follow_recipe(work, output)


def _print_card(figures: dict[str, Any]) -> None:
    title = (
        f"{figures['held_out_scenes']} held-out scenes, {figures['questions']} questions, "
        f"{figures['visual_tokens']} visual tokens, carries {figures['carried_skip']}, "
        f"{figures['weights_bytes'] / 1e6:.1f} MB of weights"
    )
    rows = [(label, *(f"{figures[name][score]:.1%}" for name in SETTINGS)) for score, label in SCORES.items()]
    rows.append(("same caption as all tokens", "–", f"{figures['same_caption']:.1%}", "–"))
    print_table(title, ("", *(label.format(**figures) for label in SETTINGS.values())), rows)
