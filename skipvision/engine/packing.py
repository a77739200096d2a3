"""One step as plain arrays: the packed row of tokens and every index into it, built on the host from the plans.

The row is [newest token of each decoding request][part of a prompt][part of a prompt]..., without padding. Nothing
here touches a device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from skipvision.engine.live_request import Reading
from skipvision.engine.pages import PAGE_TOKENS, PageTable
from skipvision.engine.scheduler import Step

# Reading a cache to the length of the longest in its group may cost this many times its own tokens, over the group.
_MOST_PADDING = 1.25


@dataclass(frozen=True, slots=True)
class PackedChunks:
    """Consecutive rows: parts of prompts, of one length, each of one sequence. Those with a past stand alone."""

    start: int
    stop: int
    """[start, stop) of the packed row."""
    chunks: int
    past_slots: np.ndarray
    """(tokens,) int64: where its sequence's earlier keys and values are, all of which its rows attend to."""
    speaks: bool
    """Whether the next token of each follows from its last row."""


@dataclass(frozen=True, slots=True)
class PackedDecodes:
    """Consecutive rows of decoding requests, and where their caches are."""

    lengths: np.ndarray
    """(requests,) int64: tokens of each cache, the new one included."""
    first_slot: int = 0
    """Where the first cache, or the trunk, begins."""
    distance: int = 0
    """Slots from one cache's first to the next one's, where each stands in one place."""
    slots: np.ndarray | None = None
    """(requests, longest) int64, where they lie in several places: each one's tokens after the trunk; 0 at the end."""
    trunk_tokens: int = 0
    """How many tokens, from `first_slot` on, are the beginning of all of them."""


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
    written_rows: np.ndarray | None
    """Rows whose keys and values are written, to stay or for the next steps of their prompt. None: all, in order."""
    written_slots: np.ndarray
    """(written,) where in the pool."""
    chunks: tuple[PackedChunks, ...]
    wanted_rows: np.ndarray
    """The row that each speaker's next token is chosen from."""


def pack(step: Step) -> PackedStep:
    """Lay one step out. New tokens count as cached from here on: call it once for each step."""
    decodes, first = [reading.request for reading in step.decodes], len(step.decodes)
    parts = [_Part(reading) for reading in step.chunks]
    lengths = [len(part.ids) for part in parts]
    stops = first + np.cumsum(lengths, dtype=np.int64)
    starts = stops - np.array(lengths, dtype=np.int64)
    past_slots = [_past_slots(reading) for reading in step.chunks]  # before the new ones are appended
    written = [part.write() for part in parts]
    written_rows = _joined(range(first), *(start + rows for start, (rows, _) in zip(starts, written, strict=True)))
    is_text = np.zeros(first, dtype=bool)  # and so runs everything
    is_skipped = np.concatenate([is_text, *(part.is_skipped for part in parts)])
    return PackedStep(
        ids=_joined([request.output_ids[-1] for request in decodes], *(part.ids for part in parts)),
        positions=_joined([reading.start for reading in step.decodes], *(part.positions for part in parts)),
        visual_rows=np.flatnonzero(np.concatenate([is_text, *(part.is_visual for part in parts)])),
        ffn_rows=np.flatnonzero(~is_skipped) if is_skipped.any() else None,
        written_rows=None if np.array_equal(written_rows, np.arange(len(is_skipped))) else written_rows,
        written_slots=_joined([request.cached.append_one() for request in decodes], *(slots for _, slots in written)),
        chunks=tuple(_pack_chunks(step.chunks, past_slots, first_row=first)),
        wanted_rows=_joined(range(first), stops[[part.reading.speaks for part in parts]] - 1),
    )


def _joined(of_decodes: Sequence[int], *of_parts: np.ndarray) -> np.ndarray:
    """One number for each decoding request, then those of each part; int64."""
    return np.concatenate([np.array(of_decodes, dtype=np.int64), *of_parts])


class _Part:
    """One part of a prompt, or of the output so far, row by row: arrays of (stop - start,)."""

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


def _pack_chunks(
    readings: Sequence[Reading], past_slots: Sequence[np.ndarray], *, first_row: int
) -> Iterator[PackedChunks]:
    def kind(place: int) -> tuple[int, bool, int | None]:
        reading = readings[place]
        return reading.stop - reading.start, reading.speaks, place if len(past_slots[place]) else None

    start = first_row
    for (tokens, speaks, _), places in groupby(range(len(readings)), key=kind):
        first, *others = places
        stop = start + tokens * (1 + len(others))
        yield PackedChunks(start, stop, 1 + len(others), past_slots[first], speaks)
        start = stop


def pack_decodes(tables: Sequence[PageTable], *, num_slots: int) -> Iterator[PackedDecodes]:
    """Groups of caches that one view covers, or that share a trunk; what is left is gathered as one.

    Args:
        num_slots: of the whole cache; no view reaches beyond.
    """
    holders = Counter(table.pages[0] for table in tables)

    def kind(table: PageTable) -> tuple[str, int]:
        first_page = table.pages[0]
        if holders[first_page] > 1:
            return "from a trunk", first_page
        return ("scattered" if table.first_slot is None else "in place"), 0

    for (name, _), group in groupby(tables, key=kind):
        if name == "in place":
            yield from _pack_in_place(list(group), num_slots=num_slots)
        else:
            yield _pack_scattered(list(group), of_trunk=name == "from a trunk")


def _pack_in_place(tables: Sequence[PageTable], *, num_slots: int) -> Iterator[PackedDecodes]:
    slots = np.array([table.first_slot for table in tables], dtype=np.int64)
    lengths = np.array([table.cached_tokens for table in tables], dtype=np.int64)
    first = 0
    while first < len(slots):
        count = _at_equal_distances(slots[first:], lengths[first:], num_slots=num_slots)
        distance = int(slots[first + 1] - slots[first]) if count > 1 else 0
        yield PackedDecodes(lengths[first : first + count], int(slots[first]), distance)
        first += count


def _pack_scattered(tables: Sequence[PageTable], *, of_trunk: bool) -> PackedDecodes:
    trunk_tokens = _common_pages(tables) * PAGE_TOKENS if of_trunk else 0
    lengths = np.array([table.cached_tokens for table in tables], dtype=np.int64)
    slots = np.zeros((len(tables), lengths.max() - trunk_tokens), dtype=np.int64)
    for row, table in zip(slots, tables, strict=True):
        row[: table.cached_tokens - trunk_tokens] = table.slots(trunk_tokens, table.cached_tokens)
    return PackedDecodes(lengths, tables[0].pages[0] * PAGE_TOKENS, slots=slots, trunk_tokens=trunk_tokens)


def _common_pages(tables: Sequence[PageTable]) -> int:
    """How many pages, one after the other, all of them begin with."""
    fewest = min(len(table.pages) for table in tables)
    pages = np.array([table.pages[:fewest] for table in tables])
    common = (pages == pages[0, 0] + np.arange(fewest)).all(axis=0)
    return int(common.argmin()) if not common.all() else fewest


def _at_equal_distances(slots: np.ndarray, lengths: np.ndarray, *, num_slots: int) -> int:
    """How many of the first caches one view covers: as far apart from each other, much alike in length."""
    distances = np.diff(slots)
    repeated = distances[1:] == distances[:-1]
    if len(repeated) > 1 and repeated[1] and not repeated[0]:
        return 1  # the next ones belong together, without this one
    count, longest, total = 1, int(lengths[0]), int(lengths[0])
    for place in range(1, len(slots)):
        longest, total = max(longest, int(lengths[place])), total + int(lengths[place])
        equal = place == 1 or repeated[place - 2]
        within = slots[place] + longest <= num_slots
        if not (equal and within and (count + 1) * longest <= _MOST_PADDING * total):
            break
        count += 1
    return count
