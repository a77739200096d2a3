"""Every error can travel between processes, and every error of a row says which one it is."""

from __future__ import annotations

import pickle
import re

import pytest

from skipvision import errors
from skipvision.errors import InputError, PromptTooLongError, SkipVisionError
from skipvision.metrics import ERROR_CODES


def kinds(root: type[SkipVisionError]) -> list[type[SkipVisionError]]:
    return [root, *(below for child in root.__subclasses__() for below in kinds(child))]


def leaves(root: type[SkipVisionError]) -> list[type[SkipVisionError]]:
    return [kind for kind in kinds(root) if not kind.__subclasses__()]


def example(kind: type[SkipVisionError]) -> SkipVisionError:
    if kind is PromptTooLongError:
        return PromptTooLongError(prompt_tokens=70, limit_tokens=64)
    return kind("what is wrong, and the remedy")


@pytest.mark.parametrize("kind", kinds(SkipVisionError), ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_to_another_process(kind):
    sent = example(kind)
    received = pickle.loads(pickle.dumps(sent))
    assert type(received) is kind
    assert str(received) == str(sent)
    assert vars(received) == vars(sent)


def test_a_code_of_its_own_survives_too():
    sent = errors.ImageError("the image has zero bytes", code="image_empty")
    assert pickle.loads(pickle.dumps(sent)).code == "image_empty"


@pytest.mark.parametrize("kind", kinds(InputError), ids=lambda kind: kind.__name__)
def test_an_error_of_a_row_has_a_short_stable_code_that_is_counted(kind):
    code = example(kind).code
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert code in ERROR_CODES


def test_a_prompt_that_is_too_long_says_by_how_much():
    assert "shorten it by 6" in str(PromptTooLongError(prompt_tokens=70, limit_tokens=64))


@pytest.mark.parametrize("kind", leaves(SkipVisionError), ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree(kind):
    assert re.search(rf"── {kind.__name__} ", errors.__doc__)
