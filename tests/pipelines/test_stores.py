"""Inputs in an object store and behind web addresses, against a server that speaks S3 and one that speaks HTTP."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import from_url

import pipelines.stores
from benchmarks.faults.stores import BUCKET, environment, s3_server
from pipelines.encoded import Source as Images
from pipelines.location import IMAGES, Location
from pipelines.sources import find_source, is_gone
from pipelines.tables import InputTable, open_table
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError, InputError, StorageError
from skipvision.images import ImageLimits

LOCAL = "127.0.0.0/8"


@pytest.fixture
def put(s3) -> Iterator[Callable[[str, bytes], str]]:
    """Put an object into an empty bucket, and return its address."""
    store = from_url(s3)
    obstore.delete(store, [meta["path"] for page in obstore.list(store) for meta in page])

    def put(key: str, content: bytes) -> str:
        obstore.put(store, key, content)
        return f"{s3}/{key}"

    return put


def opened(address: str, **settings: Any) -> InputTable:
    return open_table(find_source(address), JobConfig(input=address, output="unused", **settings))


def places(table: InputTable) -> list[Location]:
    return [Location.of(place) for row in rows(table) for place in row[IMAGES]]


def rows(table: InputTable) -> list[dict]:
    return pa.concat_tables(table.thin_tables()).to_pylist()


def images(table: InputTable) -> list[bytes | Path | str]:
    """What a preparing task makes of the places of a table: bytes, a path, or the code of an error."""
    column = table.image_column if table.image_kind == "embedded" else None
    found = Images([file.path for file in table.source.files], column, policy=None).read(places(table))
    return [image.code if isinstance(image, InputError) else image for image in found]


def parquet(table: pa.Table, **options: Any) -> bytes:
    pq.write_table(table, sink := io.BytesIO(), **options)
    return sink.getvalue()


def jsonl(*references: str) -> bytes:
    return "".join(json.dumps({"image": reference}) + "\n" for reference in references).encode()


def test_a_folder_in_a_store_is_searched_through_all_its_folders(put, s3):
    for key in ("photos/b.PNG", "photos/deep/a b.jpg", "photos/ü%20#.jpg", "photos/notes.txt", "photos2/c.jpg"):
        put(key, key.encode())
    table = opened(f"{s3}/photos/")
    assert (table.source.kind, table.source.others) == ("images", ("notes.txt",))
    assert [row["path"] for row in rows(table)] == ["b.PNG", "deep/a b.jpg", "ü%20#.jpg"]
    assert images(table) == [b"photos/b.PNG", b"photos/deep/a b.jpg", "photos/ü%20#.jpg".encode()]
    assert find_source(f"{s3}/photos").names == table.source.names


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["0.jpg"]),
        ("x/?.jpg", ["x/1.jpg", "x/2.jpg"]),
        ("x/[!1]*.jpg", ["x/2.jpg"]),
        ("**/*.jpg", ["0.jpg", "x/1.jpg", "x/2.jpg", "x/y/3.jpg"]),
        ("x/**", ["x/1.jpg", "x/2.jpg", "x/y/3.jpg"]),
    ],
)
def test_a_pattern_means_in_a_store_what_it_means_on_a_disk(put, s3, tmp_path, monkeypatch, pattern, names):
    for name in ("0.jpg", "x/1.jpg", "x/2.jpg", "x/y/3.jpg", "x/.hidden.jpg"):
        put(name, b"")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [name.removeprefix(f"{s3}/") for name in find_source(f"{s3}/{pattern}").names] == names
    assert list(find_source(pattern).names) == names


def test_an_object_whose_name_looks_like_a_pattern_is_that_object(put):
    put("set1.jsonl", b"{}")
    assert len(find_source(put("set[1].jsonl", b"{}")).files) == 1


def test_embedded_images_are_read_out_of_a_stored_table(put):
    content = [b"0", b"1", None, b"3"]
    for kind in (pa.array(content), pa.array([{"bytes": each, "path": None} for each in content])):
        table = opened(put("set/a.parquet", parquet(pa.table({"image": kind, "n": range(4)}), row_group_size=2)))
        assert [(row["n"], row[IMAGES][0]["row"]) for row in rows(table)] == [(n, n) for n in range(4)]
        assert images(table) == [b"0", b"1", "image_missing", b"3"]


def test_csv_and_jsonl_are_read_from_a_store(put):
    put("set/a.jpg", b"picture")
    assert images(opened(put("set/a.csv", b"path,id\na.jpg,007\n"))) == [b"picture"]
    assert images(opened(put("set/a.jsonl", jsonl("a.jpg", "b.jpg")))) == [b"picture", "image_missing"]


@pytest.mark.parametrize(
    ("reference", "leads_to"),
    [
        ("a.jpg", "jobs/in/tables/a.jpg"),
        ("./x/../a.jpg", "jobs/in/tables/a.jpg"),
        ("../photos/a.jpg", "jobs/in/photos/a.jpg"),
        ("s3://jobs/in/b.jpg", "jobs/in/b.jpg"),
        ("s3://shared/photos/c.jpg", "shared/photos/c.jpg"),
        ("s3://shared/photos/../secret.jpg", None),
        ("s3://shared/photos2/c.jpg", None),
        ("s3://shared/photos", None),
        ("../../secret.jpg", None),
        ("../../../../secret.jpg", None),
        ("s3://jobs/in/../secret.jpg", None),
        ("s3://other/c.jpg", None),
        ("gs://shared/photos/c.jpg", None),
        ("s3://key:secret@shared/photos/c.jpg", None),
        ("s3://", None),
        ("/etc/hostname", None),
    ],
)
def test_rows_may_point_into_the_inputs_own_folder_and_what_was_opened(put, s3, reference, leads_to):
    put("in/tables/a.jsonl", jsonl(reference))
    [place] = places(opened(f"{s3}/in", allow_stores=("s3://shared/photos",)))
    assert place.reference == (f"s3://{leads_to}" if leads_to else None)
    assert bool(place.refused) == (leads_to is None)


def test_a_table_on_a_disk_opens_no_store_by_itself(tmp_path, put):
    (tmp_path / "a.jsonl").write_bytes(jsonl(put("photos/a.jpg", b"picture"), "a.jpg"))
    assert images(opened(str(tmp_path / "a.jsonl"))) == ["url_refused", tmp_path / "a.jpg"]
    assert images(opened(str(tmp_path / "a.jsonl"), allow_stores=("s3://jobs",))) == [b"picture", tmp_path / "a.jpg"]
    assert "allow_stores" in str(places(opened(str(tmp_path / "a.jsonl")))[0].refused)


def test_a_path_beside_missing_bytes_leads_nowhere_else_either(put, s3):
    put("in/a.jpg", b"picture")
    put("secret.jpg", b"secret")
    paths = ["a.jpg", f"{s3}/in/a.jpg", "../secret.jpg", f"{s3}/secret.jpg", "/etc/hostname", None]
    table = pa.table({"image": [{"bytes": None, "path": path} for path in paths]})
    assert images(opened(put("in/a.parquet", parquet(table)))) == [
        b"picture", b"picture", "url_refused", "url_refused", "url_refused", "image_missing",
    ]  # fmt: skip


def test_an_object_that_is_too_large_is_not_read(put, s3, monkeypatch):
    monkeypatch.setattr(pipelines.stores, "DEFAULT_LIMITS", ImageLimits(max_bytes=5))
    put("in/a.jpg", b"12345")
    put("in/b.jpg", b"123456")
    assert images(opened(f"{s3}/in")) == [b"12345", "image_too_large"]


def test_an_object_that_is_gone_costs_only_its_own_row(put, s3):
    put("in/a.jpg", b"a")
    put("in/b.jpg", b"b")
    table = opened(f"{s3}/in")
    obstore.delete(from_url(s3), "in/a.jpg")
    assert images(table) == ["image_missing", b"b"]
    assert (is_gone(f"{s3}/in"), is_gone(f"{s3}/elsewhere")) == (False, True)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://jobs/nothing/here", "is empty: no image and no table in it, no file at all"),
        ("s3://jobs/*.csv", "matches no file"),
        ("s3://nobucket/folder", "cannot be listed"),
        ("s3://", "cannot be listed: s3:// names no bucket"),
        ("s3://jobs/notes.txt", "of no kind that is read"),
        ("ftp://host/a.csv", "address of no kind that is read"),
        ("s3://jobs/broken.parquet", "broken.parquet cannot be read"),
    ],
)
def test_an_address_that_is_nothing_is_refused_by_name(put, address, says):
    put("notes.txt", b"")
    put("broken.parquet", b"PAR1?")
    with pytest.raises(ConfigError, match=says) as refusal:
        opened(address)
    assert address in str(refusal.value)


@pytest.mark.parametrize("wrong", ["bucket/folder", "s3:/bucket", "https://host/folder", "s3://", "s3://k:s@bucket"])
def test_what_is_opened_must_be_the_address_of_a_store(wrong):
    with pytest.raises(ConfigError, match="allow_stores"):
        check({"input": "a", "output": "b", "allow_stores": [wrong]}, JobConfig, origin="the job")


class Watched:
    """In front of a store: counts the bytes that it sends, and answers some requests itself."""

    def __init__(self, store: Any) -> None:
        self.store, self.sent_bytes = store, 0
        self.answers: dict[str, str] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        for part, status in self.answers.items():
            if part in environ["PATH_INFO"]:
                start_response(status, [("Content-Type", "application/xml")])
                return [b"<Error/>"]
        body = b"".join(self.store(environ, start_response))
        self.sent_bytes += len(body)
        return [body]


@pytest.fixture
def watched(monkeypatch) -> Iterator[Watched]:
    monkeypatch.setattr(pipelines.stores, "from_url", partial(from_url, retry_config={"max_retries": 0}))
    seen = []
    with s3_server(lambda store: seen.append(Watched(store)) or seen[0]) as settings, environment(settings):
        yield seen[0]


def test_a_few_rows_of_a_large_table_cost_a_few_row_groups(watched):
    content = [bytes([n]) * 2**20 for n in range(32)]
    whole = parquet(pa.table({"image": content, "n": range(32)}), row_group_size=4, compression="none")
    obstore.put(from_url(BUCKET), "a.parquet", whole)
    before = watched.sent_bytes
    table = opened(f"{BUCKET}/a.parquet")
    chosen = places(table)[9:11]
    assert Images([f"{BUCKET}/a.parquet"], "image", policy=None).read(chosen) == content[9:11]
    assert watched.sent_bytes - before < len(whole) / 2


def test_rows_that_are_asked_for_bit_by_bit_are_read_once(watched):
    content = [bytes([n]) * 2**20 for n in range(16)]
    whole = parquet(pa.table({"image": content}), row_group_size=16, compression="none")
    obstore.put(from_url(BUCKET), "a.parquet", whole)
    source = Images([f"{BUCKET}/a.parquet"], "image", policy=None)
    before = watched.sent_bytes
    assert [source.read([Location(file=0, row=row)]) for row in range(16)] == [[each] for each in content]
    assert watched.sent_bytes - before < 2 * len(whole)


def test_a_store_that_denies_costs_a_row_and_one_that_fails_stops_the_job(watched):
    for name in ("a.jpg", "b.jpg"):
        obstore.put(from_url(BUCKET), f"in/{name}", name.encode())
    table = opened(f"{BUCKET}/in")
    watched.answers = {"a.jpg": "403 Forbidden"}
    assert images(table) == ["image_unreadable", b"b.jpg"]
    for status in ("503 Slow Down", "500 Internal Server Error", "401 Unauthorized"):
        watched.answers = {"b.jpg": status}
        with pytest.raises(StorageError, match="cannot be read"):
            images(table)


def test_a_table_that_cannot_be_read_any_more_stops_the_job(watched):
    address = f"{BUCKET}/a.parquet"
    obstore.put(from_url(BUCKET), "a.parquet", parquet(pa.table({"image": [b"0"]})))
    table = opened(address)
    found = places(table)
    watched.answers = {"a.parquet": "500 Internal Server Error"}
    for read in (lambda: rows(table), lambda: Images([address], "image", policy=None).read(found)):
        with pytest.raises(StorageError, match=r"a\.parquet cannot be read"):
            read()


@pytest.fixture
def web(tmp_path) -> Iterator[str]:
    """A web server of the files in `tmp_path`; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_table_at_a_web_address_is_fetched_once_with_its_images(tmp_path, web):
    struct = [{"bytes": b"0", "path": None}, {"bytes": None, "path": "b.jpg"}, {"bytes": None, "path": "s3://x/c.jpg"}]
    (tmp_path / "a.parquet").write_bytes(parquet(pa.table({"image": struct, "n": range(3)})))
    table = opened(f"{web}/a.parquet?signature=secret", allow_networks=(LOCAL,))
    (tmp_path / "a.parquet").unlink()
    assert [row["n"] for row in rows(table)] == [0, 1, 2]
    first, second, third = places(table)
    assert (first.content, second.reference) == (b"0", f"{web}/b.jpg")
    assert third.refused
    assert images(table)[0] == b"0"


def test_references_of_a_table_at_a_web_address_are_relative_to_it(tmp_path, web):
    (tmp_path / "a.jsonl").write_bytes(jsonl("x/b.jpg", "/c.jpg", "https://example.org/d.jpg", "../e.jpg"))
    table = opened(f"{web}/a.jsonl", allow_networks=(LOCAL,))
    assert [place.reference for place in places(table)] == [
        f"{web}/x/b.jpg", f"{web}/c.jpg", "https://example.org/d.jpg", f"{web}/e.jpg",
    ]  # fmt: skip


def test_one_image_at_a_web_address_is_an_input_of_one_row(web):
    assert [place.reference for place in places(opened(f"{web}/a.jpg"))] == [f"{web}/a.jpg"]


def test_a_web_address_is_under_the_rules_of_all_others(web):
    with pytest.raises(ConfigError, match="not open to fetches") as refusal:
        opened(f"{web}/a.jsonl?signature=secret")
    assert "secret" not in str(refusal.value)
    with pytest.raises(ConfigError, match="has no such file"):
        opened(f"{web}/none.jsonl", allow_networks=(LOCAL,))
