"""What is compared gives the same pixels, and the table has a row for every kind of image."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import tables
from benchmarks.decoding import Kind, compare, ways_of
from benchmarks.machine import circumstances
from benchmarks.photographs import photo
from benchmarks.random_llava import small

KIND = Kind(image_format="JPEG", width=2016, height=1512)


@pytest.fixture(scope="module")
def compared() -> dict:
    return compare(KIND, rounds=1)


def test_both_see_the_same_picture():
    ways, data = ways_of(small()), KIND.encoded(photo)
    plain, exact = ways["plain"](data)[0], ways["exact"](data)
    assert plain.shape == exact.shape
    assert np.corrcoef(plain[0].ravel(), exact[0].ravel())[0, 1] > 0.9999


def test_reduced_pixels_are_others_but_near(compared):
    for drawn in ("photo", "page"):
        assert 0 < compared["reduced_from_exact"][drawn]["mean"] < 2


def test_the_table_has_a_row_for_each_kind(compared):
    result = {**circumstances(), "rounds": 1, "decoder_versions": {"pillow": "1"}, "kinds": [compared]}
    assert tables.decoding(result).splitlines()[2].startswith("| JPEG 2016 × 1512 | llava | ")
