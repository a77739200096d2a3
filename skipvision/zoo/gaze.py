"""Where the decoder looks while it answers, and how far that is from where the answer is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from skipvision.families.clip import noting_outputs


@dataclass(slots=True)
class Gaze:
    """Where one head of one decoder layer looks: its queries and keys, as the stock modules computed them.

    It is a head of the last layer but one: the layers before it find out what is asked for, the last one says it.
    """

    decoder: Any
    seen: dict[str, Tensor] = field(default_factory=dict)

    def scores(self, positions: Tensor, *, image: slice) -> Tensor:
        """(batch, tokens, tokens of the image) float32: from every token, before softmax.

        Args:
            positions: (batch, tokens).
            image: where its retained tokens stand.
        """
        width = self.decoder.config.head_dim
        queries, keys = (self.seen[name][:, None, :, :width].float() for name in ("q_proj", "k_proj"))  # the first head
        cos, sin = self.decoder.rotary_emb(queries, positions)
        queries, keys = apply_rotary_pos_emb(queries, keys, cos, sin)
        scores: Tensor = queries[:, 0] @ keys[:, 0, image].mT * width**-0.5
        return scores


@contextmanager
def watching_gaze(decoder: Any) -> Iterator[Gaze]:
    """Note where the decoder, a `LlamaModel`, looks during a forward pass inside the `with` block."""
    gaze, attention = Gaze(decoder), decoder.layers[-2].self_attn
    with noting_outputs(attention, ("q_proj", "k_proj"), gaze.seen):
        yield gaze


def gaze_loss(scores: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy from a gaze spread over what is wanted, of rows that want anything.

    Args:
        scores: (said, retained), before softmax.
        wanted: (said, retained), ones and zeros.
        weights: (said,)
    """
    known = wanted.sum(dim=1) > 0
    scores, wanted, weights = scores[known], wanted[known], weights[known]
    each = -(wanted * scores.log_softmax(dim=1)).sum(dim=1) / wanted.sum(dim=1)
    return (each * weights).sum() / weights.sum().clamp(min=1e-6)
