"""How likely the model held its tokens: log-probabilities of those that were chosen, and of the likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

MOST_ALTERNATIVES = 20


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of one place in an answer. Natural logarithms, of the model's own distribution over its whole vocabulary.

    Its own: before a logits hook, temperature, top-k and top-p, so that a token they made certain keeps its figure.
    """

    token_id: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()
    """(token id, logprob), the likeliest first: as many as were asked for, the chosen one where it is among them."""


def token_logprobs(logits: Tensor, tokens: Sequence[int], wishes: Sequence[int | None]) -> list[TokenLogprobs | None]:
    """Log-probabilities for the rows that ask for them; nothing is computed for the others.

    Args:
        logits: (rows, vocab) float32, as the model gave them.
        tokens: the token chosen in each row.
        wishes: for each row, how many of the likeliest tokens to name. None: the row does not ask.
    """
    told: list[TokenLogprobs | None] = [None] * len(tokens)
    asking = {row: wish for row, wish in enumerate(wishes) if wish is not None}
    if not asking:
        return told
    logprobs = logits[list(asking)].log_softmax(dim=-1)
    values, ids = (x.tolist() for x in logprobs.topk(min(max(asking.values()), logits.shape[-1]), dim=-1))
    for place, (row, wish) in enumerate(asking.items()):
        likeliest = tuple(zip(ids[place][:wish], values[place][:wish], strict=True))
        told[row] = TokenLogprobs(tokens[row], float(logprobs[place, tokens[row]]), likeliest)
    return told
