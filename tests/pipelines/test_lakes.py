"""Tables of versions, written by their own libraries: what was deleted is gone, and a job stays with its version."""

from __future__ import annotations

import base64
import json
import string
import struct
import sys
from datetime import date, timedelta
from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import LongType
from pyiceberg.utils.config import Config
from pyroaring import BitMap

from pipelines.folder import JobFolder
from pipelines.freeze import check_same_input, freeze
from pipelines.frozen import read_table, sources_name
from pipelines.lakes import is_still_there
from pipelines.model import ChosenModel
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.method.plan import SkipConfig
from tests.pipelines.inputs import images, opened, rows

TABLE = pa.table({"image": [b"%d" % n for n in range(6)], "n": range(6)})


def test_a_lance_table_is_read_without_its_deleted_rows(tmp_path):
    lance.write_dataset(TABLE, tmp_path / "set.lance", max_rows_per_file=4)
    lance.dataset(tmp_path / "set.lance").delete("n = 2")
    table = opened(tmp_path / "set.lance")
    assert [row["n"] for row in rows(table)] == [0, 1, 3, 4, 5]
    assert images(table) == [b"0", b"1", b"3", b"4", b"5"]
    assert (table.source.version.name, table.schema.names) == ("version 2", ["n"])


def test_a_lance_table_is_read_at_the_version_that_was_found(tmp_path):
    lance.write_dataset(TABLE, tmp_path / "set.lance")
    table = opened(tmp_path / "set.lance")
    lance.dataset(tmp_path / "set.lance").delete("n < 3")
    assert images(table) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    [file] = table.source.files
    assert is_still_there(file.path)
    lance.dataset(tmp_path / "set.lance").cleanup_old_versions(older_than=timedelta(0))
    assert not is_still_there(file.path)


def test_a_lance_table_of_nothing_but_images_has_rows_too(tmp_path):
    lance.write_dataset(TABLE.select(["image"]), tmp_path / "set.lance")
    assert images(opened(tmp_path / "set.lance")) == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_lance_table_in_a_store_is_read_too(s3):
    lance.write_dataset(TABLE, f"{s3}/set.lance")
    assert images(opened(f"{s3}/set.lance")) == [b"0", b"1", b"2", b"3", b"4", b"5"]


def test_a_delta_table_is_read_with_what_it_is_parted_by(tmp_path):
    parts = TABLE.append_column("part", pa.array(["a b/ü%", "b"] * 3))
    parts = parts.append_column("day", pa.array([date(2026, 1, 1), None, date(2026, 1, 3)] * 2))
    write_deltalake(tmp_path / "a set", parts, partition_by=["part", "day"])
    table = opened(tmp_path / "a set")
    found = sorted(rows(table), key=lambda row: row["n"])
    assert [{name: row[name] for name in ("n", "part", "day")} for row in found] == parts.drop(["image"]).to_pylist()
    assert sorted(images(table)) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert [row["n"] for row in rows(table)] == [row["n"] for row in rows(opened(tmp_path / "a set"))]


def test_what_was_deleted_from_a_delta_table_or_written_over_is_gone(tmp_path):
    write_deltalake(tmp_path, TABLE)
    DeltaTable(tmp_path).delete("n = 2")
    write_deltalake(tmp_path, TABLE.slice(0, 1), mode="append")
    assert sorted(images(opened(tmp_path))) == [b"0", b"0", b"1", b"3", b"4", b"5"]


def test_rows_of_a_delta_table_that_a_vector_deletes_are_gone(tmp_path):
    write_deltalake(tmp_path, TABLE)
    log = tmp_path / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020d}.json").read_text().splitlines()]
    [add] = [action["add"] for action in actions if "add" in action]
    bits = struct.pack("<iqi", 1681511377, 1, 0) + BitMap([1, 4]).serialize()
    vector = {"storageType": "i", "pathOrInlineDv": z85(bits), "sizeInBytes": len(bits), "cardinality": 2}
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    new = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7} | features},
        {"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}},
        {"add": add | {"deletionVector": vector}},
    ]
    (log / f"{1:020d}.json").write_text("\n".join(map(json.dumps, new)))
    table = opened(tmp_path)
    assert [row["n"] for row in rows(table)] == [0, 2, 3, 5]
    assert images(table) == [b"0", b"2", b"3", b"5"]


def z85(content: bytes) -> str:
    """As ZeroMQ writes bytes in text; Python knows the same with other letters."""
    python = "".join([string.digits, string.ascii_uppercase, string.ascii_lowercase, "!#$%&()*+-;<=>?@^_`{|}~"])
    zeromq = "".join([string.digits, string.ascii_lowercase, string.ascii_uppercase, ".-:+=^!/*?&<>()[]{}@%$#"])
    return base64.b85encode(content, pad=True).decode().translate(str.maketrans(python, zeromq))


def test_a_delta_table_in_a_store_is_read_too(s3):
    write_deltalake(f"{s3}/delta", TABLE, storage_options={"AWS_ALLOW_HTTP": "true"})
    table = opened(f"{s3}/delta/")
    assert images(table) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert table.source.root == f"{s3}/delta"


@pytest.mark.parametrize("path", ["../other.parquet", "file:///etc/hostname", "/etc/hostname"])
def test_a_delta_table_that_lists_files_elsewhere_is_refused(tmp_path, path):
    write_deltalake(tmp_path / "set", TABLE)
    log = tmp_path / "set/_delta_log" / f"{0:020d}.json"
    [name] = [path.name for path in (tmp_path / "set").glob("*.parquet")]
    log.write_text(log.read_text().replace(name, path))
    with pytest.raises(ConfigError, match=r"cannot be read|outside of it"):
        opened(tmp_path / "set")


def test_a_job_goes_on_with_the_version_that_it_began_with(tmp_path):
    write_deltalake(tmp_path / "set", TABLE)
    config = JobConfig(input=str(tmp_path / "set"), output=str(tmp_path / "out"))
    model = ChosenModel(location="m", name="m", skip=SkipConfig(), identity={})
    folder = JobFolder(config.output)
    plan = freeze(open_table(find_source(config.input), config), config, model, folder)
    DeltaTable(tmp_path / "set").delete()
    write_deltalake(tmp_path / "set", TABLE, mode="append")
    check_same_input(plan, find_source(config.input), folder)

    [path] = read_table(folder, sources_name(plan.input_id)).column("path").to_pylist()
    Path(path).unlink()
    with pytest.raises(ConfigError, match=r"1 gone"):
        check_same_input(plan, find_source(config.input), folder)


@pytest.fixture
def catalog(tmp_path) -> SqlCatalog:
    catalog = SqlCatalog("here", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
    catalog.create_namespace("pictures")
    return catalog


def test_an_iceberg_table_is_read_by_its_metadata_its_folder_or_its_catalog(tmp_path, catalog, monkeypatch):
    table = catalog.create_table("pictures.cats", schema=TABLE.schema)
    table.append(TABLE)
    table.append(TABLE.slice(0, 1))
    table.delete("n == 2")
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__HERE__WAREHOUSE", f"file://{tmp_path}/warehouse")
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # it reads the environment when it is imported
    metadata = table.metadata_location.removeprefix("file://")
    for place in (metadata, tmp_path / "warehouse/pictures/cats", "iceberg://here/pictures.cats"):
        found = opened(place)
        assert sorted(row["n"] for row in rows(found)) == [0, 0, 1, 3, 4, 5]
        assert sorted(images(found)) == [b"0", b"0", b"1", b"3", b"4", b"5"]
        assert found.source.version.name == f"snapshot {table.current_snapshot().snapshot_id}"


def test_a_file_of_an_iceberg_table_may_lack_what_it_is_parted_by(catalog):
    parts = TABLE.append_column("part", pa.array(["a", "b", None] * 2)).append_column("day", [[date(2026, 1, 1)] * 6])
    table = catalog.create_table("pictures.cats", schema=parts.schema)
    with table.update_spec() as update:
        update.add_identity("part")
        update.add_identity("day")
    table.append(parts)
    for task in table.scan().plan_files():
        path = task.file.file_path.removeprefix("file://")
        pq.write_table(pq.read_table(path, partitioning=None).drop(["part", "day"]), path)
    found = sorted(rows(opened(table.metadata_location.removeprefix("file://"))), key=lambda row: row["n"])
    assert [{name: row[name] for name in ("n", "part", "day")} for row in found] == parts.drop(["image"]).to_pylist()


def test_a_column_that_an_iceberg_table_has_no_more_is_not_read(catalog):
    table = catalog.create_table("pictures.cats", schema=TABLE.append_column("secret", pa.array(["x"] * 6)).schema)
    table.append(TABLE.append_column("secret", pa.array(["x"] * 6)))
    with table.update_schema() as update:
        update.delete_column("secret")
        update.add_column("later", LongType())
    found = opened(table.metadata_location.removeprefix("file://"))
    assert found.schema.names == ["n", "later"]
    assert [row["later"] for row in rows(found)] == [None] * 6
    with table.update_schema() as update:
        update.rename_column("n", "m")
    with pytest.raises(ConfigError, match="column 'm' was renamed"):
        opened(table.metadata_location.removeprefix("file://"))


class DeletesWriter(ManifestWriterV2):
    """Lists delete files; the library itself writes none."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return super()._meta | {"content": "deletes"}


def with_deletes(table: Table, content: DataFileContent, deletes: pa.Table) -> Path:
    """The metadata of the table's newest version, with one more file, which deletes rows."""
    snapshot, folder = table.current_snapshot(), Path(table.location().removeprefix("file://"))
    pq.write_table(deletes, folder / "data/deletes.parquet")
    bounds = {name: {} for name in ("column_sizes", "value_counts", "null_value_counts", "nan_value_counts")}
    bounds |= {"lower_bounds": {}, "upper_bounds": {}, "equality_ids": [2]}
    file = DataFile.from_args(
        content=content, file_path=f"file://{folder}/data/deletes.parquet", file_format=FileFormat.PARQUET,
        partition=Record(), record_count=len(deletes), file_size_in_bytes=1, **bounds,
    )  # fmt: skip
    output = table.io.new_output(f"file://{folder}/metadata/deletes.avro")
    with DeletesWriter(table.spec(), table.schema(), output, snapshot.snapshot_id, "null") as writer:
        writer.add(ManifestEntry.from_args(sequence_number=snapshot.sequence_number, data_file=file))
    listed = table.io.new_output(f"file://{folder}/metadata/more.avro")
    with write_manifest_list(2, listed, snapshot.snapshot_id, None, snapshot.sequence_number, "null") as manifests:
        manifests.add_manifests([*snapshot.manifests(table.io), writer.to_manifest_file()])
    metadata = Path(table.metadata_location.removeprefix("file://"))
    more = metadata.with_name("99999-more.metadata.json")
    more.write_text(metadata.read_text().replace(snapshot.manifest_list, listed.location))
    return more


def test_rows_of_an_iceberg_table_that_a_file_deletes_are_gone(catalog):
    table = catalog.create_table("pictures.cats", schema=TABLE.schema)
    table.append(TABLE)
    [task] = table.scan().plan_files()
    paths = [task.file.file_path, task.file.file_path, task.file.file_path.replace("00000", "other")]
    deletes = pa.table({"file_path": paths, "pos": pa.array([1, 4, 0], pa.int64())})
    found = opened(with_deletes(table, DataFileContent.POSITION_DELETES, deletes))
    assert [row["n"] for row in rows(found)] == [0, 2, 3, 5]
    assert images(found) == [b"0", b"2", b"3", b"5"]


def test_a_way_to_delete_that_is_not_read_is_refused(catalog):
    table = catalog.create_table("pictures.cats", schema=TABLE.schema)
    table.append(TABLE)
    with pytest.raises(ConfigError, match=r"cannot be read as an Iceberg table|deletes rows in a way"):
        opened(with_deletes(table, DataFileContent.EQUALITY_DELETES, pa.table({"n": [1]})))


def test_an_iceberg_table_that_lists_files_elsewhere_is_refused(tmp_path, catalog):
    table = catalog.create_table("pictures.cats", schema=TABLE.schema)
    table.append(TABLE)
    metadata = Path(table.metadata_location.removeprefix("file://"))
    metadata.write_text(metadata.read_text().replace(table.location() + '"', f'file://{tmp_path}/elsewhere"'))
    with pytest.raises(ConfigError, match="outside of it"):
        opened(metadata)


def test_without_a_catalog_the_newest_metadata_must_be_one(tmp_path, catalog):
    table = catalog.create_table("pictures.cats", schema=TABLE.schema)
    metadata = Path(table.metadata_location.removeprefix("file://"))
    metadata.with_name("00000-other.metadata.json").write_bytes(metadata.read_bytes())
    with pytest.raises(ConfigError, match="2 newest metadata files; name the one"):
        opened(tmp_path / "warehouse/pictures/cats")


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("a.lance/x", "lance", "lance"),
        ("a/_delta_log/x", "deltalake", "delta"),
        ("a/metadata/1.metadata.json", "pyiceberg", "iceberg"),
    ],
)
def test_a_table_whose_library_is_missing_is_refused_with_the_remedy(tmp_path, monkeypatch, name, library, extra):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"pip install 'skipvision\[{extra}\]'"):
        opened(tmp_path / name.split("/")[0])


@pytest.mark.parametrize("name", ["a.lance/x", "a/_delta_log/x", "a/metadata/1.metadata.json"])
def test_a_damaged_table_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read as a"):
        opened(tmp_path / name.split("/")[0])
