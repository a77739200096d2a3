"""The shipped checkpoint's README, printed from its measured card and its recipe: no figure in it is typed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skipvision.zoo.train import Recipe

CARD_FILE, README_FILE = "card.json", "README.md"


def save_card(folder: Path, figures: dict[str, Any]) -> None:
    """Write the measured figures, and the README printed from them, into the checkpoint's folder."""
    (folder / CARD_FILE).write_text(json.dumps(figures, indent=2) + "\n")
    (folder / README_FILE).write_text(model_card(figures, Recipe()))


def model_card(figures: dict[str, Any], recipe: Recipe) -> str:
    """The README of the checkpoint."""
    shares = "\n".join(
        f"| {label} | {_percent(figures['all_tokens'][name])} | {_percent(figures['skipping'][name])} | "
        f"{_percent(figures['blank_picture'][name])} |"
        for name, label in (
            ("shapes_right", "every shape and colour named, none invented"),
            ("captions_right", "whole caption right: sizes, places, letters and order too"),
            ("questions_right", "questions right"),
        )
    )
    rounds = "\n".join(
        f"| {each.name} | {each.steps} | {each.peak:g} | {each.skip_share:.0%} | {each.questions} |"
        for each in recipe.rounds
    )
    return f"""---
license: apache-2.0
pipeline_tag: image-text-to-text
---

# scenes-llava

A LLaVA of 2.6 million parameters ({figures["weights_bytes"] / 1e6:.1f} MB) that describes rendered scenes: coloured
shapes, their sizes and places, short texts. It ships with skipvision so that the demo and the tests tell the truth on
real pixels. It knows nothing else: on photographs it names shapes that are not there.

It is an ordinary `LlavaForConditionalGeneration` folder (CLIP tower of {figures["visual_tokens"]} patches, two-layer
projector, LLaMA decoder, own tokenizer) and carries its Skip-Vision setting, **{figures["carried_skip"]}**: the
100/156 of 576 tokens of arXiv:2503.21817, scaled to its {figures["visual_tokens"]} tokens. `--skip auto` uses it.

## What it can do

{figures["held_out_scenes"]} held-out scenes of one to three shapes and {figures["questions"]} questions about them,
measured by `skipvision zoo card`:

| | all tokens | skip {figures["carried_skip"]} | blank picture |
| --- | ---: | ---: | ---: |
{shares}

The caption with skipping is the caption with all tokens, word for word, in {_percent(figures["same_caption"])}.

## How it was made

By `skipvision zoo train WORK OUTPUT`, on two cores in float32, from nothing but rendered scenes. First the tower
learned what covers each patch and where, and its CLS token to look at everything there is: {recipe.tower_steps} steps,
peak rate {recipe.tower_peak:g}; then it was frozen. Projector, decoder and summary pooling learned in rounds, with
skipped tokens hidden from answers as they are when decoded:

| round | steps | peak rate | batches that skip | questions beside each caption |
| --- | ---: | ---: | ---: | ---: |
{rounds}

{recipe.batch} pictures a step, Muon for the matrices inside layers, AdamW for the rest. The last two rounds were added
because the held-out scenes, scored after the second and the third, came out worse with all tokens than with skipping.

Recipe: `{json.dumps(asdict(recipe))}`
"""


def _percent(share: float) -> str:
    return f"{share:.1%}"
