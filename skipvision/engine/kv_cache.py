"""Where keys and values are kept: one tensor each for a fixed number of pages. It knows no request."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.pages import PAGE_TOKENS, pages_for
from skipvision.engine.transfer import to_device
from skipvision.errors import ConfigError
from skipvision.method.flops import DecoderShape, kv_bytes

# Of what is free when the engine is made. Weights are loaded by then; activations and other processes need the rest.
_SHARE_OF_GPU_MEMORY = 0.5
_SHARE_OF_CPU_MEMORY = 0.25
_MOST_CPU_BYTES = 4 * 2**30


class KvCache:
    """Keys and values of every cached token, in every layer: (layers, kv_heads, slots, head_dim) each.

    The tokens of one head stand side by side, so that attention reads a sequence in one sweep.
    """

    def __init__(self, shape: DecoderShape, *, num_pages: int, device: torch.device, dtype: torch.dtype) -> None:
        size = (shape.layers, shape.kv_heads, num_pages * PAGE_TOKENS, shape.head_dim)
        # Zeros, not whatever memory held: a masked column still multiplies its value by 0, and 0 x NaN is NaN.
        self.keys = torch.zeros(size, device=device, dtype=dtype)
        self.values = torch.zeros(size, device=device, dtype=dtype)

    @property
    def num_slots(self) -> int:
        return self.keys.shape[2]

    def free(self) -> None:
        """Give the memory back; the cache cannot be used any more."""
        self.keys = self.values = torch.empty(0)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put (tokens, kv_heads, head_dim) into `slots`, (tokens,) int64."""
        self.keys[layer].index_copy_(1, slots, keys.transpose(0, 1))
        self.values[layer].index_copy_(1, slots, values.transpose(0, 1))

    def copy_pages(self, pages: Sequence[tuple[int, int]]) -> None:
        """Copy whole pages, (from, to) each, in every layer."""
        sources, targets = to_device(np.array(pages, dtype=np.int64), self.keys.device).unbind(1)
        for each in (self.keys, self.values):
            by_page = each.view(*each.shape[:2], -1, PAGE_TOKENS, each.shape[3])
            by_page[:, :, targets] = by_page[:, :, sources]

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of keys and values of `slots`, any shape: (kv_heads, *slots, head_dim) each."""
        return self.keys[layer][:, slots], self.values[layer][:, slots]

    def rows(self, layer: int, first_slot: int, *, count: int, distance: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Views of sequences that stand at equal distances: (count, kv_heads, tokens, head_dim) each.

        Row i begins at slot `first_slot + i * distance`; all of them lie within the cache.
        """
        return tuple(  # type: ignore[return-value]
            each[layer].as_strided(
                (count, each.shape[1], tokens, each.shape[3]),
                (distance * each.stride(2), each.stride(1), each.stride(2), each.stride(3)),
                each[layer, 0, first_slot].storage_offset(),
            )
            for each in (self.keys, self.values)
        )


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
