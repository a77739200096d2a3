"""The learned pooling behind summary tokens."""

from __future__ import annotations

import torch

from skipvision.method.summary import SummaryPooling
from tests.method import reference


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def random_pooling(hidden: int) -> SummaryPooling:
    torch.manual_seed(4)
    pooling = SummaryPooling(hidden)
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    return pooling


def test_zero_weights_pool_to_the_mean() -> None:
    pooling = SummaryPooling(8)
    torch.nn.init.zeros_(pooling.score.weight)
    region = tokens(2, 5, 8)
    torch.testing.assert_close(pooling(region), region.mean(dim=1))


def test_a_one_hot_score_pools_to_that_token() -> None:
    pooling, region = SummaryPooling(4), torch.eye(4)[None] * 3 + 1
    with torch.no_grad():
        pooling.score.weight.copy_(torch.tensor([[0.0, 0.0, 1000.0, 0.0]]))
    torch.testing.assert_close(pooling(region), region[:, 2])


def test_pooling_gives_what_the_plain_formula_gives() -> None:
    pooling, region = random_pooling(12), tokens(3, 7, 12)
    plain = torch.stack([reference.pool(image, pooling.state_dict()) for image in region])
    torch.testing.assert_close(pooling(region), plain)


def test_what_is_averaged_are_the_raw_embeddings() -> None:
    pooling, region = random_pooling(12), tokens(1, 7, 12)
    expected = 5 * pooling(region) + 2  # the score, on normalised tokens, does not see the change
    torch.testing.assert_close(pooling(5 * region + 2), expected, rtol=1e-3, atol=1e-3)


def test_a_single_token_is_its_own_summary() -> None:
    region = tokens(2, 1, 12)
    torch.testing.assert_close(random_pooling(12)(region), region[:, 0])


def test_training_starts_from_the_published_weights_and_names() -> None:
    torch.manual_seed(0)
    pooling = SummaryPooling(4096)
    assert set(pooling.state_dict()) == {"norm.weight", "norm.bias", "score.weight", "score.bias"}
    assert abs(pooling.score.weight.std().item() - 0.02) < 0.001
    assert abs(pooling.score.weight.mean().item()) < 0.002
    assert pooling.score.bias.tolist() == [0.0]
