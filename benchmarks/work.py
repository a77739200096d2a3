"""What every engine is asked to do: the same checkpoint, the same images, the same prompt, as many new tokens.

Needs numpy alone, so that it can be read in a peer's own environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROMPT = "How many large red circles are there in the image, and where are they?"
CHECKPOINT, PICTURES = "checkpoint", "pictures.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Questions about random images. Greedy, and no answer ends before its last token."""

    folder: str
    """Holds the checkpoint and the images; see `draw_pictures`."""
    requests: int
    new_tokens: int
    prompt: str = PROMPT
    images_each: int = 1

    def pictures(self) -> list[list[np.ndarray]]:
        """The images of each request: (side, side, 3) uint8 RGB each, no image twice."""
        count = self.requests * self.images_each
        every = np.load(Path(self.folder) / PICTURES, mmap_mode="r")
        if count > len(every):
            raise ValueError(f"the work needs {count} images and {len(every)} were drawn; draw more")
        flat = [np.array(picture) for picture in every[:count]]
        return [flat[at : at + self.images_each] for at in range(0, count, self.images_each)]

    @property
    def message(self) -> list[dict[str, object]]:
        """One request for a chat template: images first, then the prompt."""
        content = [*[{"type": "image"}] * self.images_each, {"type": "text", "text": self.prompt}]
        return [{"role": "user", "content": content}]


def draw_pictures(folder: Path, *, count: int, side: int) -> None:
    """Draw the images that works in `folder` take theirs from: noise, the same every time."""
    np.save(folder / PICTURES, np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))
