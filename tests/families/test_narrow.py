from __future__ import annotations

import pytest
import torch
from torch import nn

from skipvision.families.narrow import MOST_ROWS, NarrowLinear, narrow_linears


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (2,), (1, 7), (3, 5), (1, MOST_ROWS), (1, MOST_ROWS + 1), (1, 0)])
def test_few_rows_give_what_the_plain_layer_gives(shape: tuple[int, ...], *, bias: bool) -> None:
    plain = nn.Linear(6, 10, bias=bias)
    model = nn.Sequential(nn.Sequential(plain, nn.Identity()))
    narrow_linears(model)
    narrow = model[0][0]
    assert type(narrow) is NarrowLinear
    given = torch.randn(*shape, 6)
    torch.testing.assert_close(narrow(given), plain(given))


def test_rows_stored_column_by_column_are_taken_as_they_are() -> None:
    plain = nn.Linear(6, 10)
    model = nn.Sequential(plain)
    narrow_linears(model)
    given = torch.randn(6, 9).t()[None]
    torch.testing.assert_close(model[0](given), plain(given))


def test_weights_stay_where_they_are_and_other_layers_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict({"plain": nn.Linear(2, 3), "own": Own(2, 3), "norm": nn.LayerNorm(3)})
    weight = model["plain"].weight
    model.eval()
    narrow_linears(model)
    assert model["plain"].weight is weight
    assert not model["plain"].training
    assert type(model["own"]) is Own
    assert list(model.state_dict()) == [
        "plain.weight",
        "plain.bias",
        "own.weight",
        "own.bias",
        "norm.weight",
        "norm.bias",
    ]
