"""The job folder's one promise: a name is created once, whole, however many try and whenever they die."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import MemoryStore

from pipelines.folder import STAGING, JobFolder
from pipelines.layout import DATA
from skipvision.errors import ConfigError


@pytest.fixture(params=["disk", "object store"])
def folder(request, tmp_path) -> JobFolder:
    if request.param == "disk":
        return JobFolder(str(tmp_path / "a job"))
    return JobFolder("memory:///", store=MemoryStore())


def test_the_first_to_create_a_file_wins(folder):
    assert folder.create("data/x", b"first")
    assert not folder.create("data/x", b"second")
    assert folder.read("data/x") == b"first"


def test_of_many_at_once_exactly_one_wins(folder):
    with ThreadPoolExecutor(16) as writers:
        won = list(writers.map(lambda n: folder.create("data/x", b"%d" % n * 100_000), range(16)))
    assert won.count(True) == 1
    assert folder.read("data/x") == b"%d" % won.index(True) * 100_000
    assert folder.names(DATA) == ["data/x"]


def test_what_may_change_is_replaced_whole(folder):
    folder.replace("report.json", b"old")
    folder.replace("report.json", b"new")
    assert folder.read("report.json") == b"new"


def test_parts_of_a_file_can_be_read(folder):
    table = pa.table({"n": range(1000)})
    pq.write_table(table, sink := pa.BufferOutputStream(), row_group_size=100)
    folder.create("data/x.parquet", bytes(sink.getvalue()))
    with folder.open_reader("data/x.parquet") as file:
        assert pq.ParquetFile(file).read_row_group(3).equals(table.slice(300, 100))


def test_what_is_not_there_reads_as_none(folder):
    assert folder.read("plan.json") is None
    with pytest.raises(FileNotFoundError):
        folder.open_reader("plan.json")
    assert folder.names(DATA) == []


def test_nothing_unfinished_ever_stands_under_data(tmp_path, monkeypatch):
    folder = JobFolder(str(tmp_path))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(obstore, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.create("data/shard-00000.parquet", b"half")
    assert folder.names(DATA) == []
    assert len(os.listdir(tmp_path / STAGING)) == 1

    folder.remove_unfinished()
    assert os.listdir(tmp_path / STAGING) == []


def test_a_file_swept_away_by_another_attempt_is_staged_again(tmp_path, monkeypatch):
    folder, rename, seen = JobFolder(str(tmp_path)), obstore.rename, []

    def swept_once(store, staged, name, **options):
        seen.append(staged)
        if len(seen) == 1:
            JobFolder(str(tmp_path)).remove_unfinished()
        rename(store, staged, name, **options)

    monkeypatch.setattr(obstore, "rename", swept_once)
    assert folder.create("data/x", b"content")
    assert (len(seen), folder.read("data/x")) == (2, b"content")


@pytest.mark.parametrize("address", ["/proc/nothing/here", "{file}/below", "s3://", "nowhere://bucket/folder"])
def test_an_output_that_cannot_be_written_is_refused(tmp_path, address):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        JobFolder.open(address.format(file=tmp_path / "file"))


def test_a_store_without_conditional_create_is_refused(monkeypatch):
    folder, put = JobFolder("memory:///", store=MemoryStore()), obstore.put
    monkeypatch.setattr(obstore, "put", lambda store, name, content, **_: put(store, name, content))
    monkeypatch.setattr(JobFolder, "__init__", lambda self, address: self.__dict__.update(folder.__dict__))
    with pytest.raises(ConfigError, match="without conditional create"):
        JobFolder.open("memory:///")


def test_a_store_that_loses_the_answer_to_the_probe_is_not_refused(tmp_path, monkeypatch):
    put_new = JobFolder._put_new
    # The client tries again by itself, and finds its own file there.
    monkeypatch.setattr(JobFolder, "_put_new", lambda *what: put_new(*what) and put_new(*what))
    assert JobFolder.open(str(tmp_path / "job")).names(DATA) == []
