"""Which tokens are retained, and the one attention row that decides it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipvision.method.select import cls_attention, most_salient
from tests.method import reference


def test_the_row_is_the_softmax_over_all_keys_summed_over_heads_without_the_cls_column() -> None:
    query, keys = torch.randn(2, 3, 8), torch.randn(2, 3, 1 + 7, 8)
    row = cls_attention(query, keys, scaling=0.3)
    plain = torch.stack([reference.cls_row(q, k, 0.3) for q, k in zip(query, keys, strict=True)])
    torch.testing.assert_close(row, plain)


def test_what_the_cls_token_gives_itself_is_missing_from_the_row() -> None:
    query, keys = torch.zeros(1, 4, 8), torch.randn(1, 4, 1 + 9, 8)  # flat attention: a tenth for each key
    torch.testing.assert_close(cls_attention(query, keys, scaling=1.0), torch.full((1, 9), 4 / 10))


def test_the_row_is_float32_and_without_gradient_whatever_the_encoder_runs_in() -> None:
    query = torch.randn(1, 2, 4, dtype=torch.float16, requires_grad=True)
    row = cls_attention(query, torch.randn(1, 2, 6, 4, dtype=torch.float16), scaling=0.5)
    assert row.dtype == torch.float32
    assert not row.requires_grad


@settings(deadline=None, derandomize=True, max_examples=60)
@given(scores=st.lists(st.integers(0, 9), min_size=1, max_size=20), data=st.data())
def test_the_highest_scores_are_chosen_in_raster_order_and_ties_by_place(
    scores: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(scores)))
    chosen = most_salient(torch.tensor([scores, scores[::-1]], dtype=torch.float32), count)
    for row, own in zip(chosen.tolist(), (scores, scores[::-1]), strict=True):
        assert row == sorted(sorted(range(len(own)), key=lambda i: (-own[i], i))[:count])
    assert chosen.dtype == torch.int64


@pytest.mark.parametrize("count", [-1, 6])
def test_more_tokens_than_there_are_cannot_be_chosen(count: int) -> None:
    with pytest.raises(ValueError, match=rf"0 to 5.*got {count}"):
        most_salient(torch.ones(1, 5), count)
