"""Every kind of image file has its fate in a job too, in a column, by path, and by either kind of address."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.job import run
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from tests.fetch.site import Site
from tests.image_catalogue import CATALOGUE, write
from tests.image_files import picture, saved

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ENTRIES = ("column", "path", "data", "http")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, local_ray: None) -> dict[tuple[str, str], dict]:
    """One job over the whole catalogue, every file four times: (file, entry) -> its row."""
    place = tmp_path_factory.mktemp("entries")
    write(place / "in", CATALOGUE)
    site = Site("127.0.0.1")
    images = []
    for name in CATALOGUE:
        data = (place / "in" / name).read_bytes()
        site.answers[f"/{name}"] = [(200, {}, data)]
        inside = "data:image/png;base64," + base64.b64encode(data).decode()
        images.append({"bytes": data, "path": None})
        images += [{"bytes": None, "path": path} for path in (name, inside, f"{site.root}/{name}")]
    keys = [(name, entry) for name in CATALOGUE for entry in ENTRIES]
    table = {"name": [name for name, _ in keys], "entry": [entry for _, entry in keys], "image": images}
    pq.write_table(pa.table(table), place / "in" / "all.parquet")
    config = JobConfig(
        input=str(place / "in" / "all.parquet"), output=str(place / "out"), model=str(tiny_model), max_tokens=1,
        rows_per_shard=512, allow_networks=("127.0.0.0/8",),
    )  # fmt: skip
    run(config)
    site.close()
    found = duckdb.sql(f"select * from '{place / 'out'}/data/*.parquet'").df().to_dict("records")
    assert len(found) == len(keys)
    return {(row["name"], row["entry"]): row for row in found}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_file_has_its_fate(rows, entry):
    fates = {name: rows[name, entry]["error_code"] for name in CATALOGUE}
    assert {name: code if isinstance(code, str) else None for name, code in fates.items()} == {
        name: case.code for name, case in CATALOGUE.items()
    }


def test_what_is_read_is_answered_the_same_by_every_entry(rows):
    for name, case in CATALOGUE.items():
        if case.code is None:
            assert len({rows[name, entry]["answer"] for entry in ENTRIES}) == 1, name


def test_no_message_tells_of_the_program_or_of_a_place(rows):
    messages = [row["error_message"] for row in rows.values() if isinstance(row["error_message"], str)]
    assert messages
    assert not [message for message in messages if re.search(r"0x[0-9a-f]{4}|/|\\|127\.0|PIL|Error", message)]


def test_formats_that_are_asked_for_are_read(tmp_path, tiny_model, local_ray):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.avif").write_bytes(saved(picture(), "AVIF"))
    (tmp_path / "in" / "b.jpg").write_bytes(saved(picture(width=512, height=384), "JPEG"))
    report = run(
        JobConfig(
            input=str(tmp_path / "in"), output=str(tmp_path / "out"), model=str(tiny_model), max_tokens=1,
            image_formats=("AVIF",), reduced_decoding=True,
        )
    )  # fmt: skip
    assert (report.ok, report.errors) == (2, 0)


def test_a_format_without_its_decoder_stops_the_job_before_it_starts(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("skipvision.image_decoders._is_installed", lambda _: False)
    wish = {"input": str(tmp_path / "none"), "output": str(tmp_path / "out"), "model": str(tiny_model)}
    with pytest.raises(ConfigError, match=r"image_formats names HEIC, .* pip install 'skipvision\[heif\]'"):
        run(JobConfig(**wish, image_formats=("HEIC",)))
    assert not (tmp_path / "out").exists()
