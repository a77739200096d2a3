"""Dataset folders as Hugging Face's own library writes them, read without it."""

from __future__ import annotations

import io
import json

import datasets
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from obstore.store import from_url

from skipvision.errors import ConfigError
from tests.pipelines.inputs import images, opened, rows

CONTENT = [b"0", b"1", None, b"3", b"4"]


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def dataset() -> Dataset:
    images = [{"bytes": each, "path": None} if each else None for each in CONTENT]
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"]), "words": [Value("string")]})
    return Dataset.from_dict({"image": images, "label": [0, 1, 0, 1, 0], "words": [["a"]] * 5}, features=features)


def test_what_was_saved_to_a_disk_is_read_from_where_it_stands(tmp_path):
    dataset().save_to_disk(tmp_path / "set", num_shards=2)
    (tmp_path / "set" / "cache-123.arrow").write_bytes(b"left behind by a map")
    table = opened(tmp_path / "set")
    assert [(row["label"], row["words"]) for row in rows(table)] == [(n % 2, ["a"]) for n in range(5)]
    assert images(table) == [b"0", b"1", "image_missing", b"3", b"4"]
    assert (len(table.source.files), table.carries_images) == (2, False)
    assert table.source.others == ("cache-123.arrow", "dataset_info.json", "state.json")


def test_a_dataset_of_nothing_but_images_has_rows_too(tmp_path):
    dataset().select_columns("image").save_to_disk(tmp_path / "set")
    assert images(opened(tmp_path / "set")) == [b"0", b"1", "image_missing", b"3", b"4"]


def test_what_was_chosen_before_it_was_saved_is_all_that_is_read(tmp_path):
    dataset().select([3, 0]).save_to_disk(tmp_path / "set")
    assert images(opened(tmp_path / "set")) == [b"3", b"0"]


def test_what_was_saved_in_a_store_carries_its_images(tmp_path, s3):
    dataset().save_to_disk(tmp_path / "set")
    for path in (tmp_path / "set").iterdir():
        obstore.put(from_url(s3), f"set/{path.name}", path.read_bytes())
    table = opened(f"{s3}/set")
    assert table.carries_images
    assert images(table) == [b"0", b"1", "image_missing", b"3", b"4"]


def test_one_split_of_several_is_to_be_named(tmp_path):
    DatasetDict({"train": dataset(), "test": dataset()}).save_to_disk(tmp_path / "set")
    with pytest.raises(ConfigError, match=r"several splits; name one: test, train, as in .*set/train"):
        opened(tmp_path / "set")
    assert len(rows(opened(tmp_path / "set" / "train"))) == 5


@pytest.mark.parametrize(
    "state", ["{oops", "[]", "{}", '{"_data_files": []}', '{"_data_files": [{"filename": "../x"}]}']
)
def test_a_saved_dataset_that_names_other_files_is_refused(tmp_path, state):
    dataset().save_to_disk(tmp_path / "set")
    (tmp_path / "set" / "state.json").write_text(state)
    with pytest.raises(ConfigError, match=r"is damaged: its state\.json"):
        opened(tmp_path / "set")


def arrow(table: pa.Table) -> bytes:
    with pa.ipc.new_stream(sink := io.BytesIO(), table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def offsets(*numbers: int) -> bytes:
    return pa.array(numbers, pa.int32()).buffers()[1].to_pybytes()[: 4 * len(numbers)]


SOUND = arrow(pa.table({"image": [b"x" * 100] * 3, "name": ["y" * 50] * 3}))


@pytest.mark.parametrize(
    "content",
    [b"", b"no table", SOUND[:40], SOUND[:-400], SOUND.replace(offsets(0, 50, 100, 150), offsets(0, 50, 2**30, 150))],
)
def test_a_damaged_arrow_file_is_refused(tmp_path, content):
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.arrow cannot be read"):
        rows(opened(tmp_path / "a.arrow"))


def test_images_that_a_damaged_file_does_not_give_are_errors_of_their_rows(tmp_path):
    (tmp_path / "a.arrow").write_bytes(SOUND.replace(offsets(0, 100, 200, 300), offsets(0, 100, 2**30, 300)))
    assert images(opened(tmp_path / "a.arrow")) == ["image_unreadable"] * 3


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_table_beside_images_says_what_is_asked_about_them(tmp_path, kind):
    for name in ("train/a.jpg", "train/deep/b.jpg", "train/not named.jpg", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    lines = [
        {"file_name": "deep/b.jpg", "text": "b", "url": "https://example.org"},
        {"file_name": "a.jpg", "text": "a"},
    ]
    table = pa.Table.from_pylist(lines)
    match kind:
        case "jsonl":
            (tmp_path / "train/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        case "csv":
            pa.csv.write_csv(table, tmp_path / "train/metadata.csv")
        case "parquet":
            pq.write_table(table, tmp_path / "train/metadata.parquet")
    found = opened(tmp_path)
    assert [row["text"] for row in rows(found)] == ["b", "a"]
    assert images(found) == [tmp_path / "train/deep/b.jpg", tmp_path / "train/a.jpg"]
    assert found.source.others == ("README.md",)


def test_a_folder_as_it_stands_on_the_hub_is_parquet(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("README.md", ".gitattributes", "data/.train-00000.parquet"):
        (tmp_path / name).write_text("not read")
    for part in range(2):
        dataset().shard(2, part).to_parquet(tmp_path / f"data/train-{part:05d}-of-00002.parquet")
    table = opened(tmp_path)
    assert (table.source.kind, images(table)) == ("parquet", [b"0", b"1", "image_missing", b"3", b"4"])
    assert table.source.others == (".gitattributes", "README.md", "data/.train-00000.parquet")
