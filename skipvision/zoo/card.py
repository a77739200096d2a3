"""What the shipped model can do, measured again from nothing: `skipvision zoo card`.

Held-out scenes are those with the seeds from 0 up; no stage of the recipe ever draws one of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skipvision.engine import Engine, Request, Sampling
from skipvision.families.checkpoint import SHIPPED_MODEL, read_config, visual_tokens
from skipvision.method.plan import SkipConfig
from skipvision.scenes import CAPTION_PROMPTS, Scene, named_shapes, scene

HELD_OUT_SCENES = 500
QUESTIONS_PER_SCENE = 2
SIDE = 256
"""Pixels of the rendered pictures; the processor resizes them."""
BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Shares of the held-out scenes, or questions, that were answered right."""

    shapes_right: float
    """Scenes of which the caption names every colour and shape, as often as it is there, and no other."""
    captions_right: float
    """Scenes with the whole caption right: sizes, places, letters and order too."""
    questions_right: float


def evaluate(model: str | Path | None = None, *, scenes: int = HELD_OUT_SCENES) -> dict[str, Any]:
    """Measure all tokens, the carried setting, and the carried setting with a blank picture.

    Returns:
        The card: scores by setting, agreement of the captions, and what the model is; plain JSON values.
    """
    engine = Engine.load(model, skip="off")
    carried = engine.family.carried_skip
    drawn = [scene(seed) for seed in range(scenes)]
    try:
        everything, captions = _score(engine, drawn, SkipConfig())
        skipping, captions_skipping = _score(engine, drawn, carried)
        blank, _ = _score(engine, drawn, carried, blank=True)
    finally:
        engine.close()
    same = sum(a == b for a, b in zip(captions, captions_skipping, strict=True)) / scenes
    return {
        "held_out_scenes": scenes,
        "questions": scenes * QUESTIONS_PER_SCENE,
        "carried_skip": carried.describe(),
        "visual_tokens": visual_tokens(read_config(model)),
        "weights_bytes": sum(file.stat().st_size for file in Path(model or SHIPPED_MODEL).glob("*.safetensors")),
        "all_tokens": asdict(everything),
        "skipping": asdict(skipping),
        "blank_picture": asdict(blank),
        "same_caption": same,
    }


def _score(engine: Engine, drawn: Sequence[Scene], skip: SkipConfig, *, blank: bool = False) -> tuple[Score, list[str]]:
    captions, captions_right, questions_right, asked = [], 0, 0, 0
    for start in range(0, len(drawn), BATCH):
        batch = drawn[start : start + BATCH]
        wanted = [_lessons(start + i, held_out) for i, held_out in enumerate(batch)]
        requests = [
            Request(prompt=prompt, images=(image,), skip=skip, sampling=Sampling(max_tokens=80))
            for image, turns in zip(_pixels(engine, batch, blank), wanted, strict=True)
            for prompt, _ in turns
        ]
        answers = iter(engine.answer(requests))
        for turns in wanted:
            said = [next(answers).text for _ in turns]
            right = [text == truth for text, (_, truth) in zip(said, turns, strict=True)]
            captions.append(said[0])
            captions_right += right[0]
            questions_right += sum(right[1:])
            asked += len(right) - 1
    shapes_right = sum(
        named_shapes(said) == sorted((s.colour, s.shape) for s in held_out.shapes)
        for said, held_out in zip(captions, drawn, strict=True)
    )
    share = Score(
        shapes_right=shapes_right / len(drawn),
        captions_right=captions_right / len(drawn),
        questions_right=questions_right / asked,
    )
    return share, captions


def _lessons(seed: int, held_out: Scene) -> list[tuple[str, str]]:
    rng = random.Random(f"questions {seed}")
    return [(CAPTION_PROMPTS[0], held_out.caption()), *held_out.questions(rng, QUESTIONS_PER_SCENE)]


def _pixels(engine: Engine, batch: Sequence[Scene], blank: bool) -> list[np.ndarray]:
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    return [engine.prepare(white if blank else np.asarray(held_out.render(SIDE))) for held_out in batch]
