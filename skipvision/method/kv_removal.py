"""Skip KV-cache: drop the keys and values of skipped tokens from a cache, for good."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor


class LayerCache(Protocol):
    """One layer's keys and values, as transformers' dynamic cache layers hold them."""

    keys: Tensor
    """(batch, kv_heads, tokens, head_dim)"""
    values: Tensor


def keep_only(layers: Iterable[LayerCache], kept: Tensor) -> None:
    """Compact every layer to the `kept` columns; the dropped ones are freed.

    Args:
        layers: the cache, changed in place.
        kept: (batch, kept_tokens) int64, ascending columns per sequence.

    The next position must be carried apart from the cache length afterwards: positions are not renumbered.
    """
    for layer in layers:
        index = kept.to(layer.keys.device)[:, None, :, None]
        index = index.expand(-1, layer.keys.shape[1], -1, layer.keys.shape[-1])
        layer.keys = layer.keys.gather(2, index)
        layer.values = layer.values.gather(2, index)
