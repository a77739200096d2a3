"""The two forms of attention readably, sequence by sequence in float32: what the fast ones are held to."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from skipvision.engine.cuda.varlen import Segments
from skipvision.engine.pages import PAGE_TOKENS


def packed_one_by_one(q: Tensor, k: Tensor, v: Tensor, segments: Segments, scaling: float) -> Tensor:
    """A softmax for each packed sequence; see `varlen.PackedAttention`."""
    out = torch.empty_like(q)
    bounds = zip(segments.queries.tolist(), segments.keys.tolist(), strict=True)
    starts = next(bounds)
    for stops in bounds:
        rows, columns = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
        queries, keys, values = (x.float().transpose(0, 1) for x in (q[rows], k[columns], v[columns]))
        keys, values = (x.repeat_interleave(len(queries) // len(x), dim=0) for x in (keys, values))
        scores = queries @ keys.mT * scaling
        unseen = torch.ones_like(scores, dtype=torch.bool).triu(scores.shape[2] - scores.shape[1] + 1)
        out[rows] = (scores.masked_fill(unseen, -torch.inf).softmax(-1) @ values).transpose(0, 1).to(q.dtype)
        starts = stops
    return out


def paged_one_by_one(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, lengths: Tensor, scaling: float
) -> Tensor:
    """A softmax over the pages of each sequence; see `paged_decode.paged_decode`."""
    slots = [
        [table[token // PAGE_TOKENS] * PAGE_TOKENS + token % PAGE_TOKENS for token in range(length)]
        for table, length in zip(tables.tolist(), lengths.tolist(), strict=True)
    ]
    segments = Segments.of([1] * len(slots), list(map(len, slots)), q.device)
    rows = torch.tensor(list(chain.from_iterable(slots)), device=q.device)
    return packed_one_by_one(q, keys[:, rows].transpose(0, 1), values[:, rows].transpose(0, 1), segments, scaling)
