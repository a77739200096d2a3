"""The wish, and the counts that follow from it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipvision.errors import ConfigError
from skipvision.method.plan import ImagePlan, SkipConfig, plan_prompt
from tests.method import reference

PAPER = {"100/156": (100, 156, 320), "256/320": (256, 320, 0), "64/156": (64, 156, 356)}


@st.composite
def wishes(draw: st.DrawFn, *, at_most: int) -> SkipConfig:
    """Wishes that fit an image of `at_most` tokens."""
    retain = draw(st.one_of(st.none(), st.integers(1, at_most)))
    if retain is None:
        return SkipConfig()
    reducer = draw(st.sampled_from([None, "uniform", "random", "saliency"]))
    if reducer is not None:
        return SkipConfig(retain=retain, reducer=reducer)
    merge_to = draw(st.one_of(st.none(), st.integers(1, at_most - retain))) if retain < at_most else None
    return SkipConfig(
        retain=retain,
        merge_skipped_to=merge_to,
        summarise=draw(st.booleans()),
        forget_skipped=draw(st.booleans()),
    )


@settings(deadline=None, derandomize=True, max_examples=150)
@given(config=wishes(at_most=30), sizes=st.lists(st.integers(30, 60), max_size=4), text=st.integers(0, 50))
def test_every_token_of_the_encoder_has_one_fate(config: SkipConfig, sizes: list[int], text: int) -> None:
    plan = plan_prompt(config, text_tokens=text, visual_tokens=sizes)

    assert plan.visual_tokens == sum(sizes)
    fates = (plan.retained_tokens, plan.skipped_tokens, plan.merged_tokens, plan.dropped_tokens)
    assert sum(fates) == sum(sizes)
    assert min(*fates, plan.summary_tokens) >= 0
    assert plan.prompt_tokens == text + plan.retained_tokens + plan.skipped_tokens + plan.summary_tokens
    assert plan.ffn_tokens == plan.prompt_tokens - plan.skipped_tokens
    assert plan.cached_tokens == (plan.ffn_tokens if config.forget_skipped else plan.prompt_tokens)
    for image in plan.images:
        assert image.retained + image.skipped + image.merged + image.dropped == image.visual_tokens
        assert image.lm_tokens == image.retained + image.skipped + image.summaries
        assert image.summaries == (2 if config.summarise and image.skipped else 0)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(config=wishes(at_most=9), data=st.data())
def test_spans_are_where_the_skipped_tokens_stand_in_the_sequence(config: SkipConfig, data: st.DataObject) -> None:
    offsets = sorted(data.draw(st.lists(st.integers(0, 6), max_size=3)))
    plan = plan_prompt(config, text_tokens=6, visual_tokens=[9] * len(offsets))

    sequence: list[str] = []
    for text in range(7):
        for _ in range(offsets.count(text)):
            sequence += _image_by_hand(config, tokens=9)
        sequence += ["text"] if text < 6 else []

    spans = plan.skipped_spans(offsets)
    assert len(sequence) == plan.prompt_tokens
    assert [i for start, stop in spans for i in range(start, stop)] == [
        i for i, kind in enumerate(sequence) if kind == "skipped"
    ]
    assert all(stop > start for start, stop in spans)


def _image_by_hand(config: SkipConfig, *, tokens: int) -> list[str]:
    if config.retain is None:
        return ["retained"] * tokens
    if config.reducer is not None:
        return ["retained"] * config.retain
    features, scores = torch.randn(tokens, 4), torch.rand(tokens)
    regions = reference.split(features, scores, retain=config.retain, merge_skipped_to=config.merge_skipped_to)
    zeros = {name: torch.zeros(4) for name in ("norm.weight", "norm.bias")}
    zeros |= {"score.weight": torch.zeros(1, 4), "score.bias": torch.zeros(1)}
    rows = regions.in_order(zeros if config.summarise else None)
    return ["skipped" if is_skipped else "kept" for _, is_skipped in rows]


def test_the_default_does_nothing() -> None:
    config = SkipConfig()
    plan = plan_prompt(config, text_tokens=10, visual_tokens=[576])
    assert config.is_off
    assert config.describe() == "off"
    assert plan.prompt_tokens == plan.ffn_tokens == plan.cached_tokens == 586
    assert plan.skipped_spans([4]) == ()


def test_a_text_only_prompt_has_a_plan() -> None:
    plan = plan_prompt(SkipConfig.parse("100/156"), text_tokens=7, visual_tokens=[])
    assert plan.prompt_tokens == plan.ffn_tokens == plan.cached_tokens == 7
    assert plan.skipped_spans([]) == ()


@pytest.mark.parametrize("setting", PAPER)
def test_the_papers_settings_are_a_matter_of_configuration(setting: str) -> None:
    retained, skipped, merged = PAPER[setting]
    (image,) = plan_prompt(SkipConfig.parse(setting), text_tokens=0, visual_tokens=[576]).images
    assert image == ImagePlan(visual_tokens=576, retained=retained, skipped=skipped, summaries=2)
    assert image.merged == merged
    assert image.lm_tokens == retained + skipped + 2


@pytest.mark.parametrize("setting", ["off", *PAPER, *(f"{name}:plain" for name in PAPER)])
def test_a_setting_reads_as_it_was_written(setting: str) -> None:
    assert SkipConfig.parse(setting).describe() == setting


def test_plain_means_without_summary_tokens() -> None:
    assert SkipConfig.parse("100/156:plain") == SkipConfig(retain=100, merge_skipped_to=156, forget_skipped=True)
    assert SkipConfig.parse("100/156").summarise


@pytest.mark.parametrize("text", ["", "on", "100", "100/", "/156", "100/156/1", "100/156:fancy", "-1/5", "1.5/2"])
def test_a_setting_nobody_can_read_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="100/156"):
        SkipConfig.parse(text)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"retain": 0}, "at least 1.*0"),
        ({"retain": -1}, "at least 1.*-1"),
        ({"retain": 5, "merge_skipped_to": 0}, "at least 1.*0"),
        ({"merge_skipped_to": 5}, "unless retain is set"),
        ({"summarise": True}, "unless retain is set"),
        ({"forget_skipped": True}, "unless retain is set"),
    ],
)
def test_a_wrong_wish_is_refused_with_the_remedy(wish: dict[str, int | bool], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SkipConfig(**wish)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (SkipConfig(retain=500, merge_skipped_to=77), ("500", "77", "576")),
        (SkipConfig.parse("577/1"), ("577", "1", "576")),
        (SkipConfig(retain=577), ("577", "576")),
    ],
)
def test_more_than_the_image_has_is_refused_naming_both_numbers(config: SkipConfig, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as refused:
        plan_prompt(config, text_tokens=5, visual_tokens=[576])
    assert all(name in str(refused.value) for name in names)


def test_exactly_what_the_image_has_is_taken() -> None:
    plan = plan_prompt(SkipConfig.parse("500/76"), text_tokens=0, visual_tokens=[576])
    assert (plan.retained_tokens, plan.skipped_tokens, plan.merged_tokens) == (500, 76, 0)


def test_one_image_too_small_among_several_is_refused() -> None:
    with pytest.raises(ConfigError, match="196"):
        plan_prompt(SkipConfig.parse("100/156"), text_tokens=5, visual_tokens=[576, 196, 576])


@pytest.mark.parametrize("text", ["uniform:64", "random:64", "saliency:1", "resize:144"])
def test_a_reduction_is_described_as_it_is_written(text: str) -> None:
    assert SkipConfig.parse(text).describe() == text


def test_a_reduced_image_is_its_kept_tokens_and_the_rest_is_dropped() -> None:
    plan = plan_prompt(SkipConfig.parse("uniform:64"), text_tokens=10, visual_tokens=[576, 100])
    assert (plan.retained_tokens, plan.skipped_tokens, plan.merged_tokens, plan.dropped_tokens) == (128, 0, 0, 548)
    assert plan.prompt_tokens == plan.ffn_tokens == plan.cached_tokens == 138


@pytest.mark.parametrize(("asked", "nearest"), [(60, 64), (50, 49), (2, 1)])
def test_resize_names_the_nearest_square_that_works(asked: int, nearest: int) -> None:
    with pytest.raises(ConfigError, match=f"{asked} is no square number; use resize:{nearest}$"):
        SkipConfig.parse(f"resize:{asked}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reducer": "uniform"}, "needs retain"),
        ({"reducer": "uniform", "retain": 4, "merge_skipped_to": 2}, "no token is skipped"),
        ({"reducer": "uniform", "retain": 4, "forget_skipped": True}, "no token is skipped"),
        ({"reducer": "centre", "retain": 4}, "'centre'"),
    ],
)
def test_a_reduction_that_makes_no_sense_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SkipConfig(**settings)  # type: ignore[arg-type]


def test_an_unknown_reduction_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"uniform, random, saliency, resize.*'centre'"):
        SkipConfig.parse("centre:64")


def test_a_reduction_that_keeps_more_than_there_is_is_refused() -> None:
    with pytest.raises(ConfigError, match="random:64 keeps more than the 16"):
        plan_prompt(SkipConfig.parse("random:64"), text_tokens=1, visual_tokens=[16])
