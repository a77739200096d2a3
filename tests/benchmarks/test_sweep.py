"""One thing is changed at a time."""

from __future__ import annotations

import pytest

from benchmarks import tables
from benchmarks.machine import circumstances
from benchmarks.sweep import SETTINGS, Point, sweep


@pytest.fixture(scope="module")
def swept(tiny_config) -> dict:
    axes = {"max_running": (1, 16), "new_tokens": (2, 32), "images_each": (1, 2)}
    return {**circumstances(), **sweep(tiny_config, axes, images=2, rounds=1)}


def test_points_differ_from_the_base_in_one_thing_and_none_is_measured_twice(swept):
    base = swept["base"]
    differing = [[axis for axis in base if point[axis] != base[axis]] for point in swept["points"]]
    assert sorted(differing) == [[], ["images_each"], ["max_running"], ["new_tokens"]]


def test_every_point_is_measured_under_each_setting(swept):
    for point in swept["points"]:
        assert [*point["images_per_second"]] == [*SETTINGS]
        assert all(speed["median"] > 0 for speed in point["images_per_second"].values())


def test_the_base_stands_on_every_axis_of_the_table(swept):
    rows = [line.strip("| ").split(" | ") for line in tables.sweep(swept).splitlines()[2:8]]
    assert [row[1] for row in rows] == ["1", "16", "2", "32", "1", "2"]
    assert len({tuple(row[2:]) for row in (rows[1], rows[3], rows[4])}) == 1
    assert Point().max_running == 16
