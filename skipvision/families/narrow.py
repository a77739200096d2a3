"""Linear layers for steps of few rows on a CPU, such as those in which a batch of requests decodes."""

from __future__ import annotations

from torch import Tensor, addmm, mm, nn

MOST_ROWS = 128
"""Above, the usual order of the product is as fast."""


class NarrowLinear(nn.Linear):
    """A linear layer that multiplies weight by input, not input by weight, where the rows are few.

    The product is the same; matrix libraries share out the rows of the left factor among threads, and here those are
    the many of the weight. docs/decisions/0010 has what that gains in float32 on two threads. The result of few rows
    is stored column by column, as the next such layer likes it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        rows = input.numel() // self.in_features
        if not 1 < rows <= MOST_ROWS:
            return super().forward(input)
        columns = input.reshape(rows, self.in_features).t()
        product = mm(self.weight, columns) if self.bias is None else addmm(self.bias[:, None], self.weight, columns)
        return product.t().view(*input.shape[:-1], self.out_features)


def narrow_linears(model: nn.Module) -> None:
    """Let the plain linear layers of a model take few rows fast; their weights stay what and where they are."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                fast = NarrowLinear(child.in_features, child.out_features, child.bias is not None, device="meta")
                fast.weight, fast.bias = child.weight, child.bias
                setattr(parent, name, fast.train(child.training))
