"""What every engine is asked to do: the same checkpoint, the same images, the same prompt, as many new tokens.

Needs numpy alone, so that it can be read in a peer's own environment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
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
    first: int = 0
    """How many requests, with images of their own, come before these."""

    def pictures(self) -> list[list[np.ndarray]]:
        """The images of each request: (side, side, 3) uint8 RGB each, no image twice."""
        start, stop = self.first * self.images_each, (self.first + self.requests) * self.images_each
        every = np.load(Path(self.folder) / PICTURES, mmap_mode="r")
        if stop > len(every):
            raise ValueError(f"the work needs {stop} images and {len(every)} were drawn; draw more")
        flat = [np.array(picture) for picture in every[start:stop]]
        return [flat[at : at + self.images_each] for at in range(0, len(flat), self.images_each)]

    def shared_by(self, processes: int) -> list[Work]:
        """As many parts of nearly equal size, or one for each request if these are fewer."""
        processes = min(processes, self.requests)
        bounds = [self.requests * number // processes for number in range(processes + 1)]
        return [replace(self, first=self.first + start, requests=stop - start) for start, stop in pairwise(bounds)]

    @property
    def message(self) -> list[dict[str, object]]:
        """One request for a chat template: images first, then the prompt."""
        content = [*[{"type": "image"}] * self.images_each, {"type": "text", "text": self.prompt}]
        return [{"role": "user", "content": content}]


def draw_pictures(folder: Path, *, count: int, side: int) -> None:
    """Draw the images that works in `folder` take theirs from: noise, the same every time."""
    np.save(folder / PICTURES, np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))
