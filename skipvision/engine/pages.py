"""Which pages of the cache belong to whom; bookkeeping only, no tensor.

A page is 16 tokens of one sequence, in every layer at once. Any free page serves any sequence. Yet a sequence whose
pages follow one another can be read where it stands, and one whose pages are scattered must be gathered first, so a
sequence may claim a run of pages that it expects to fill: others take those last.
"""

from __future__ import annotations

import numpy as np

PAGE_TOKENS = 16


class PageTable:
    """The pages of one sequence, and how many of their slots hold a token."""

    __slots__ = ("cached_tokens", "claim", "pages")

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.cached_tokens = 0
        self.claim = range(0)
        """Pages that it expects to fill, one after the other; it holds none of them by that alone."""

    @property
    def first_slot(self) -> int | None:
        """Where its tokens stand, one after the other; None: in several places, or nowhere."""
        if not self.pages or self.pages[-1] - self.pages[0] != len(self.pages) - 1:
            return None
        in_order = self.pages == list(range(self.pages[0], self.pages[-1] + 1))
        return self.pages[0] * PAGE_TOKENS if in_order else None

    def pages_to_hold(self, more: int) -> int:
        """Pages that it lacks for `more` tokens."""
        return max(0, pages_for(self.cached_tokens + more) - len(self.pages))

    def slots(self, start: int, stop: int) -> np.ndarray:
        """Where the cached tokens [start, stop) of the sequence live in the pool: int64."""
        token = np.arange(start, stop)
        return np.asarray(self.pages, dtype=np.int64)[token // PAGE_TOKENS] * PAGE_TOKENS + token % PAGE_TOKENS

    def append(self, tokens: int) -> np.ndarray:
        """Slots for that many new tokens, which count as cached from now on: int64."""
        start, self.cached_tokens = self.cached_tokens, self.cached_tokens + tokens
        return self.slots(start, self.cached_tokens)

    def append_one(self) -> int:
        """The slot for one new token, which counts as cached from now on: what a decoding sequence needs in a step."""
        token, self.cached_tokens = self.cached_tokens, self.cached_tokens + 1
        return self.pages[token // PAGE_TOKENS] * PAGE_TOKENS + token % PAGE_TOKENS


class PagePool:
    """How many sequences hold each page, and who claims which of the free ones."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = self.free_pages = num_pages
        self._holders = np.zeros(num_pages, dtype=np.int32)
        self._claimed = np.zeros(num_pages, dtype=bool)

    @property
    def free_tokens(self) -> int:
        """Tokens that the free pages hold."""
        return self.free_pages * PAGE_TOKENS

    @property
    def capacity_tokens(self) -> int:
        """Tokens that one sequence can have if it has everything."""
        return self.num_pages * PAGE_TOKENS

    def claim(self, table: PageTable, pages: int) -> None:
        """Let an empty sequence expect to fill that many pages in a row, if there are as many that nobody claims.

        The tightest gap is taken, so that sequences of one size follow each other at equal distances.
        """
        assert not table.pages, "a sequence claims before it holds"
        self._give_up_claim(table)
        edges = np.flatnonzero(np.diff(self._unclaimed(), prepend=False, append=False))
        starts, lengths = edges[::2], edges[1::2] - edges[::2]
        wide = lengths >= pages
        if pages and wide.any():
            start = int(starts[wide][lengths[wide].argmin()])
            table.claim = range(start, start + pages)
            self._claimed[start : start + pages] = True

    def hand_out(self, table: PageTable, pages: int) -> None:
        """Add free pages to a sequence; ask `free_pages` first."""
        assert pages <= self.free_pages, "the scheduler counts pages before it hands them out"
        for _ in range(pages):
            page = self._next_page(table)
            table.pages.append(page)
            self._holders[page] = 1
        self.free_pages -= pages

    def share(self, table: PageTable, other: PageTable) -> tuple[int, int] | None:
        """Let an empty sequence begin with all that another has; each goes on by itself.

        Args:
            table: whose tokens are shared.
            other: holds no token, and a page of its own if the last page of `table` is not full.

        Returns:
            (from, to): the page that must be copied before `other` is read; None: every page is full and shared.
        """
        full = table.cached_tokens // PAGE_TOKENS
        own, other.pages = other.pages, table.pages[:full]
        self._holders[other.pages] += 1
        other.pages += own
        other.cached_tokens = table.cached_tokens
        return (table.pages[full], own[0]) if table.cached_tokens % PAGE_TOKENS else None

    def give_back(self, table: PageTable) -> None:
        """Take all pages from a sequence, which is empty afterwards; those that nobody else holds are free."""
        self._holders[table.pages] -= 1
        self.free_pages += int((self._holders[table.pages] == 0).sum())
        self._give_up_claim(table)
        table.pages, table.cached_tokens = [], 0

    def _next_page(self, table: PageTable) -> int:
        """The page after its last, else one that nobody claims, else any."""
        following = table.pages[-1] + 1 if table.pages else table.claim.start
        own = following in table.claim
        if following < self.num_pages and not self._holders[following] and (own or not self._claimed[following]):
            return following
        unclaimed = self._unclaimed()
        return int((unclaimed if unclaimed.any() else self._holders == 0).argmax())

    def _unclaimed(self) -> np.ndarray:
        """(pages,) bool: free, and expected by nobody."""
        free: np.ndarray = self._holders == 0
        return free & ~self._claimed

    def _give_up_claim(self, table: PageTable) -> None:
        self._claimed[table.claim.start : table.claim.stop] = False
        table.claim = range(0)


def pages_for(tokens: int) -> int:
    """Pages that `tokens` tokens of one sequence take."""
    return -(-tokens // PAGE_TOKENS)


def whole_pages(tokens: int) -> int:
    """Tokens, rounded up to whole pages."""
    return pages_for(tokens) * PAGE_TOKENS
