"""Where keys and values are kept: a fixed number of pages, handed out and taken back.

`PagePool` is the bookkeeping and holds no tensor; `KvCache` holds the tensors and knows no request. One page is 16
tokens of one sequence, in every layer at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skipvision.errors import ConfigError
from skipvision.method.flops import DecoderShape, kv_bytes

PAGE_TOKENS = 16

# Of what is free when the engine is made. Weights are loaded by then; activations and other processes need the rest.
_SHARE_OF_GPU_MEMORY = 0.5
_SHARE_OF_CPU_MEMORY = 0.25
_MOST_CPU_BYTES = 4 * 2**30


class PageTable:
    """The pages of one sequence, and how many of their slots hold a token."""

    __slots__ = ("cached_tokens", "pages")

    def __init__(self) -> None:
        self.pages: list[int] = []
        self.cached_tokens = 0

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


class PagePool:
    """Which pages are free, and how many sequences hold each of the others."""

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._holders = [0] * num_pages

    @property
    def free_pages(self) -> int:
        return len(self._free)

    @property
    def free_tokens(self) -> int:
        """Tokens that the free pages hold."""
        return len(self._free) * PAGE_TOKENS

    @property
    def capacity_tokens(self) -> int:
        """Tokens that one sequence can have if it has everything."""
        return self.num_pages * PAGE_TOKENS

    def hand_out(self, table: PageTable, pages: int) -> None:
        """Add free pages to a sequence; ask `free_pages` first."""
        assert pages <= len(self._free), "the scheduler counts pages before it hands them out"
        for _ in range(pages):
            table.pages.append(self._free.pop())
            self._holders[table.pages[-1]] = 1

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
        for page in other.pages:
            self._holders[page] += 1
        other.pages += own
        other.cached_tokens = table.cached_tokens
        return (table.pages[full], own[0]) if table.cached_tokens % PAGE_TOKENS else None

    def give_back(self, table: PageTable) -> None:
        """Take all pages from a sequence, which is empty afterwards; those that nobody else holds are free."""
        for page in reversed(table.pages):
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)
        table.pages, table.cached_tokens = [], 0


class KvCache:
    """Keys and values of every cached token, in every layer."""

    def __init__(self, shape: DecoderShape, *, num_pages: int, device: torch.device, dtype: torch.dtype) -> None:
        size = (shape.layers, num_pages * PAGE_TOKENS, shape.kv_heads, shape.head_dim)
        # Zeros, not whatever memory held: a masked column still multiplies its value by 0, and 0 x NaN is NaN.
        self.keys = torch.zeros(size, device=device, dtype=dtype)
        self.values = torch.zeros(size, device=device, dtype=dtype)

    def free(self) -> None:
        """Give the memory back; the cache cannot be used any more."""
        self.keys = self.values = torch.empty(0)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put (tokens, kv_heads, head_dim) into `slots`, (tokens,) int64."""
        self.keys[layer].index_copy_(0, slots, keys)
        self.values[layer].index_copy_(0, slots, values)

    def copy_pages(self, pages: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages, (from, to) each, in every layer."""
        sources, targets = torch.tensor(pages, device=self.keys.device).unbind(1)
        for each in (self.keys, self.values):
            by_page = each.view(len(each), -1, PAGE_TOKENS, *each.shape[2:])
            by_page[:, targets] = by_page[:, sources]

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots`, any shape: (*slots, kv_heads, head_dim) each."""
        return self.keys[layer][slots], self.values[layer][slots]


def pages_for(tokens: int) -> int:
    """Pages that `tokens` tokens of one sequence take."""
    return -(-tokens // PAGE_TOKENS)


def whole_pages(tokens: int) -> int:
    """Tokens, rounded up to whole pages."""
    return pages_for(tokens) * PAGE_TOKENS


def choose_num_pages(
    shape: DecoderShape, *, device: torch.device, dtype: torch.dtype, wish_tokens: int | None, useful_tokens: int
) -> int:
    """Decide how many pages to hold.

    Args:
        wish_tokens: what the operator set, rounded up to whole pages. None: choose by free memory.
        useful_tokens: more than this is never filled.

    Raises:
        ConfigError: not even one page.
    """
    if wish_tokens is not None:
        if wish_tokens < 1:
            raise ConfigError(f"cache_tokens must be at least 1, or None to choose by free memory; got {wish_tokens}")
        return pages_for(wish_tokens)
    bytes_per_page = kv_bytes(shape, PAGE_TOKENS, bytes_per_value=dtype.itemsize)
    num_pages = min(_spare_bytes(device) // bytes_per_page, pages_for(useful_tokens))
    if num_pages < 1:
        raise ConfigError(f"no memory is free on {device} to cache keys and values; set cache_tokens or free some")
    return num_pages


def _spare_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_GPU_MEMORY)
    # macOS cannot say what is free, only what there is.
    name = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    return min(int(free * _SHARE_OF_CPU_MEMORY), _MOST_CPU_BYTES)
