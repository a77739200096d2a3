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
    rounds = "; ".join(f"{r.steps} steps of {r.batch} pictures, peak rate {r.peak:g}" for r in recipe.tower)
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

The stages of `skipvision zoo train WORK OUTPUT`, on two cores in float32, from nothing but rendered scenes:

0. the tower learns what covers each patch ({rounds}); then it is frozen;
1. projector and decoder, all tokens: {recipe.all_steps} steps;
2. Skip-Vision in {recipe.skip_share:.0%} of the batches: {recipe.skip_steps} steps;
3. the same with skipped tokens hidden from answers as they are when decoded: {recipe.forget_steps} steps;
4. the tower's CLS token learns to look at everything there is, its patch features held: {recipe.gaze_steps} steps;
5. stage 3 again with the tokens that are retained now: {" and ".join(map(str, recipe.settle_steps))} steps.

Stages 1 to 3 and 5: {recipe.batch} pictures a step, a caption and three questions each, AdamW, peak rate
{recipe.peak:g}. The stages of these very weights were run one by one while the recipe was being found; the recipe as a
whole has not been run from nothing at full size. Known differences: the first tower round was drawn without pictures
wider than high, and stage 3 was cut off in a schedule of 1,700 steps. Of two candidates, before and after the last
round of stage 5, this one was kept after both were measured on the same held-out scenes: it had more whole captions and
questions right, and slightly fewer shapes.

Recipe: `{json.dumps(asdict(recipe))}`
"""


def _percent(share: float) -> str:
    return f"{share:.1%}"
