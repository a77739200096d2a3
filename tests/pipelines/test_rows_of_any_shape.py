"""Rows of any shape keep their values: from JSONL into a job's table, and out of a job through every export."""

from __future__ import annotations

import datetime
import json
import math
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import lance
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.results import FORMATS, export
from pipelines.text_files import jsonl_schema, read_jsonl
from tests.pipelines.committed_jobs import commit, planned_job

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTS = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text("abcdefghij_ éß", min_size=1, max_size=8).filter(lambda name: name == name.strip("_ "))
DECIMALS = st.integers(-(10**18), 10**18).map(lambda n: Decimal(n).scaleb(-4))
MOMENTS = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))

LEAVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXTS),
    (pa.int64(), INTS),
    (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    (pa.bool_(), st.booleans()),
    (pa.binary(), st.binary(max_size=8)),
    (pa.decimal128(30, 4), DECIMALS),
    (pa.timestamp("us"), MOMENTS),
    (pa.date32(), st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 1, 1))),
]


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    """An Arrow type and values of it, nulls among them."""
    shape = draw(st.sampled_from(["leaf", "leaf", "list", "struct"])) if depth else "leaf"
    if shape == "leaf":
        kind, values = draw(st.sampled_from(LEAVES))
    elif shape == "list":
        inner, each = draw(kinds(depth - 1))
        kind, values = pa.list_(inner), st.lists(each, max_size=3)
    else:
        parts = {name: draw(kinds(depth - 1)) for name in draw(st.sets(st.sampled_from("abc"), min_size=1))}
        kind = pa.struct([(name, part) for name, (part, _) in parts.items()])
        values = st.fixed_dictionaries({name: each for name, (_, each) in parts.items()})
    return kind, st.none() | values


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Up to four columns and six rows."""
    names = draw(st.lists(NAMES, max_size=4, unique_by=lambda name: name.lower()))
    rows = draw(st.integers(0, 6))
    columns = {}
    for name in names:
        kind, values = draw(kinds())
        columns[name] = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind)
    keys = pa.array([f"key {row}" for row in range(rows)], pa.string())
    return pa.table({**columns, "row_key": keys})


def read(to: str, output: str) -> pa.Table:
    match to:
        case "parquet":
            return pq.read_table(output)
        case "lance":
            return lance.dataset(output).to_table()
        case "delta":
            return deltalake.DeltaTable(output).to_pyarrow_table().sort_by("row_key")
    raise AssertionError(to)


@pytest.mark.parametrize("to", ["parquet", "lance", "delta"])
def test_every_table_of_a_job_comes_back_from_an_export_with_its_values(to):
    @settings(max_examples=15, deadline=None, database=None)
    @given(tables())
    def try_it(table):
        with tempfile.TemporaryDirectory() as folder:
            assert read(to, exported(folder, table, to)).select(table.column_names).to_pylist() == table.to_pylist()

    try_it()


def test_every_table_of_a_job_comes_back_from_json_lines_with_its_keys_and_counts():
    @settings(max_examples=25, deadline=None, database=None)
    @given(tables())
    def try_it(table):
        with tempfile.TemporaryDirectory() as folder:
            lines = Path(exported(folder, table, "jsonl")).read_text(encoding="utf-8").split("\n")[:-1]
            rows = [json.loads(line) for line in lines]
            assert [row["row_key"] for row in rows] == table["row_key"].to_pylist()
            for name in table.column_names:
                same_in_json = pa.types.is_string(table[name].type) or pa.types.is_integer(table[name].type)
                nulls = [row[name] is None for row in rows]
                assert nulls == table[name].is_null().to_pylist()
                if same_in_json:
                    assert [row[name] for row in rows] == table[name].to_pylist()

    try_it()


def test_every_table_of_a_job_comes_back_from_csv_with_its_texts():
    @settings(max_examples=25, deadline=None, database=None)
    @given(tables())
    def try_it(table):
        with tempfile.TemporaryDirectory() as folder:
            output = exported(folder, table, "csv")
            as_text = dict.fromkeys(table.column_names, pa.string())
            back = pyarrow.csv.read_csv(
                output,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(column_types=as_text, strings_can_be_null=False),
            )
            assert back["row_key"].to_pylist() == table["row_key"].to_pylist()
            for name in table.column_names:
                if pa.types.is_string(table[name].type):
                    assert back[name].to_pylist() == [value or "" for value in table[name].to_pylist()]

    try_it()


def exported(folder: str, table: pa.Table, to: str) -> str:
    """A job's rows, of two shards, in one format."""
    assert to in FORMATS
    columns = table.schema.remove(table.schema.get_field_index("row_key"))
    job = planned_job(Path(folder), columns)
    for shard, part in enumerate((table.slice(0, 2), table.slice(2))):
        commit(job, shard, {name: part[name].combine_chunks() for name in part.column_names}, columns)
    export(job.address, to, output=f"{folder}/rows")
    return f"{folder}/rows"


JSON_VALUES: list[st.SearchStrategy[Any]] = [
    TEXTS,
    INTS,
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(INTS, max_size=3),
    st.fixed_dictionaries({"a": st.none() | TEXTS, "b": st.lists(TEXTS, max_size=2)}),
]


@st.composite
def json_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows whose columns each hold one kind of value, or none, and may be missing."""
    columns = {name: draw(st.sampled_from(JSON_VALUES)) for name in draw(st.sets(NAMES, min_size=1, max_size=4))}
    row = st.fixed_dictionaries({}, optional={name: st.none() | values for name, values in columns.items()})
    return [*draw(st.lists(row, max_size=8)), dict.fromkeys(columns)]


@settings(max_examples=60, deadline=None, database=None)
@given(json_rows())
def test_json_lines_are_read_as_they_were_written(rows):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        schema = jsonl_schema(open(file.name, "rb"), file.name)  # noqa: SIM115 - it closes what it has read
        tables = read_jsonl(open(file.name, "rb"), schema, file.name)  # noqa: SIM115
        back = [row for table in tables for row in table.to_pylist()]
    for row, found in zip(rows, back, strict=True):
        assert found.keys() == set(schema.names)
        assert all(same(found[name], row.get(name)) for name in schema.names)


def same(found: Any, value: Any) -> bool:
    """Equal, where a number may have become a float because another row holds one."""
    return math.isclose(found, value, rel_tol=1e-15) if isinstance(found, float) else found == value
