"""Exporting a job's rows to an object store: whole or not at all, and nothing else there touched."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import deltalake
import lance
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import from_url

from benchmarks.faults.stores import BUCKET
from pipelines.folder import JobFolder
from pipelines.layout import shard_name
from pipelines.results import FORMATS, export
from skipvision.errors import ConfigError, SkipVisionError
from tests.pipelines.committed_jobs import commit, planned_job

COLUMNS = pa.schema([("note", pa.string())])
NOTE = os.urandom(6 * 2**20).hex()
"""More than the store's writer holds back: a part of it is sent before the end of the file is known."""


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    """Two shards of two rows, one of which is large."""
    folder = planned_job(tmp_path, COLUMNS)
    commit(folder, 0, {"row_key": ["00", "01"], "note": [NOTE, None]}, COLUMNS)
    commit(folder, 1, {"row_key": ["10", "11"], "note": ["é", ""]}, COLUMNS)
    return folder


def objects(address: str) -> list[str]:
    return sorted(meta["path"] for page in obstore.list(from_url(address)) for meta in page)


def keys(to: str, output: str) -> list[str]:
    match to:
        case "lance":
            return lance.dataset(output).to_table(["row_key"])["row_key"].to_pylist()
        case "delta":
            return sorted(deltalake.DeltaTable(output).to_pyarrow_table(columns=["row_key"])["row_key"].to_pylist())
    folder, _, name = output.rpartition("/")
    content = bytes(obstore.get(from_url(folder), name).bytes())
    if to == "parquet":
        return pq.read_table(pa.BufferReader(content))["row_key"].to_pylist()
    return [line[-100:] for line in content.decode().splitlines()]


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_can_be_written_to_a_store_and_written_again(s3: str, job: JobFolder, to: str) -> None:
    output = f"{s3}/whole/{to}/rows.{to}"
    for _ in range(2):
        assert export(job.address, to, output=output).rows == 4
    header = 1 if to == "csv" else 0
    assert len(keys(to, output)) == 4 + header
    if to in ("lance", "parquet"):
        assert keys(to, output) == ["00", "01", "10", "11"]


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_that_fails_leaves_what_was_there(s3: str, job: JobFolder, to: str) -> None:
    output = f"{s3}/failing/{to}/rows.{to}"
    export(job.address, to, output=output)
    before = keys(to, output)
    (job.path / shard_name(1)).write_bytes(b"not parquet")
    with pytest.raises(pa.ArrowInvalid):
        export(job.address, to, output=output)
    assert keys(to, output) == before
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
    uploads = client.list_multipart_uploads(Bucket=BUCKET.removeprefix("s3://")).get("Uploads", [])
    assert [upload["Key"] for upload in uploads if upload["Key"].startswith(f"failing/{to}/rows.{to}")] == []


@pytest.mark.parametrize("to", FORMATS)
def test_a_first_export_that_fails_is_not_taken_for_a_result(s3: str, job: JobFolder, to: str) -> None:
    output = f"{s3}/nothing/{to}/rows.{to}"
    (job.path / shard_name(1)).write_bytes(b"not parquet")
    with pytest.raises(pa.ArrowInvalid):
        export(job.address, to, output=output)
    with pytest.raises((FileNotFoundError, ValueError, deltalake.exceptions.TableNotFoundError)):
        keys(to, output)


@pytest.mark.parametrize("to", ["lance", "delta"])
def test_what_else_is_in_a_store_is_refused_and_kept(s3: str, job: JobFolder, to: str) -> None:
    store = from_url(f"{s3}/photos/{to}")
    obstore.put(store, "beach.jpg", b"sand")
    with pytest.raises(ConfigError, match="is left alone"):
        export(job.address, to, output=f"{s3}/photos/{to}")
    assert objects(f"{s3}/photos/{to}") == ["beach.jpg"]


def test_a_jobs_own_results_in_a_store_are_refused(s3: str, job: JobFolder) -> None:
    stored = JobFolder(f"{s3}/job")
    for name in job.names(""):
        stored.create(name, job.read(name))
    for output in (f"{s3}/job/data/rows.csv", f"{s3}/job/data"):
        with pytest.raises(ConfigError, match="among the job's own results"):
            export(stored.address, "csv", output=output)
    assert export(stored.address, "parquet", output=f"{s3}/beside.parquet").rows == 4


@pytest.mark.parametrize("output", ["s3://", "s3://jobs", "nowhere://x/rows.csv", "s3://no-such-bucket/rows.csv"])
def test_an_address_that_leads_nowhere_is_said_in_a_sentence(s3: str, job: JobFolder, output: str) -> None:
    with pytest.raises(SkipVisionError, match=r"^output "):
        export(job.address, "csv", output=output)
