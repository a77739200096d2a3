"""Causal attention over packed sequences by torch's `varlen_attn`, whose signature differs from release to release.

Where sequences have more keys than queries, the last query sees the last key: so its kernel counts (torch's
`flash_attn/mask.h`: row + 1 + keys - queries), as chunks with a past need it. No sequence may be without queries:
with one query each and grouped heads it counts them by sequences.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.transfer import to_device


@dataclass(frozen=True, slots=True)
class Segments:
    """Where sequences lie in packed rows of queries, and of keys and values."""

    queries: Tensor
    """(sequences + 1,) int32: the row at which each begins, and the end."""
    keys: Tensor
    """The same for keys and values."""
    most_queries: int
    """Of the sequence that has the most."""
    most_keys: int

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], device: torch.device) -> Segments:
        """From how many queries, at least 1, and how many keys, at least as many, each sequence has."""
        ends = [to_device(np.cumsum([0, *each], dtype=np.int32), device) for each in (queries, keys)]
        return cls(ends[0], ends[1], max(queries), max(keys))


PackedAttention = Callable[[Tensor, Tensor, Tensor, Segments, float], Tensor]
"""(queries, heads, head_dim), (keys, kv_heads, head_dim) twice, where they lie and the scaling -> as the first."""


def adapt(varlen_attn: Callable[..., Any]) -> PackedAttention:
    """`torch.nn.attention.varlen.varlen_attn` of any release from 2.10 on, with one signature."""
    known = inspect.signature(varlen_attn).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}

    def attend(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scaling: float) -> Tensor:
        options: dict[str, Any] = dict(causal)
        if "enable_gqa" in known:  # elsewhere fewer heads of keys are taken without being told
            options["enable_gqa"] = q.shape[1] != k.shape[1]
        if "scale" in known:
            options["scale"] = scaling
        else:
            q = q * (scaling * math.sqrt(q.shape[-1]))
        bounds = (segments.queries, segments.keys, segments.most_queries, segments.most_keys)
        mixed: Tensor = varlen_attn(q, k, v, *bounds, **options)
        return mixed

    return attend
