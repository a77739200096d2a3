"""What the engine tests ask about: pictures, and the setting that their checkpoint carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skipvision.method.plan import SkipConfig

CARRIED = SkipConfig(retain=4, merge_skipped_to=6, summarise=True, forget_skipped=True)


def picture(seed: int, *, height: int = 40, width: int = 50) -> np.ndarray:
    """(height, width, 3) uint8 noise with a colour of its own."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 100, (height, width, 3)) + rng.integers(0, 156, 3)
    return noise.astype(np.uint8)


def as_stock(processor: Any, prompt: str, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    """What transformers' own processor makes of a prompt and pictures."""
    content = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    return dict(processor(text=text, images=list(pictures) or None, return_tensors="pt"))
