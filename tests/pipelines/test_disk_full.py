"""A real disk that fills up while a job writes to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.job import run
from skipvision.config import JobConfig
from skipvision.errors import JobStoppedError
from tests.image_files import write_good

ROWS = 12


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 90 KiB; it takes root to make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90k", "tmpfs", place], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
def test_a_job_on_a_full_disk_says_so_and_goes_on_when_there_is_room(small_disk, tmp_path, tiny_model, local_ray):
    write_good(tmp_path / "in", ROWS)
    config = JobConfig(input=str(tmp_path / "in"), output=str(small_disk / "job"), model=str(tiny_model),
                       skip="6/4:plain", max_tokens=4, rows_per_shard=1)  # fmt: skip
    with pytest.raises(JobStoppedError) as stopped:
        run(config)
    said = str(stopped.value)
    assert "cannot be written" in said
    assert "No space left on device" in said
    assert said.endswith("stays, and the same command goes on from there")
    assert "\n" not in said
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    report = run(config)
    assert (report.rows, report.ok) == (ROWS, ROWS)
