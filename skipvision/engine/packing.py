"""One step as plain arrays: the packed row of tokens and every index into it, built on the host from the plans.

The row is [newest token of each decoding request][part of a prompt][part of a prompt]..., without padding. Nothing
here touches a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skipvision.engine.live_request import Reading
from skipvision.engine.scheduler import Step


@dataclass(frozen=True, slots=True)
class PackedChunk:
    """Consecutive rows of one sequence."""

    start: int
    stop: int
    """[start, stop) of the packed row."""
    past_slots: np.ndarray
    """(tokens,) int64: where its sequence's earlier keys and values are, all of which its rows attend to."""
    speaks: bool


@dataclass(frozen=True, slots=True)
class PackedStep:
    """All rows of one step; int64 throughout."""

    ids: np.ndarray
    """(rows,); 0 at visual tokens."""
    positions: np.ndarray
    """(rows,)"""
    visual_rows: np.ndarray
    """Rows that get visual tokens, in the order of the step's readings."""
    ffn_rows: np.ndarray | None
    """Rows that run the feed-forward blocks. None: all of them do."""
    written_rows: np.ndarray
    """Rows whose keys and values are written, to stay or for the next steps of their prompt, and where in the pool:"""
    written_slots: np.ndarray
    decode_slots: np.ndarray
    """(decodes, longest) the cache of each decoding request, its new token included; 0 after its end."""
    decode_lengths: np.ndarray
    """(decodes,)"""
    chunks: tuple[PackedChunk, ...]
    wanted_rows: np.ndarray
    """The row that each speaker's next token is chosen from."""


def pack(step: Step) -> PackedStep:
    """Lay one step out. New tokens count as cached from here on: call it once for each step."""
    parts = [_Part(reading) for reading in step.readings]
    stops = np.cumsum([len(part.ids) for part in parts], dtype=np.int64)
    starts = stops - [len(part.ids) for part in parts]
    past_slots = [_past_slots(reading) for reading in step.chunks]  # before the new ones are appended
    written = [part.write() for part in parts]
    is_skipped = np.concatenate([part.is_skipped for part in parts])
    decode_slots, decode_lengths = _decode_slots(step.decodes)
    return PackedStep(
        ids=np.concatenate([part.ids for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        visual_rows=np.flatnonzero(np.concatenate([part.is_visual for part in parts])),
        ffn_rows=np.flatnonzero(~is_skipped) if is_skipped.any() else None,
        written_rows=np.concatenate([start + rows for start, (rows, _) in zip(starts, written, strict=True)]),
        written_slots=np.concatenate([slots for _, slots in written]),
        decode_slots=decode_slots,
        decode_lengths=decode_lengths,
        chunks=tuple(
            PackedChunk(int(start), int(stop), past, reading.speaks)
            for reading, start, stop, past in zip(
                step.chunks, starts[len(step.decodes) :], stops[len(step.decodes) :], past_slots, strict=True
            )
        ),
        wanted_rows=np.array(
            [stop - 1 for stop, part in zip(stops, parts, strict=True) if part.reading.speaks], dtype=np.int64
        ),
    )


class _Part:
    """One reading, row by row: arrays of (stop - start,)."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        request, rows = reading.request, slice(reading.start, reading.stop)
        self.positions = np.arange(reading.start, reading.stop, dtype=np.int64)
        if reading.of_prompt:
            layout = request.layout
            self.ids, self.is_kept = layout.ids[rows], layout.is_kept[rows]
            self.is_visual, self.is_skipped = layout.is_visual[rows], layout.is_skipped[rows]
        else:  # output is text: it runs everything and is cached
            first = request.plan.prompt_tokens
            self.ids = np.array(request.output_ids[reading.start - first : reading.stop - first], dtype=np.int64)
            self.is_kept = np.ones(len(self.ids), dtype=bool)
            self.is_visual = self.is_skipped = ~self.is_kept

    def write(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows, counted from its own first, whose keys and values are written, and the slots they go to."""
        request, kept = self.reading.request, np.flatnonzero(self.is_kept)
        slots = request.cached.append(len(kept))
        if not self.reading.transient_tokens:
            return kept, slots
        dropped = np.flatnonzero(~self.is_kept)
        return np.concatenate([kept, dropped]), np.concatenate([slots, request.transient.append(len(dropped))])


def _past_slots(reading: Reading) -> np.ndarray:
    cached, transient = reading.request.cached, reading.request.transient
    return np.concatenate([cached.slots(0, cached.cached_tokens), transient.slots(0, transient.cached_tokens)])


def _decode_slots(decodes: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray]:
    tables = [reading.request.cached for reading in decodes]
    lengths = np.array([table.cached_tokens for table in tables], dtype=np.int64)
    slots = np.zeros((len(tables), lengths.max(initial=0)), dtype=np.int64)
    for row, table in zip(slots, tables, strict=True):
        row[: table.cached_tokens] = table.slots(0, table.cached_tokens)
    return slots, lengths
