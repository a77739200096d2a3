"""Parquet and Arrow files with types of other programs: Ray's hold pickles, and none of them is ever opened."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data  # its types are known to Arrow in this process, as they are in a job's  # noqa: F401

from pipelines.encoded import Source
from pipelines.location import Location
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.foreign_types import refuse_foreign_types
from skipvision.tuning.sources import ParquetRows

PICKLED, TENSOR = "ray.data.arrow_pickled_object", "ray.data.arrow_tensor"


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.canary), "w")


def called(field: pa.Field, name: str, parameters: bytes = b"") -> pa.Field:
    """A column of another program's type, without that program."""
    return field.with_metadata({"ARROW:extension:name": name, "ARROW:extension:metadata": parameters})


def write(path: Path, field: pa.Field, value: Any) -> Path:
    image = pa.array(["a.png"])
    table = pa.Table.from_arrays([image, pa.array([value], field.type)], schema=pa.schema([("image", "string"), field]))
    if path.suffix == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table)
    else:
        pq.write_table(table, path)
    return path


def pickled(path: Path, trap: bytes) -> Path:
    return write(path, called(pa.field("extra", pa.large_binary()), PICKLED), trap)


def pickled_inside(path: Path, trap: bytes) -> Path:
    part = called(pa.field("item", pa.large_binary()), PICKLED)
    return write(path, pa.field("extra", pa.struct([("deep", pa.list_(part))])), {"deep": [trap]})


def pickled_parameters(path: Path, trap: bytes) -> Path:
    return write(path, called(pa.field("extra", pa.list_(pa.int64())), TENSOR, trap), [1])


def pickled_by_old_arrow(path: Path, trap: bytes) -> Path:
    return write(path, called(pa.field("extra", pa.int64()), "arrow.py_extension_type", trap), 1)


HOSTILE = [pickled, pickled_inside, pickled_parameters, pickled_by_old_arrow]
Maker = Callable[[Path, bytes], Path]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def test_the_trap_is_one(tmp_path, canary):
    pq.read_table(pickled(tmp_path / "rows.parquet", pickle.dumps(Trap(canary)))).to_pylist()
    assert canary.exists()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
@pytest.mark.parametrize("make", HOSTILE)
def test_a_job_refuses_such_a_file_without_opening_it(tmp_path, canary, monkeypatch, make: Maker, name):
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "1")  # what an operator may have set
    path = make(tmp_path / name, pickle.dumps(Trap(canary)))
    with pytest.raises(ConfigError, match="another program's"):
        open_table(find_source(str(path)), JobConfig(model="m", input=str(path), output="o"))
    assert not canary.exists()


@pytest.mark.parametrize("make", [pickled, pickled_inside])
def test_a_lance_table_of_such_columns_is_refused_before_a_value_is_looked_at(tmp_path, canary, make: Maker):
    table = pq.read_table(make(tmp_path / "rows.parquet", pickle.dumps(Trap(canary))))
    lance.write_dataset(table, tmp_path / "rows.lance")
    with pytest.raises(ConfigError, match="another program's"):
        find_source(str(tmp_path / "rows.lance"))
    assert not canary.exists()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_file_that_was_exchanged_after_the_input_was_frozen_is_refused_too(tmp_path, canary, name):
    path = pickled(tmp_path / name, pickle.dumps(Trap(canary)))
    with pytest.raises(ConfigError, match="another program's"):
        Source([str(path)], "extra", policy=None).read([Location(file=0, row=0)])
    assert not canary.exists()


@pytest.mark.parametrize("make", HOSTILE)
def test_training_refuses_such_a_file_without_opening_it(tmp_path, canary, monkeypatch, make: Maker):
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "1")
    with pytest.raises(ConfigError, match="another program's"):
        ParquetRows(make(tmp_path / "rows.parquet", pickle.dumps(Trap(canary))))
    assert not canary.exists()


def refused(path: Path) -> None:
    with path.open("rb") as file:
        refuse_foreign_types(file, path)


def test_arrows_own_types_and_plain_ones_pass(tmp_path):
    tensors = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
    )
    plain = {"names": pa.array(["a"]).dictionary_encode(), "boxes": [[{"of": b"x"}]], "none": pa.nulls(1)}
    table = pa.table({"id": pa.array([uuid.uuid4().bytes], pa.uuid()), "tensor": tensors, **plain})
    pq.write_table(table, tmp_path / "rows.parquet")
    refused(tmp_path / "rows.parquet")


def test_a_second_description_that_could_hide_the_first_is_refused(tmp_path):
    table = pa.table({"image": ["a.png"]}).replace_schema_metadata({"ARROW:schema": "hidden"})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match="more than once"):
        refused(tmp_path / "rows.parquet")


def test_a_description_that_cannot_be_read_is_refused(tmp_path):
    pq.write_table(pa.table({"image": ["a.png"]}), tmp_path / "rows.parquet")
    content = (tmp_path / "rows.parquet").read_bytes()
    at = content.index(b"ARROW:schema") + 40
    (tmp_path / "rows.parquet").write_bytes(content[:at] + b"!!!!" + content[at + 4 :])
    with pytest.raises(ConfigError, match="does not describe its columns"):
        refused(tmp_path / "rows.parquet")
