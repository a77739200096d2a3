"""What an input stands for: which files, of which kind, in which order, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.sources import find_source
from skipvision.errors import ConfigError


def made(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return folder


def test_a_folder_is_searched_through_all_its_folders(tmp_path):
    source = find_source(str(made(tmp_path, "b.PNG", "a.jpg", "deep/down/c.webp", "notes.txt", "deep/.hidden.png")))
    assert source.kind == "images"
    assert source.names == ("a.jpg", "b.PNG", "deep/down/c.webp")
    assert source.others == ("deep/.hidden.png", "notes.txt")
    assert source.files[0].path == str(tmp_path / "a.jpg")
    assert source.files[0].size_bytes == 5


def test_images_stand_above_tables_in_one_folder(tmp_path):
    source = find_source(str(made(tmp_path, "a.jpg", "labels.csv", "more.parquet")))
    assert (source.names, source.others) == (("a.jpg",), ("labels.csv", "more.parquet"))


def test_a_folder_of_parquet_files_is_a_table(tmp_path):
    source = find_source(str(made(tmp_path, "part-1.parquet", "part-0.parquet", "_SUCCESS")))
    assert (source.kind, source.names) == ("parquet", ("part-0.parquet", "part-1.parquet"))
    assert source.others == ("_SUCCESS",)


def test_a_pattern_matches_in_order(tmp_path):
    made(tmp_path, "x/2.jpg", "x/1.jpg", "y/3.jpg", "x/4.png")
    assert [Path(name).name for name in find_source(f"{tmp_path}/**/*.jpg").names] == ["1.jpg", "2.jpg", "3.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    made(tmp_path, "set[1].jsonl", "set1.jsonl")
    assert find_source(str(tmp_path / "set[1].jsonl")).names == (str(tmp_path / "set[1].jsonl"),)


def test_a_link_that_leads_nowhere_is_still_a_row(tmp_path):
    os.symlink(tmp_path / "gone.jpg", tmp_path / "link.jpg")
    assert find_source(str(tmp_path)).names == ("link.jpg",)


def test_a_name_of_no_encoding_is_listed_and_passed_over(tmp_path):
    made(tmp_path, "a.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"")
    assert find_source(str(tmp_path)).others == ("?.jpg",)


@pytest.mark.parametrize(
    ("files", "pattern", "says"),
    [
        ([], "", "is empty: no image and no table in it, no file at all"),
        (["notes.txt"], "", "is empty: .* 1 other files"),
        (["a.csv", "b.jsonl"], "", r"several kinds \(csv, jsonl\)"),
        (["a.jpg", "b.csv"], "/*", "several kinds"),
        (["a.jpg"], "/*.png", "matches no file"),
        (["a.txt"], "/a.txt", "of no kind that is read"),
        ([], "/none.parquet", "does not exist"),
    ],
)
def test_an_input_that_is_nothing_is_refused_by_name(tmp_path, files, pattern, says):
    made(tmp_path, *files)
    with pytest.raises(ConfigError, match=says) as refusal:
        find_source(f"{tmp_path}{pattern}")
    assert str(tmp_path) in str(refusal.value)
