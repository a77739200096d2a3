"""What LLaVA reads of a CLIP tower: the features of one layer, and that layer's CLS attention row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from skipvision.method.select import cls_attention


@dataclass(slots=True)
class ClsRow:
    """The CLS token's query and the keys of the watched layer, as the stock modules computed them."""

    heads: int
    seen: dict[str, Tensor] = field(default_factory=dict)

    def scores(self) -> Tensor:
        """(images, tokens) float32: the CLS attention row summed over heads, see `cls_attention`."""
        cls_query, keys, scaling = self.parts()
        return cls_attention(cls_query, keys, scaling=scaling)

    def parts(self) -> tuple[Tensor, Tensor, float]:
        """The CLS query, (images, heads, head_dim), all keys, (images, heads, 1 + tokens, head_dim), and the scaling.

        With their gradient, for whoever teaches the tower where to look.
        """
        queries, keys = (self._by_head(self.seen[name]) for name in ("q_proj", "k_proj"))
        return queries[:, :, 0], keys, queries.shape[-1] ** -0.5

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


@contextmanager
def watching_cls(tower: nn.Module, layer: int) -> Iterator[ClsRow]:
    """Note the queries and keys of one encoder layer during a forward pass inside the `with` block.

    The tower keeps the attention kernel it has: nothing is recomputed, and nothing switches to eager attention.

    Args:
        tower: a `CLIPVisionModel`.
        layer: which encoder layer, from 0.
    """
    attention: Any = tower.encoder.layers[layer].self_attn  # type: ignore[union-attr, index]
    row = ClsRow(attention.num_heads)
    with noting_outputs(attention, ("q_proj", "k_proj"), row.seen):
        yield row


@contextmanager
def noting_outputs(module: nn.Module, names: Sequence[str], seen: dict[str, Tensor]) -> Iterator[None]:
    """Note in `seen` what these children of a module give during a forward pass inside the `with` block."""
    handles = [
        getattr(module, name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.__setitem__(name, output)
        )
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_to_read(vision_feature_layer: int, num_layers: int) -> int:
    """How many encoder layers run until the hidden state that LLaVA reads is there.

    Hidden state 0 is the input of the first layer, so -1 reads after all layers and -2 after all but the last.
    """
    hidden_state = vision_feature_layer + num_layers + 1 if vision_feature_layer < 0 else vision_feature_layer
    if not 1 <= hidden_state <= num_layers:
        raise ValueError(f"vision_feature_layer {vision_feature_layer} names no layer of a tower of {num_layers}")
    return hidden_state


def run_tower(tower: nn.Module, pixel_values: Tensor, *, layers: int) -> tuple[Tensor, Tensor]:
    """Run the tower's stock modules up to the layer that is read, and no further.

    Args:
        tower: a `CLIPVisionModel`.
        pixel_values: (images, 3, height, width), normalised; of another size than the tower's own, its position
            embeddings are interpolated.
        layers: encoder layers to run, at least 1.

    Returns:
        Hidden states without the CLS token, (images, tokens, width), and CLS scores, (images, tokens) float32.
    """
    stock: Any = tower
    with watching_cls(tower, layers - 1) as row:
        # Does nothing to pixels of the tower's own size.
        hidden = stock.pre_layrnorm(stock.embeddings(pixel_values, interpolate_pos_encoding=True))
        for layer in stock.encoder.layers[:layers]:
            hidden = layer(hidden, None)
    return hidden[:, 1:], row.scores()
