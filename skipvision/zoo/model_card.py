"""The shipped checkpoints' READMEs, printed from their measured cards and their recipe: no figure in them is typed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skipvision.exercises import STRATA
from skipvision.zoo.train import Recipe, Round, TowerRound

CARD_FILE, README_FILE = "card.json", "README.md"
_SCENES = {
    "scene captions": "scenes: every colour and shape named, none invented",
    "scene questions": "scenes: questions",
}


def save_card(folder: Path, figures: dict[str, Any]) -> None:
    """Write the measured figures, and the README printed from them, into the checkpoint's folder."""
    (folder / CARD_FILE).write_text(json.dumps(figures, indent=2) + "\n")
    (folder / README_FILE).write_text(model_card(figures, Recipe()))


def rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    """Head and rows of the card's table: right answers by kind of question and setting."""
    settings = figures["settings"]
    about = {**_SCENES, **{name: f"{name}: {stratum.about}" for name, stratum in STRATA.items()}}
    return [
        ("", *(_called(setting) for setting in settings)),
        *((about[kind], *(f"{settings[each][kind]:.1%}" for each in settings)) for kind in figures["items"]),
    ]


def model_card(figures: dict[str, Any], recipe: Recipe) -> str:
    """The README of the checkpoint that `figures` are about."""
    is_plain = figures["carried_skip"] == "off"
    name = "zoo-plain" if is_plain else "zoo"
    head, *shares = rows(figures)
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---", *["---:"] * (len(head) - 1)), *shares])
    rounds = [*recipe.together, *(recipe.plain if is_plain else recipe.skipping)]
    return f"""---
license: apache-2.0
pipeline_tag: image-text-to-text
---

# {name}

A LLaVA of {figures["parameters"] / 1e6:.1f} million parameters ({figures["weights_bytes"] / 1e6:.1f} MB) that describes
rendered pictures of coloured shapes and short texts, and answers questions about them. It ships with skipvision so that
the demo and the tests tell the truth on real pixels. It knows nothing else: on photographs it names shapes that are not
there.

It is an ordinary `LlavaForConditionalGeneration` folder: CLIP tower of {figures["visual_tokens"]} patches (224 px in
patches of 14), two-layer projector, LLaMA decoder, own tokenizer. {_about_skipping(figures)}

## What it can do

{_counts(figures["items"])}, measured by `skipvision zoo card --model {name}`:

{table}

{_agreement(figures)}

## How it was made

By `skipvision zoo train WORK PLAIN SKIPPING`, which makes both models, on two cores from nothing but rendered pictures,
in rounds. In those of the tower it learned what covers each patch and where, and its CLS token to look at everything
there is; in the others it was frozen, and the projector, the decoder and the summary pooling learned. Where looking
counts, one attention head of the decoder was drawn to what is asked for.

| round | learns | steps | pictures a step | peak rate | settings by share of the steps | questions | looking |
| --- | --- | ---: | ---: | ---: | --- | ---: | ---: |
{chr(10).join(_round(each) for each in rounds)}

Questions, about each picture, come beside its description. The last two rounds are the only ones in which the two
models differ: the same pictures, questions and steps. Where tokens are skipped, they are hidden from all but the first
token of an answer, as they are when it is decoded. Muon for the matrices inside layers, AdamW for the rest; matrix
products in bfloat16 where the processor has units for it.

Recipe: `{json.dumps(asdict(recipe))}`
"""


def _called(setting: str) -> str:
    skip, _, shown = setting.partition("@")
    named = "all tokens" if skip == "off" else f"skip {skip}"
    return "blank picture" if shown == "blank" else named


def _counts(items: dict[str, int]) -> str:
    exercises = sum(count for kind, count in items.items() if kind not in _SCENES)
    return f"{items['scene captions']} held-out scenes and {exercises} held-out exercises"


def _about_skipping(figures: dict[str, Any]) -> str:
    if figures["carried_skip"] == "off":
        return "It was taught with all visual tokens: what its twin `zoo`, which skips, is compared with."
    return (
        f"It carries its Skip-Vision setting, **{figures['carried_skip']}**: the 100/156 of 576 tokens of "
        f"arXiv:2503.21817, scaled to its {figures['visual_tokens']} tokens, which `--skip auto` uses. It was taught "
        "under others too, and answers under any of them. Its twin `zoo-plain` was taught with all tokens."
    )


def _agreement(figures: dict[str, Any]) -> str:
    carried = figures["carried_skip"]
    if carried == "off":
        return "Lists are graded by F1 over the objects named, all others right or wrong."
    return (
        f"With {carried} the answer is that with all tokens, word for word, in {figures['same_answer'][carried]:.1%}. "
        "Lists are graded by F1 over the objects named, all others right or wrong."
    )


def _round(each: TowerRound | Round) -> str:
    common = f"{each.steps} | {each.batch} | {each.peak:g}"
    if isinstance(each, TowerRound):
        return f"| {each.name} | tower | {common} | – | – | – |"
    mix = ", ".join(f"`{setting}` {share:.0%}" for setting, share in each.mix)
    return f"| {each.name} | decoder | {common} | {mix} | {each.questions} | {each.looking:g} |"
