"""One step as plain arrays: the packed row of tokens and every index into it, built on the host from the plans.

The row is [newest token of each decoding request][prompt][prompt]..., without padding. Nothing here touches a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skipvision.engine.live_request import LiveRequest
from skipvision.engine.scheduler import Step


@dataclass(frozen=True, slots=True)
class PackedPrompt:
    """One prompt in the order the decoder reads it; arrays are (prompt_tokens,)."""

    ids: np.ndarray
    """int64; 0 at visual tokens."""
    is_visual: np.ndarray
    is_skipped: np.ndarray
    is_kept: np.ndarray
    """Whose keys and values go to the cache."""


@dataclass(frozen=True, slots=True)
class PackedStep:
    """All rows of one step; int64 throughout."""

    ids: np.ndarray
    """(rows,); 0 at visual tokens."""
    positions: np.ndarray
    """(rows,)"""
    visual_rows: np.ndarray
    """Rows that get visual tokens, in the order of the step's images."""
    ffn_rows: np.ndarray | None
    """Rows that run the feed-forward blocks. None: all of them do."""
    written_rows: np.ndarray
    """Rows whose keys and values are cached, and where in the pool:"""
    written_slots: np.ndarray
    decode_slots: np.ndarray
    """(decodes, longest) the cache of each decoding request, its new token included; 0 after its end."""
    decode_lengths: np.ndarray
    """(decodes,)"""
    prompt_rows: tuple[tuple[int, int], ...]
    """[start, stop) of each prompt."""
    last_rows: np.ndarray
    """The row that each request's next token is chosen from."""


def pack(step: Step) -> PackedStep:
    """Lay one step out. New tokens count as cached from here on: call it once for each step."""
    prompts = [pack_prompt(request) for request in step.prompts]
    rows_per_prompt = [len(prompt.ids) for prompt in prompts]
    stops = len(step.decodes) + np.cumsum(rows_per_prompt, dtype=np.int64)
    prompt_rows = tuple((int(stop) - rows, int(stop)) for rows, stop in zip(rows_per_prompt, stops, strict=True))

    speaking = np.ones(len(step.decodes), dtype=bool)  # a newest token is text: it runs everything and is cached
    is_visual = np.concatenate([~speaking, *(prompt.is_visual for prompt in prompts)])
    is_skipped = np.concatenate([~speaking, *(prompt.is_skipped for prompt in prompts)])
    is_kept = np.concatenate([speaking, *(prompt.is_kept for prompt in prompts)])
    newest = [request.output_ids[-1] for request in step.decodes]
    positions = [np.array([request.next_position for request in step.decodes], dtype=np.int64)]

    written = [request.held_pages.append(1) for request in step.decodes]
    written += [
        request.held_pages.append(int(prompt.is_kept.sum()))
        for request, prompt in zip(step.prompts, prompts, strict=True)
    ]
    decode_slots, decode_lengths = _decode_slots(step.decodes)
    return PackedStep(
        ids=np.concatenate([np.array(newest, dtype=np.int64), *(prompt.ids for prompt in prompts)]),
        positions=np.concatenate([*positions, *(np.arange(rows, dtype=np.int64) for rows in rows_per_prompt)]),
        visual_rows=np.flatnonzero(is_visual),
        ffn_rows=np.flatnonzero(~is_skipped) if is_skipped.any() else None,
        written_rows=np.flatnonzero(is_kept),
        written_slots=np.concatenate(written),
        decode_slots=decode_slots,
        decode_lengths=decode_lengths,
        prompt_rows=prompt_rows,
        last_rows=np.concatenate([np.arange(len(step.decodes), dtype=np.int64), stops - 1]),
    )


def pack_prompt(request: LiveRequest) -> PackedPrompt:
    """Lay one prompt out: text where it stands, each image's tokens in their place."""
    plan, prompt = request.plan, request.prompt
    is_visual = np.zeros(plan.prompt_tokens, dtype=bool)
    for start, image in zip(plan.image_starts(prompt.image_offsets), plan.images, strict=True):
        is_visual[start : start + image.lm_tokens] = True
    is_skipped = np.zeros(plan.prompt_tokens, dtype=bool)
    for start, stop in plan.skipped_spans(prompt.image_offsets):
        is_skipped[start:stop] = True
    ids = np.zeros(plan.prompt_tokens, dtype=np.int64)
    ids[~is_visual] = prompt.text_ids
    is_kept = ~is_skipped if plan.forget_skipped else np.ones_like(is_skipped)
    return PackedPrompt(ids, is_visual, is_skipped, is_kept)


def _decode_slots(decodes: Sequence[LiveRequest]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([request.held_pages.cached_tokens for request in decodes], dtype=np.int64)
    slots = np.zeros((len(decodes), lengths.max(initial=0)), dtype=np.int64)
    for row, request in zip(slots, decodes, strict=True):
        length = request.held_pages.cached_tokens
        row[:length] = request.held_pages.slots(0, length)
    return slots, lengths
