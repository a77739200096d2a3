"""The measurement of a large job that goes on works on a small one."""

from __future__ import annotations

import pytest

from benchmarks.resume import resumed


@pytest.mark.slow
def test_a_job_of_which_half_is_committed_goes_on_with_the_other_half(tmp_path):
    measured = resumed(tmp_path, 2000)
    assert (measured["shards"], measured["committed_shards"]) == (8, 4)
    assert measured["going_on"]["seconds"] > 0
    assert measured["going_on"]["driver_bytes"] > 2**20
