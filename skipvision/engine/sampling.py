"""Logits to token ids: greedy, or drawn; the same for a request in any company.

A draw is keyed by (seed, place in the answer), never by a generator that other requests share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from skipvision.engine.logprobs import TokenLogprobs
from skipvision.engine.request import Sampling
from skipvision.engine.transfer import to_device
from skipvision.errors import EngineDeadError


@dataclass(frozen=True, slots=True)
class Choice:
    """The next token of one answer."""

    token_id: int
    logprobs: TokenLogprobs | None = None
    """Where its request asks."""


def choose_tokens(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> list[int]:
    """Choose one token for each row.

    Args:
        logits: (rows, vocab) float32.
        samplings: one for each row.
        places: for each row, how many tokens its answer has already.

    Raises:
        EngineDeadError: some of the logits are no numbers.
    """
    highest, tokens = logits.max(dim=-1)
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if drawn:
        rows = to_device(np.array(drawn, dtype=np.int64), logits.device)
        chosen = _draw(logits.index_select(0, rows), [samplings[row] for row in drawn], [places[row] for row in drawn])
        tokens = tokens.index_copy(0, rows, chosen)
    # In one copy, since a GPU's step ends with the wait for it.
    *ids, broken = torch.cat([tokens, highest.isnan().any()[None]]).tolist()
    if broken:
        raise _not_numbers()
    return ids


def check_numbers(logits: Tensor) -> None:
    """Look at what the model returned, (rows, vocab), before anyone uses it.

    Raises:
        EngineDeadError: some of it is no number.
    """
    if torch.isnan(logits).any():
        raise _not_numbers()


def _not_numbers() -> EngineDeadError:
    return EngineDeadError("the model returned logits that are not numbers: its weights or its device are broken")


def answer_seed(seed: int, index: int) -> int:
    """The seed of one of several answers to a request with `seed`: of the first, the request's own."""
    if index == 0:
        return seed
    digest = blake2b(f"{seed}|{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def uniform(seed: int, place: int) -> float:
    """A number in [0, 1) that depends on these two alone, on every machine: counter-based, no state."""
    return float(np.random.Generator(np.random.Philox(key=[seed, place])).random())


def _draw(logits: Tensor, samplings: Sequence[Sampling], places: Sequence[int]) -> Tensor:
    """One token per row by inverting its distribution: (rows, vocab) -> (rows,) int64.

    In float64 and in the order of the vocabulary, so that rounding, which differs with company, all but never
    moves the token that a draw falls on.
    """
    wishes = [
        (sampling.temperature, sampling.top_k or logits.shape[-1], sampling.top_p, uniform(sampling.seed, place))
        for sampling, place in zip(samplings, places, strict=True)
    ]
    columns = to_device(np.array(wishes, dtype=np.float64), logits.device)
    temperature, top_k, top_p, drawn = (columns[:, place, None] for place in range(4))
    # The largest is taken off first: a tiny temperature must not overflow.
    scaled = logits.double() - logits.double().amax(dim=-1, keepdim=True)
    cumulative = keep_likely(scaled / temperature, top_k, top_p).softmax(dim=-1).cumsum(dim=-1)

    total = cumulative[:, -1:]
    draws = drawn * total
    draws = draws.minimum(torch.nextafter(total, torch.zeros_like(total)))  # rounding must not reach the end
    return (cumulative <= draws).sum(dim=-1)


def keep_likely(scaled: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Set all but the likeliest tokens to minus infinity: top-k first, then top-p of what it leaves.

    Args:
        scaled: (rows, vocab), logits over temperature.
        top_k: (rows, 1), at least 1.
        top_p: (rows, 1), above 0 and at most 1; 1 leaves everything.

    The likeliest token always stays. Among equals the lower id is the likelier.
    """
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(scaled.shape[-1], device=scaled.device)
    ordered = ordered.masked_fill(rank >= top_k, -torch.inf)
    share = ordered.softmax(dim=-1)
    likelier = share.cumsum(dim=-1) - share
    ordered = ordered.masked_fill((likelier >= top_p) & (top_p < 1), -torch.inf)
    return torch.empty_like(scaled).scatter(-1, order, ordered)
