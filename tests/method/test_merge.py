"""Token merge: what joins what, what comes out, and where gradients go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipvision.method.merge import Grouping, group_redundant_tokens
from tests.method import reference


def random_features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def members(grouping: Grouping, row: int = 0) -> list[list[int]]:
    return [torch.nonzero(grouping.group_of[row] == group).flatten().tolist() for group in range(grouping.num_groups)]


def planted_clusters(sizes: tuple[int, ...]) -> torch.Tensor:
    """Per cluster `size - 1` twins along an axis of its own, and one token that leans away and so founds the group.

    For sizes from 4 to 6 the leaning tokens (cosine 0.4) are less redundant than any twin of any cluster.
    """
    dims, rows = 2 * len(sizes), []
    for cluster, size in enumerate(sizes):
        axis, odd = torch.eye(dims)[2 * cluster], torch.eye(dims)[2 * cluster + 1]
        rows += [axis * (cluster + 2)] * (size - 1) + [axis + 2.3 * odd]
    return torch.stack(rows)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 10**6), tokens=st.integers(3, 14), share=st.floats(0.05, 1.0))
def test_merging_gives_what_the_published_steps_give_one_by_one(seed: int, tokens: int, share: float) -> None:
    features = random_features(1, tokens, 6, seed=seed)
    num_groups = max(1, round(share * tokens))
    groups, means = reference.merge(features[0], num_groups)

    grouping = group_redundant_tokens(features, num_groups=num_groups)

    assert members(grouping) == groups
    torch.testing.assert_close(grouping.mean(features)[0], means)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 3),
    tokens=st.integers(1, 30),
    share=st.floats(0.01, 1.0),
    twins=st.booleans(),
)
def test_no_group_is_empty_and_the_weighted_sum_is_preserved(
    seed: int, batch: int, tokens: int, share: float, twins: bool
) -> None:
    features = random_features(batch, tokens, 5, seed=seed)
    features = features[:, torch.arange(tokens) // 2] if twins else features
    num_groups = max(1, int(share * tokens))

    grouping = group_redundant_tokens(features, num_groups=num_groups)

    sizes, means = grouping.sizes(), grouping.mean(features)
    assert means.shape == (batch, num_groups, 5)
    assert sizes.min() >= 1
    assert sizes.sum(dim=1).tolist() == [tokens] * batch
    torch.testing.assert_close((sizes[..., None] * means).sum(dim=1), features.sum(dim=1), rtol=1e-4, atol=1e-4)


def test_planted_clusters_come_back_as_their_plain_raw_means() -> None:
    features = planted_clusters((6, 5, 4))
    merged = group_redundant_tokens(features[None], num_groups=3).mean(features[None])[0]
    expected = torch.stack([features[:6].mean(0), features[6:11].mean(0), features[11:].mean(0)])
    torch.testing.assert_close(merged, expected)


@pytest.mark.parametrize("sizes", [(6, 5, 4), (4, 6, 5), (5, 4, 6)])
def test_groups_stand_in_descending_total_similarity_of_their_founders(sizes: tuple[int, ...]) -> None:
    grouping = group_redundant_tokens(planted_clusters(sizes)[None], num_groups=3)
    assert grouping.sizes()[0].tolist() == sorted(sizes, reverse=True)


def test_as_many_groups_as_tokens_is_the_identity_even_among_duplicates() -> None:
    features = random_features(1, 4, 8)[:, [0, 1, 1, 2, 3, 0, 0]]
    grouping = group_redundant_tokens(features, num_groups=7)
    assert sorted(grouping.group_of[0].tolist()) == list(range(7))
    torch.testing.assert_close(grouping.mean(features)[0][grouping.group_of[0]], features[0])


def test_twins_join_first() -> None:
    features = torch.eye(6)[[0, 1, 2, 3, 1, 4]][None]
    assert [1, 4] in members(group_redundant_tokens(features, num_groups=5))


def test_an_image_is_merged_as_if_it_were_alone() -> None:
    features = random_features(3, 20, 8)
    together = group_redundant_tokens(features, num_groups=7).mean(features)
    for image, merged in zip(features, together, strict=True):
        alone = group_redundant_tokens(image[None], num_groups=7).mean(image[None])
        torch.testing.assert_close(merged, alone[0])


def test_gradients_flow_through_values_and_not_through_the_choice() -> None:
    features = random_features(1, 12, 6).requires_grad_()
    grouping = group_redundant_tokens(features, num_groups=4)
    assert not grouping.group_of.requires_grad

    grouping.mean(features).sum().backward()

    share = 1 / grouping.sizes()[0][grouping.group_of[0]]  # a mean's derivative; anything else came through the choice
    torch.testing.assert_close(features.grad[0], share[:, None].expand(-1, 6))


def test_a_large_group_keeps_all_its_members_in_bfloat16() -> None:
    ones = torch.ones(1, 1000, 2, dtype=torch.bfloat16)  # a bfloat16 sum would stop at 256
    mean = group_redundant_tokens(ones, num_groups=1).mean(ones)
    assert mean.dtype == torch.bfloat16
    assert mean.flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("num_groups", [0, -1, 6])
def test_an_impossible_number_of_groups_is_refused_with_the_range(num_groups: int) -> None:
    with pytest.raises(ValueError, match=rf"1 to 5.*got {num_groups}"):
        group_redundant_tokens(torch.ones(1, 5, 2), num_groups=num_groups)
