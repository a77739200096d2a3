"""Rows about the same images, side by side."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.grouping import ImageOrder
from pipelines.location import IMAGES, Location, places_of


def order_of(rows: list[list[Location]], *, at_once: int = 3) -> list[int] | None:
    images = ImageOrder()
    for first in range(0, len(rows), at_once):
        images.see(pa.table({IMAGES: places_of(rows[first : first + at_once])}))
    order = images.regrouped()
    return None if order is None else order.tolist()


def named(text: str) -> list[list[Location]]:
    """A row for each letter; a space is a row without an image, a dot one whose image stands in a file."""
    return [[] if letter == " " else [Location(None if letter == "." else letter)] for letter in text]


@pytest.mark.parametrize("text", ["a", "abc", "aabbc", "   ", "...", "a. .b"])
def test_rows_that_stand_together_are_left_as_they_are(text):
    assert order_of(named(text)) is None


def test_rows_come_together_where_the_first_of_them_stands():
    assert order_of(named("abcabca")) == [0, 3, 6, 1, 4, 2, 5]
    assert order_of(named("a.b a")) == [0, 4, 1, 2, 3]


def test_images_within_files_are_told_apart_by_more_than_their_names():
    rows = [[Location("0.png", file=file, start=512, size=9)] for file in (0, 1, 0)]
    assert order_of(rows) is None


def test_rows_of_several_images_belong_together_when_all_of_them_are_the_same():
    a, b = Location("a"), Location("b")
    assert order_of([[a, b], [b, a], [a, b]]) == [0, 2, 1]
    assert order_of([[a, b], [a], [b]]) is None


@given(st.text("abc. ", max_size=40))
def test_every_row_is_there_once_and_those_of_an_image_keep_their_order(text):
    order = order_of(named(text)) or [*range(len(text))]
    assert sorted(order) == [*range(len(text))]
    arranged = [text[row] for row in order]
    for letter in "abc":
        own = [row for row in order if text[row] == letter]
        assert own == sorted(own)
        assert not own or arranged.index(letter) + len(own) - 1 == len(arranged) - 1 - arranged[::-1].index(letter)
