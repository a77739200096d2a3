"""Which tokens stay under a training-free reduction."""

from __future__ import annotations

import pytest
import torch

from skipvision.method.plan import SkipConfig
from skipvision.method.reduce import evenly_spread
from skipvision.method.split import split_visual_tokens

DIGESTS = (b"one picture", b"another one", b"a third one")


def kept(reduction: str, scores: torch.Tensor, digests: tuple[bytes, ...] = DIGESTS) -> list[list[int]]:
    """Places of the tokens that stay, read off the tokens themselves."""
    batch, tokens = scores.shape
    features = torch.arange(tokens, dtype=torch.float32)[None, :, None].expand(batch, -1, 2)
    split = split_visual_tokens(features, scores, SkipConfig.parse(reduction), None, digests)
    assert split.sequence()[..., 0].long().tolist() == split.retained_index.tolist()
    return split.retained_index.tolist()


@pytest.mark.parametrize("side", [1, 4, 7, 24])
def test_any_number_of_places_can_be_spread_over_a_grid(side: int) -> None:
    for count in range(1, side * side + 1):
        places = evenly_spread(side * side, count).tolist()
        assert len(places) == count
        assert places == sorted(set(places))
        assert 0 <= places[0] <= places[-1] < side * side


def test_a_square_number_makes_a_regular_grid() -> None:
    assert evenly_spread(36, 4).tolist() == [7, 10, 25, 28]


def test_tokens_that_are_no_square_grid_are_spread_over_as_they_are_read() -> None:
    assert evenly_spread(20, 4).tolist() == [2, 7, 12, 17]


def test_uniform_looks_at_nothing() -> None:
    assert kept("uniform:4", torch.rand(3, 36)) == [[7, 10, 25, 28]] * 3


def test_saliency_keeps_what_skipping_would_retain() -> None:
    scores = torch.rand(3, 36)
    features = torch.rand(3, 36, 2)
    skipped = split_visual_tokens(features, scores, SkipConfig.parse("9/3:plain"), None)
    assert kept("saliency:9", scores) == skipped.retained_index.tolist()


def test_random_depends_on_the_image_and_not_on_its_company() -> None:
    together = kept("random:9", torch.rand(3, 36))
    alone = [kept("random:9", torch.rand(1, 36), (digest,))[0] for digest in DIGESTS]
    assert together == alone
    assert len(set(map(tuple, together))) == 3


def test_fewer_random_tokens_are_some_of_the_more() -> None:
    scores = torch.rand(3, 36)
    for few, many in zip(kept("random:4", scores), kept("random:20", scores), strict=True):
        assert set(few) < set(many)


def test_random_without_digests_is_refused() -> None:
    with pytest.raises(ValueError, match="digest of each of 2 images; got 0"):
        kept("random:4", torch.rand(2, 16), ())
