"""Skip-FFN: rows outside a chosen set bypass the feed-forward block of every layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class FfnRows:
    """The rows that run the FFN in the forward pass under way; shared by all wrapped layers."""

    index: Tensor | None = None
    """(rows,) int64 into the flattened (batch * tokens) rows; None: every row."""


class SkipFFN(nn.Module):
    """A feed-forward block that only sees the rows of `rows.index`; the others get zero.

    The residual connection around the block then carries skipped rows through unchanged. One index tensor serves
    all layers of a forward pass, since boolean masks would make a GPU wait for the host in every layer.
    """

    def __init__(self, inner: nn.Module, rows: FfnRows) -> None:
        super().__init__()
        self.inner = inner
        self.rows = rows
        self.register_state_dict_post_hook(_stock_names)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """(..., tokens, hidden) -> same shape; `index` counts rows of `x.flatten(0, -2)`."""
        index = self.rows.index
        if index is None:
            return self.inner(x)  # type: ignore[no-any-return]
        flat = x.reshape(-1, x.shape[-1])
        out = self.inner(flat.index_select(0, index))
        return torch.zeros_like(flat).index_copy(0, index, out.to(flat.dtype)).view_as(x)


def _stock_names(_ffn: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Save the block under the names it has without us, so that a checkpoint written while skipping is a stock one."""
    for name in [name for name in state if name.startswith(f"{prefix}inner.")]:
        state[prefix + name.removeprefix(f"{prefix}inner.")] = state.pop(name)


@contextmanager
def skipping_ffn(layers: Iterable[nn.Module], rows: FfnRows) -> Iterator[FfnRows]:
    """Run `layers` with Skip-FFN inside the `with` block, and give the model back unchanged after it.

    Args:
        layers: decoder layers whose feed-forward block is called `mlp`.
        rows: which rows run it: `rows.index` as it is now, unless a forward pass names others with the keyword
            `skip_ffn_rows`, which the layers hand to their attention.

    Only these layers are touched, never their class, so that two models in one process can run side by side.
    """
    touched = list(layers)
    blocks = [layer.mlp for layer in touched]
    default, hooks = rows.index, []

    def note_rows(_attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # On the attention, not on the layer: under activation checkpointing only what is inside a layer runs again.
        rows.index = kwargs.pop("skip_ffn_rows", default)
        return args, kwargs

    try:
        for layer, block in zip(touched, blocks, strict=True):
            layer.mlp = SkipFFN(block, rows)  # type: ignore[arg-type]
            hooks.append(layer.self_attn.register_forward_pre_hook(note_rows, with_kwargs=True))  # type: ignore[union-attr]
        yield rows
    finally:
        for hook in hooks:
            hook.remove()
        for layer, block in zip(touched, blocks, strict=True):
            layer.mlp = block
