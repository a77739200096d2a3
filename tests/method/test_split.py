"""Images parted into retained, skipped and summary tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipvision.errors import ConfigError
from skipvision.method.plan import SkipConfig, plan_image
from skipvision.method.split import split_visual_tokens
from skipvision.method.summary import SummaryPooling
from tests.method import reference


def images(batch: int, tokens: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, 8, generator=generator), torch.rand(batch, tokens, generator=generator)


def pooling() -> SummaryPooling:
    torch.manual_seed(4)
    module = SummaryPooling(8)
    torch.nn.init.normal_(module.score.weight)
    return module


@pytest.mark.parametrize(("retain", "merge_to"), [(4, 5), (4, 12), (4, None), (1, 1), (15, 1), (16, None)])
@pytest.mark.parametrize("summarise", [False, True])
def test_an_image_is_split_as_the_published_steps_split_it(retain: int, merge_to: int | None, summarise: bool) -> None:
    features, scores = images(3, 16)
    config, summary = SkipConfig(retain=retain, merge_skipped_to=merge_to, summarise=summarise), pooling()

    split = split_visual_tokens(features, scores, config, summary)

    for image in range(3):
        plain = reference.split(features[image], scores[image], retain=retain, merge_skipped_to=merge_to)
        rows = plain.in_order(summary.state_dict() if summarise else None)
        assert split.retained_index[image].tolist() == plain.retained_index
        torch.testing.assert_close(split.sequence()[image], torch.stack([row for row, _ in rows]))
    assert split.sequence().shape[1] == plan_image(config, 16).lm_tokens


@pytest.mark.parametrize("pooled_from", [1, 4, 6])
def test_the_first_summary_leaves_out_the_tokens_that_no_summary_sees(pooled_from: int) -> None:
    features, scores = images(3, 16)
    config, summary = SkipConfig(retain=7, merge_skipped_to=5, summarise=True), pooling()
    split = split_visual_tokens(features, scores, config, summary, pooled_from=pooled_from)
    assert split.summaries is not None
    for image in range(3):
        plain = reference.split(features[image], scores[image], retain=7, merge_skipped_to=5)
        expected = [reference.pool(of, summary.state_dict()) for of in (plain.retained[pooled_from:], plain.skipped)]
        for pooled, by_hand in zip(split.summaries, expected, strict=True):
            torch.testing.assert_close(pooled[image], by_hand)
        torch.testing.assert_close(split.retained[image], plain.retained)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 10**6), tokens=st.integers(2, 20), data=st.data())
def test_no_token_is_lost_or_doubled_by_a_split(seed: int, tokens: int, data: st.DataObject) -> None:
    features, scores = images(2, tokens, seed=seed)
    retain = data.draw(st.integers(1, tokens - 1))
    split = split_visual_tokens(features, scores, SkipConfig(retain=retain), None)
    parted = torch.cat([split.retained, split.skipped], dim=1)
    for image in range(2):
        assert sorted(parted[image].tolist()) == sorted(features[image].tolist())
        assert (split.retained[image] == features[image, split.retained_index[image]]).all()


def test_merging_to_the_number_that_is_left_merges_nothing_and_keeps_raster_order() -> None:
    features, scores = images(1, 16)
    merged = split_visual_tokens(features, scores, SkipConfig(retain=4, merge_skipped_to=12), None)
    unmerged = split_visual_tokens(features, scores, SkipConfig(retain=4), None)
    assert torch.equal(merged.sequence(), unmerged.sequence())


@pytest.mark.parametrize("config", [SkipConfig(), SkipConfig(retain=16), SkipConfig(retain=16, summarise=True)])
def test_skipping_nothing_is_the_identity(config: SkipConfig) -> None:
    features, scores = images(2, 16)
    split = split_visual_tokens(features, scores, config, pooling())
    assert torch.equal(split.sequence(), features)
    assert split.retained_index.tolist() == [list(range(16))] * 2


def test_an_image_is_split_as_if_it_were_alone() -> None:
    features, scores = images(3, 16)
    config, summary = SkipConfig(retain=4, merge_skipped_to=5, summarise=True), pooling()
    together = split_visual_tokens(features, scores, config, summary).sequence()
    for image in range(3):
        alone = split_visual_tokens(features[image : image + 1], scores[image : image + 1], config, summary)
        torch.testing.assert_close(together[image], alone.sequence()[0])


def test_gradients_reach_merged_values_and_the_summary_module_but_not_the_scores() -> None:
    features, scores = images(1, 16)
    features.requires_grad_()
    scores.requires_grad_()
    summary = pooling()

    split = split_visual_tokens(features, scores, SkipConfig(retain=4, merge_skipped_to=5, summarise=True), summary)
    (split.sequence() ** 2).sum().backward()

    assert (features.grad.abs().sum(dim=-1) > 0).all(), "every token has its part in some value"
    assert scores.grad is None
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for name, p in summary.named_parameters() if "bias" not in name
    )


def test_the_gradient_is_that_of_the_plain_steps() -> None:
    features, scores = images(1, 16)
    fast, plain, summary = features.clone().requires_grad_(), features.clone().requires_grad_(), pooling()
    config = SkipConfig(retain=4, merge_skipped_to=5, summarise=True)
    (split_visual_tokens(fast, scores, config, summary).sequence() ** 3).sum().backward()
    rows = reference.split(plain[0], scores[0], retain=4, merge_skipped_to=5).in_order(summary.state_dict())
    (torch.stack([row for row, _ in rows]) ** 3).sum().backward()
    torch.testing.assert_close(fast.grad, plain.grad)


def test_too_small_an_image_is_refused_naming_the_numbers() -> None:
    features, scores = images(1, 16)
    with pytest.raises(ConfigError, match=r"(?s)10.*7.*16"):
        split_visual_tokens(features, scores, SkipConfig(retain=10, merge_skipped_to=7), None)


def test_summaries_without_a_summary_module_are_refused_with_the_remedy() -> None:
    features, scores = images(1, 16)
    with pytest.raises(ConfigError, match="4/5:plain"):
        split_visual_tokens(features, scores, SkipConfig(retain=4, merge_skipped_to=5, summarise=True), None)
