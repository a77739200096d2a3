"""Every kind of input comes out as the same thin rows: the user's columns, and where the image is."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.location import IMAGES, Location
from skipvision.errors import ConfigError
from tests.pipelines.inputs import opened, rows


def image(row: dict) -> Location:
    [place] = row[IMAGES]
    return Location.of(place)


def jsonl(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_images_of_a_folder_are_rows_with_their_path(tmp_path):
    for name in ("b.jpg", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = rows(opened(tmp_path))
    assert [row["path"] for row in found] == ["b.jpg", "sub/a.png"]
    assert [image(row).reference for row in found] == [str(tmp_path / "b.jpg"), str(tmp_path / "sub/a.png")]


def test_relative_paths_are_relative_to_the_file_that_names_them(tmp_path):
    path = jsonl(
        tmp_path / "set.jsonl",
        {"image": "photos/a.jpg", "n": 1},
        {"image": "/elsewhere/b.jpg"},
        "",
        {"image": "https://example.org/c.jpg", "n": 2.5},
        {"image": "data:image/png;base64,AAAA", "tags": ["x"]},
        {"image": "  "},
        {"n": None},
    )
    found = rows(opened(path))
    assert [image(row).reference for row in found] == [
        str(tmp_path / "photos/a.jpg"),
        "/elsewhere/b.jpg",
        "https://example.org/c.jpg",
        "data:image/png;base64,AAAA",
        None,
        None,
    ]
    assert [row["n"] for row in found] == [1.0, None, 2.5, None, None, None]
    assert found[3]["tags"] == ["x"]
    assert [row["image"] for row in found][:2] == ["photos/a.jpg", "/elsewhere/b.jpg"], "what the user wrote stays"


def test_text_that_looks_like_a_moment_or_a_number_stays_text(tmp_path):
    found = rows(opened(jsonl(tmp_path / "a.jsonl", {"path": "x", "day": "2026-01-02", "code": "007"})))
    assert (found[0]["day"], found[0]["code"]) == ("2026-01-02", "007")


def test_keys_and_prompts_of_a_csv_are_text(tmp_path):
    (tmp_path / "a.csv").write_text('id,path,prompt,n\n007,a.jpg,12,1\n008,b.jpg,"two\nlines",2\n')
    found = rows(opened(tmp_path / "a.csv", key_column="id", prompt_column="prompt"))
    assert [(row["id"], row["prompt"], row["n"]) for row in found] == [("007", "12", 1), ("008", "two\nlines", 2)]


def test_embedded_images_stay_in_their_file(tmp_path):
    for part in range(2):
        columns = {"image": [b"0", b"1", None], "label": [f"{part}a", f"{part}b", f"{part}c"]}
        pq.write_table(pa.table(columns), tmp_path / f"{part}.parquet", row_group_size=2)
    table = opened(tmp_path)
    assert (table.image_kind, table.schema.names) == ("embedded", ["label"])
    assert [image(row) for row in rows(table)] == [
        Location(file=file, row=row) for file in range(2) for row in range(3)
    ]


def test_a_table_of_nothing_but_images_has_rows_too(tmp_path):
    pq.write_table(pa.table({"image": [b"0", b"1"]}), tmp_path / "a.parquet")
    assert [image(row).row for row in rows(opened(tmp_path / "a.parquet"))] == [0, 1]


def test_a_struct_of_bytes_and_path_is_an_image(tmp_path):
    pq.write_table(pa.table({"image": [{"bytes": b"0", "path": None}], "n": [1]}), tmp_path / "a.parquet")
    table = opened(tmp_path / "a.parquet")
    assert (table.image_kind, table.schema.names) == ("embedded", ["n"])


def test_parquet_files_of_different_columns_are_read_as_one(tmp_path):
    pq.write_table(pa.table({"url": ["https://a"], "n": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"url": ["https://b"], "m": [1.5], "empty": pa.nulls(1)}), tmp_path / "b.parquet")
    table = opened(tmp_path)
    assert table.schema.field("empty").type == pa.string()
    assert [(row["n"], row["m"], row["empty"]) for row in rows(table)] == [(1, None, None), (None, 1.5, None)]


def test_the_image_column_can_be_named(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"image": "wrong.jpg", "photo": "right.jpg"})
    assert image(rows(opened(path, image_column="photo"))[0]).reference == str(tmp_path / "right.jpg")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt_column": "question"}, "no column 'question'; its columns are image, n"),
        ({"key_column": "id"}, "no column 'id'"),
        ({"image_column": "photo"}, "no column 'photo'"),
        ({"image_column": "n"}, "image column 'n' holds int64"),
        ({"prompt_column": "n"}, "prompt column 'n' holds int64, not text"),
    ],
)
def test_a_column_that_is_missing_or_of_another_kind_is_refused(tmp_path, settings, says):
    with pytest.raises(ConfigError, match=says):
        opened(jsonl(tmp_path / "a.jsonl", {"image": "a.jpg", "n": 1}), **settings)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"image": "a"}, "{oops"], "line 2 of .* is not JSON"),
        ([{"image": "a"}, "", "[1]"], "line 3 of .* is not a JSON object"),
        ([{"image": "a", "n": 1}, {"image": "b", "n": "x"}], "column 'n' of .* does not hold values of one type"),
        ([{"picture": "a"}], r"no image column: .* among its columns \(picture\)"),
    ],
)
def test_a_damaged_table_is_refused_with_its_place(tmp_path, lines, says):
    with pytest.raises(ConfigError, match=says):
        opened(jsonl(tmp_path / "a.jsonl", *lines))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name == "a.csv" else b"\xff\xfe\x00PAR")
    with pytest.raises(ConfigError, match=name):
        opened(tmp_path / name)
