"""A whole job is measured beside its engine alone."""

from __future__ import annotations

import json

import pytest

from benchmarks import tables
from benchmarks.job import measure, once_running


def test_seconds_before_the_first_commit_are_not_counted():
    assert once_running([(0.0, 0), (10.0, 8), (11.0, 16), (12.0, 24)]) == pytest.approx(8.0)
    assert once_running([(10.0, 8), (12.0, 24)]) == pytest.approx(8.0)


@pytest.mark.parametrize("timeline", [[], [(0.0, 0)], [(0.0, 0), (3.0, 8)], [(3.0, 4), (3.0, 8)]])
def test_one_commit_has_no_rate(timeline):
    assert once_running(timeline) is None


@pytest.mark.slow
def test_every_photo_is_answered_by_both(tmp_path):
    measure(
        shape="tiny", device="cpu", images=12, rounds=1, new_tokens=4, running=4, setting=["100/156"],
        folder=tmp_path, output=tmp_path / "job.json",
    )  # fmt: skip
    result = json.loads((tmp_path / "job.json").read_text())
    [setting] = result["settings"]
    assert (setting["job"]["ok"], setting["job"]["output_tokens"]) == (12, 48)
    assert setting["engine_alone"]["images_per_second"]["median"] > 0
    assert tables.job(result).splitlines()[2].startswith("| 100/156 |")
