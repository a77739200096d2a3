"""What is a job's in a folder is known by name, and what is not is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from pipelines.folder import JobFolder
from pipelines.layout import DATA, has_plan, refuse_foreign_folder, shard_name, shard_of, sweep
from skipvision.errors import ConfigError


@pytest.mark.parametrize("place", ["disk", "object store"])
def test_sweeping_leaves_the_plans_input_and_the_data_alone(tmp_path, place):
    folder = JobFolder(str(tmp_path)) if place == "disk" else JobFolder("memory:///", store=MemoryStore())
    for name in ("input/mine/a", "input/stale/a", "data/x", "plan.json"):
        folder.create(name, b"1")
    sweep(folder, keep_input="mine")
    assert folder.names("input") == ["input/mine/a"]
    assert folder.names(DATA) == ["data/x"]


def test_shards_are_named_by_number():
    assert [shard_of(shard_name(n)) for n in (0, 7, 99_999, 100_000)] == [0, 7, 99_999, 100_000]


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match=r"is no job: it holds thesis\.tex"):
        refuse_foreign_folder(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        refuse_foreign_folder(str(tmp_path / "out"))


def test_new_empty_and_interrupted_folders_are_welcome(tmp_path):
    (tmp_path / "begun" / "input" / "abc").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("begun", "empty", "new"):
        refuse_foreign_folder(str(tmp_path / name))


def test_looking_for_a_job_creates_nothing(tmp_path):
    assert not has_plan(str(tmp_path / "new"))
    assert not Path(tmp_path / "new").exists()
