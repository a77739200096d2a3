"""Encoded samples side by side in one row of tokens, without padding: everything the model needs of a pass.

All indices are made here, on the host, once: the layers of the pass share them and no GPU waits for a count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from skipvision.tuning.encoding import EncodedSample


@dataclass(frozen=True, slots=True)
class PackedSamples:
    """Samples, one after the other. Of each, the decoder reads what its plan says, and says its answers."""

    text_ids: Tensor
    """(text,) int64"""
    text_rows: Tensor
    """(text,) int64: the row of each."""
    pixels: tuple[np.ndarray, ...]
    """Of all images in order, (3, height, width) uint8."""
    image_rows: Tensor
    """(visual tokens that enter the decoder,) int64: the rows of all images in order."""
    positions: Tensor
    """(rows,) int64, from 0 in each sample."""
    ffn_rows: Tensor | None
    """(kept,) int64: rows that run the feed-forward blocks. None: all."""
    ends: tuple[int, ...]
    """The row after each sample's last."""
    sights: tuple[Tensor | None, ...]
    """Of each sample (its rows, its rows) bool: which rows each row sees. None: itself and all before it."""
    speaking_rows: Tensor
    """(answers,) int64: rows after which a token of an answer is to be said."""
    wanted_ids: Tensor
    """(answers,) int64: those tokens."""

    @classmethod
    def of(cls, samples: Sequence[EncodedSample], *, forgetting: bool) -> Self:
        """Lay out samples, at least one.

        Args:
            forgetting: hide the skipped tokens from all tokens of an answer: from what they say, only the first of an
                answer, which follows on the question, is said with the skipped tokens in sight.
        """
        layouts = [_layout(sample) for sample in samples]
        rows = np.array([layout.rows for layout in layouts])
        starts = np.cumsum(rows) - rows

        def joined(parts: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate([part + at for part, at in zip(parts, starts, strict=True)]))

        skipped = joined([layout.skipped for layout in layouts])
        kept = np.ones(int(rows.sum()), dtype=bool)
        kept[skipped.numpy()] = False
        return cls(
            text_ids=torch.from_numpy(np.concatenate([sample.text_ids for sample in samples])),
            text_rows=joined([layout.text for layout in layouts]),
            pixels=tuple(pixels for sample in samples for pixels in sample.pixels),
            image_rows=joined([layout.images for layout in layouts]),
            positions=torch.from_numpy(np.concatenate([np.arange(count) for count in rows])),
            ffn_rows=torch.from_numpy(kept.nonzero()[0]) if len(skipped) else None,
            ends=tuple(np.cumsum(rows).tolist()),
            sights=tuple(_sight(layout) if forgetting else None for layout in layouts),
            speaking_rows=joined([layout.speaking for layout in layouts]),
            wanted_ids=torch.from_numpy(np.concatenate([s.text_ids[s.is_answer] for s in samples])),
        )

    def to(self, device: torch.device) -> Self:
        """The same on a device; pixels stay where they are until they are looked at."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name in ("text_ids", "text_rows", "image_rows", "positions", "ffn_rows", "speaking_rows", "wanted_ids")
            if (value := getattr(self, name)) is not None
        }
        masks = tuple(None if mask is None else mask.to(device, non_blocking=True) for mask in self.sights)
        return replace(self, **moved, sights=masks)


def passes(samples: Sequence[EncodedSample], *, most_tokens: int) -> Iterator[list[EncodedSample]]:
    """Cut a step's samples into passes of at most `most_tokens`, in order; a longer sample passes alone."""
    together: list[EncodedSample] = []
    tokens = 0
    for sample in samples:
        if together and tokens + sample.plan.prompt_tokens > most_tokens:
            yield together
            together, tokens = [], 0
        together.append(sample)
        tokens += sample.plan.prompt_tokens
    if together:
        yield together


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything of one sample stands, in rows from its first."""

    rows: int
    text: np.ndarray
    images: np.ndarray
    skipped: np.ndarray
    answers: np.ndarray
    """Rows that hold a token of an answer."""
    speaking: np.ndarray
    """Rows after which one is to be said."""


def _layout(sample: EncodedSample) -> _Layout:
    plan = sample.plan
    is_image = np.zeros(plan.prompt_tokens, dtype=bool)
    for start, image in zip(plan.image_starts(sample.image_offsets), plan.images, strict=True):
        is_image[start : start + image.lm_tokens] = True
    text = (~is_image).nonzero()[0]
    skipped = [np.arange(*span) for span in plan.skipped_spans(sample.image_offsets)]
    answers = text[sample.is_answer]
    return _Layout(
        rows=plan.prompt_tokens,
        text=text,
        images=is_image.nonzero()[0],
        skipped=np.concatenate(skipped) if skipped else np.zeros(0, dtype=np.int64),
        answers=answers,
        speaking=answers - 1,
    )


def _sight(layout: _Layout) -> Tensor | None:
    """(rows, rows) bool: what each row of a sample sees when its answers forget the skipped tokens."""
    if not len(layout.skipped):
        return None
    sees = np.tri(layout.rows, dtype=bool)
    sees[np.ix_(layout.answers, layout.skipped)] = False
    return torch.from_numpy(sees)
