"""Rows become pixels or a coded error, from files, embedded bytes and addresses alike."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.encoded import read_embedded
from pipelines.folder import JobFolder
from pipelines.freeze import freeze
from pipelines.model import choose_model
from pipelines.prepare import (
    ERROR_CODE,
    ERROR_MESSAGE,
    PICTURES,
    PIXELS,
    PREPARE_SECONDS,
    PROMPT,
    Preparation,
    pictures_of,
)
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig
from skipvision.families import load_preparer
from skipvision.images import decode_image
from tests.image_catalogue import REFUSED, write
from tests.image_files import picture, saved


@pytest.fixture
def prepared(tmp_path, tiny_model):
    """Freeze an input and prepare all of it, as the Ray tasks do."""

    def prepare(source: Path, **settings: object) -> list[dict]:
        config = JobConfig(input=str(source), output=str(tmp_path / "out"), model=str(tiny_model), **settings)
        folder = JobFolder(config.output)
        plan = freeze(open_table(find_source(config.input), config), config, choose_model(config), folder)
        preparation = Preparation(
            output=config.output,
            input_id=plan.input_id,
            model=str(tiny_model),
            prompt="what ?",
            prompt_column=config.prompt_column,
            embedded_column=plan.embedded_column,
            allow_networks=(),
        )
        return [row for shard in range(plan.shards) for row in shown(preparation.prepare(shard))]

    return prepare


def shown(shard: pa.Table) -> list[dict]:
    """The rows of a prepared shard, each with the pictures that it shows."""
    pictures = pictures_of(shard)
    return [
        row | {SHOWN: [pictures[number] for number in row[PICTURES] if number in pictures]} for row in shard.to_pylist()
    ]


SHOWN = "shown"


def png(seed: int) -> bytes:
    return saved(picture(seed), "PNG")


def test_every_broken_file_gets_its_code_and_a_message_without_paths(tmp_path, prepared):
    expected = write(tmp_path / "in", REFUSED)
    rows = {row["path"]: row for row in prepared(tmp_path / "in", rows_per_shard=20)}
    assert {name: row[ERROR_CODE] for name, row in rows.items()} == expected
    assert not any(row[SHOWN] for row in rows.values())
    assert not any(str(tmp_path) in row[ERROR_MESSAGE] or "0x" in row[ERROR_MESSAGE] for row in rows.values())


def test_bytes_paths_and_data_addresses_give_the_same_pixels(tmp_path, prepared, tiny_model):
    (tmp_path / "a.png").write_bytes(png(1))
    address = "data:image/png;base64," + base64.b64encode(png(1)).decode()
    images = [{"bytes": png(1), "path": None}, {"bytes": None, "path": "a.png"}, {"bytes": None, "path": address}]
    pq.write_table(pa.table({"image": images}), tmp_path / "in.parquet")
    found = [picture for row in prepared(tmp_path / "in.parquet") for picture in row[SHOWN]]
    expected = load_preparer(tiny_model).prepare(decode_image(png(1)))
    assert len(found) == 3
    assert all(np.array_equal(each, expected) for each in found)


def test_an_image_that_several_rows_show_is_prepared_once(tmp_path, prepared, tiny_model):
    for name, seed in (("a.png", 1), ("b.png", 2), ("same.png", 1)):
        (tmp_path / name).write_bytes(png(seed))
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"image": name}) for name in ["a.png", "b.png"] * 3))
    rows = prepared(tmp_path / "in.jsonl", group_images=False)
    assert [row[PICTURES] for row in rows] == [[0], [1]] * 3
    assert [len(row[PIXELS]) for row in rows] == [1, 1, 0, 0, 0, 0]
    assert [row[PREPARE_SECONDS] > 0 for row in rows] == [True, True, False, False, False, False]
    for row, seed in zip(rows, [1, 2] * 3, strict=True):
        assert np.array_equal(row[SHOWN][0], load_preparer(tiny_model).prepare(decode_image(png(seed))))


def test_the_same_bytes_in_two_places_are_one_image(tmp_path, prepared):
    images = [png(1), png(2), png(1), None, b"broken", b"broken"]
    pq.write_table(pa.table({"image": images}), tmp_path / "in.parquet")
    rows = prepared(tmp_path / "in.parquet")
    assert [row[PICTURES] for row in rows] == [[0], [1], [0], [2], [3], [3]]
    assert [row[ERROR_CODE] for row in rows] == [
        None, None, None, "image_missing", "image_unidentified", "image_unidentified",
    ]  # fmt: skip


def test_a_row_that_names_no_image_or_a_missing_one_says_so(tmp_path, prepared):
    lines = [{"image": None}, {"image": "gone.jpg"}, {"image": ""}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [row[ERROR_CODE] for row in prepared(tmp_path / "in.jsonl")] == ["image_missing"] * 3


def test_a_row_without_a_prompt_says_so_and_others_keep_theirs(tmp_path, prepared):
    (tmp_path / "a.png").write_bytes(png(1))
    prompts = ["why ?", None, "  \n", "who ?"]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"image": "a.png", "q": q}) for q in prompts))
    rows = prepared(tmp_path / "in.jsonl", prompt_column="q")
    assert [(row[PROMPT], row[ERROR_CODE]) for row in rows] == [
        ("why ?", None), (None, "prompt_missing"), ("  \n", "prompt_missing"), ("who ?", None),
    ]  # fmt: skip


def test_an_address_that_is_refused_costs_only_its_own_row(tmp_path, prepared):
    (tmp_path / "a.png").write_bytes(png(1))
    lines = [{"url": "http://127.0.0.1/a.png"}, {"url": "a.png"}, {"url": "file:///etc/hostname"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = prepared(tmp_path / "in.jsonl")
    assert [row[ERROR_CODE] for row in rows] == ["url_refused", None, "url_scheme"]


@pytest.mark.parametrize("group_rows", [1, 3, 40, 100])
def test_embedded_rows_are_the_ones_that_were_asked_for(tmp_path, group_rows):
    paths = []
    for file in range(2):
        column = pa.array([f"{file}:{row}".encode() for row in range(100)])
        paths.append(str(tmp_path / f"{file}.parquet"))
        pq.write_table(pa.table({"image": column}), paths[-1], row_group_size=group_rows)
    wanted = [(0, row) for row in range(37, 100)] + [(1, row) for row in range(41)]
    files, rows = map(list, zip(*wanted, strict=True))
    assert read_embedded(paths, files, rows, "image") == [f"{file}:{row}".encode() for file, row in wanted]
    mixed = [4, 99, 0, 3, 3]
    assert read_embedded(paths, [1, 0, 0, 1, 1], mixed, "image") == [b"1:4", b"0:99", b"0:0", b"1:3", b"1:3"]
