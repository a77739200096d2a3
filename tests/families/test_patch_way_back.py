"""Leaving `with skipping(...)`: the model is what it was. And what is refused on the way in."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from skipvision.errors import ConfigError
from skipvision.families.patch import skipping
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from tests.families.patch_cases import (
    CONFIGS,
    FULL,
    IMAGE,
    as_batch,
    one_image_prompt,
    traces,
)
from tests.method.bare_llava import bare_llava, random_images, words


@torch.no_grad()
def test_the_model_is_bit_equal_to_itself_afterwards_also_after_an_error(summary: SummaryPooling) -> None:
    model, given = bare_llava(), {"input_ids": as_batch(one_image_prompt()), "pixel_values": random_images(1)}
    plain, before, names = model(**given).logits, traces(model), list(model.state_dict())

    def fail_inside() -> None:
        with skipping(model, FULL, summary):
            assert not torch.equal(model(**given).logits, plain)
            raise RuntimeError("from inside")

    with skipping(model, FULL, summary):
        model(**given)
    assert torch.equal(model(**given).logits, plain)
    with pytest.raises(RuntimeError, match="from inside"):
        fail_inside()
    assert torch.equal(model(**given).logits, plain)
    assert traces(model) == before
    assert list(model.state_dict()) == names


@torch.no_grad()
def test_an_error_in_the_middle_of_a_forward_leaves_no_hook_behind(model: Any, summary: SummaryPooling) -> None:
    too_large = torch.randn(1, 3, 48, 48)
    with skipping(model, FULL, summary), pytest.raises(ValueError, match="image size"):
        model(input_ids=as_batch(one_image_prompt()), pixel_values=too_large)


@torch.no_grad()
def test_a_second_setting_inside_the_block_is_refused_and_the_first_one_stays(
    model: Any, summary: SummaryPooling
) -> None:
    given = {"input_ids": as_batch(one_image_prompt()), "pixel_values": random_images(1)}
    with skipping(model, FULL, summary):
        plain = model(**given).logits
        with pytest.raises(ConfigError, match="already"), skipping(model, CONFIGS["24/1"], summary):
            pytest.fail("two settings cannot both rule")
        assert torch.equal(model(**given).logits, plain)


@torch.no_grad()
def test_a_forward_that_someone_else_put_on_the_model_is_still_there_afterwards(summary: SummaryPooling) -> None:
    model, calls = bare_llava(), []
    stock = model.model.forward

    def dispatched(*args: Any, **kwargs: Any) -> Any:  # as accelerate's device placement does
        calls.append(1)
        return stock(*args, **kwargs)

    model.model.forward = dispatched
    with skipping(model, FULL, summary):
        model(input_ids=as_batch(one_image_prompt()), pixel_values=random_images(1))
    assert model.model.forward is dispatched


@torch.no_grad()
def test_two_models_run_side_by_side_with_different_settings(summary: SummaryPooling) -> None:
    one, two = bare_llava(), bare_llava()
    given = {"input_ids": as_batch(one_image_prompt()), "pixel_values": random_images(1)}
    plain = two(**given).logits
    with skipping(one, FULL, summary):
        assert torch.equal(two(**given).logits, plain)
        with skipping(two, CONFIGS["24/1"], summary):
            assert not torch.allclose(one(**given).logits, two(**given).logits)


def test_weights_saved_inside_the_block_have_their_stock_names(model: Any, summary: SummaryPooling) -> None:
    names = list(model.state_dict())
    with skipping(model, FULL, summary):
        assert list(model.state_dict()) == names


def test_the_model_can_be_copied_after_the_block(summary: SummaryPooling) -> None:
    model = bare_llava()
    with skipping(model, FULL, summary):
        pass
    twin = copy.deepcopy(model)
    assert twin.model.forward.__self__ is twin.model


def test_more_than_the_image_has_is_refused_on_entering_naming_the_numbers(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"20 .*6 .*25"), skipping(model, SkipConfig.parse("20/6:plain")):
        pytest.fail("nothing may start")


def test_summaries_without_their_module_are_refused_on_entering(model: Any) -> None:
    with pytest.raises(ConfigError, match="summary"), skipping(model, FULL):
        pytest.fail("nothing may start")


@pytest.mark.parametrize("images", [1, 3])
def test_images_without_a_place_and_places_without_an_image_are_refused(
    model: Any, summary: SummaryPooling, images: int
) -> None:
    ids = as_batch(words(2, seed=1) + IMAGE + IMAGE + words(2, seed=2))
    with skipping(model, FULL, summary), pytest.raises(ValueError, match=rf"2 images.*{images}"):
        model(input_ids=ids, pixel_values=random_images(images))


def test_a_block_of_placeholders_of_the_wrong_length_is_refused(model: Any, summary: SummaryPooling) -> None:
    ids = as_batch(words(2, seed=1) + IMAGE[:-3] + words(2, seed=2))
    with skipping(model, FULL, summary), pytest.raises(ValueError, match=r"22.*25"):
        model(input_ids=ids, pixel_values=random_images(1))
