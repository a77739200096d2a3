"""Every command on the page on sources reads what the page says, from real files, a store and a web server."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import lance
import obstore
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from obstore.store import from_url
from pyiceberg.catalog.sql import SqlCatalog

from pipelines.encoded import Source as Images
from pipelines.folder import JobFolder
from pipelines.freeze import freeze
from pipelines.frozen import frozen_name, read_table, sources_name
from pipelines.job import run
from pipelines.location import IMAGES, Location
from pipelines.model import ChosenModel
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig, check
from skipvision.errors import InputError
from skipvision.fetch import FetchPolicy
from skipvision.images import decode_image, read_image
from skipvision.method.plan import SkipConfig
from tests.image_files import picture, saved

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sources.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.split("\n")
    if line
]
PICTURES = {f"{name}.jpg": saved(picture(seed), "JPEG") for seed, name in enumerate(("cat", "dog", "owl"))}
MODEL = ChosenModel(location="m", name="m", skip=SkipConfig(), identity={})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, s3: str) -> Path:
    """A folder with everything that the page names, and the same in a store."""
    root = tmp_path_factory.mktemp("sources")
    for folder in ("photos/deep", "tables", "shards", "image-folder", "hub/data"):
        (root / folder).mkdir(parents=True)
    for name, content in PICTURES.items():
        for place in ("photos", "photos/deep", "tables", "image-folder"):
            (root / place / name).write_bytes(content)
    _write_tables(root / "tables", s3)
    _write_hugging_face(root)
    with tarfile.open(root / "shards/photos-000.tar", "w") as tar:
        for name in PICTURES:
            tar.add(root / "photos" / name, name)
            (root / "tables/caption.txt").write_text(name)
            tar.add(root / "tables/caption.txt", name.replace(".jpg", ".txt"))
    _write_lakes(root)
    for path in (path for folder in ("photos", "tables", "shards") for path in (root / folder).rglob("*.*")):
        obstore.put(from_url(s3), path.relative_to(root).as_posix(), path.read_bytes())
    return root


def _write_tables(folder: Path, s3: str) -> None:
    rows = [{"id": f"00{n}", "image": name, "question": f"Is this a {name[:3]} ?"} for n, name in enumerate(PICTURES)]
    address = "data:image/jpeg;base64," + base64.b64encode(PICTURES["cat.jpg"]).decode()
    (folder / "photos.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"id": "3", "image": address}])
    )
    (folder / "stored.jsonl").write_text(
        "".join(json.dumps({"image": f"{s3}/photos/{name}"}) + "\n" for name in PICTURES)
    )
    table = pa.Table.from_pylist(rows)
    pa.csv.write_csv(table.rename_columns({"image": "photo"}), folder / "photos.csv")
    pq.write_table(table.drop(["image"]).append_column("image", [[*PICTURES.values()]]), folder / "photos.parquet")


def _write_hugging_face(root: Path) -> None:
    lines = ({"file_name": name, "text": name} for name in PICTURES)
    (root / "image-folder/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    images = {"image": [{"bytes": content, "path": name} for name, content in PICTURES.items()]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.disable_progress_bars()
    dataset = datasets.Dataset.from_dict(images, features=features)
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(root / "saved")
    dataset.to_parquet(root / "hub/data/train-00000-of-00001.parquet")
    (root / "hub/README.md").write_text("# Photos")


def _write_lakes(root: Path) -> None:
    table = pa.table({"image": [*PICTURES.values()], "name": [*PICTURES]})
    lance.write_dataset(table, root / "photos.lance")
    write_deltalake(root / "delta/photos", table)
    catalog = SqlCatalog("here", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}")
    catalog.create_namespace("iceberg")
    location = f"file://{root}/iceberg/photos"
    catalog.create_table("iceberg.photos", schema=table.schema, location=location).append(table)


@pytest.fixture(scope="module")
def web(files: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(files)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def config_of(command: str, web: str, output: Path, **settings: Any) -> JobConfig:
    """A job as the command asks for it, with its output elsewhere and the web server where it is."""
    program, action, *flags = shlex.split(command.replace("http://127.0.0.1:8080", web))
    assert (program, action) == ("skipvision", "run")
    asked: dict[str, Any] = {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        asked[name] = [value] if name.startswith("allow_") else value
    return check(asked | settings | {"output": str(output)}, JobConfig, origin=command)


def test_the_page_has_a_command_for_each_kind_of_source():
    assert len(COMMANDS) >= 16
    assert len({re.search(r"--output (\S+)", command)[1] for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_image_of_every_command_is_read(command, files, web, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    config = config_of(command, web, tmp_path / "job")
    folder = JobFolder(config.output)
    plan = freeze(open_table(find_source(config.input), config), config, MODEL, folder)
    paths = read_table(folder, sources_name(plan.input_id)).column("path").to_pylist()
    source = Images(paths, plan.embedded_column, FetchPolicy(allow_networks=config.allow_networks))
    places = read_table(folder, frozen_name(plan.input_id, 0)).column(IMAGES).to_pylist()
    found = source.read([Location.of(place) for [place] in places])
    assert [image.code for image in found if isinstance(image, InputError)] == []
    shown = [(decode_image(image) if isinstance(image, bytes) else read_image(image)).tobytes() for image in found]
    assert set(shown) == {decode_image(content).tobytes() for content in PICTURES.values()}
    assert plan.rows == len(shown)


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if "s3://" not in command])
def test_every_command_ends_with_answers(command, files, web, tmp_path, monkeypatch, local_ray, tiny_model):
    monkeypatch.chdir(files)
    report = run(config_of(command, web, tmp_path / "job", model=str(tiny_model), max_tokens=2, device="cpu"))
    assert (report.ok, report.errors) == (report.rows, 0)
    assert report.rows >= len(PICTURES)


@pytest.mark.slow
def test_a_command_that_reads_a_store_ends_with_answers(files, tiny_model):
    """In a process and on a Ray of its own, all of whose processes know the way to the store."""
    [command] = [command for command in COMMANDS if "s3://jobs/shards" in command]
    program = [sys.executable, "-m", "skipvision.cli", *shlex.split(command)[1:]]
    settings = ["--model", str(tiny_model), "--max-tokens", "2", "--device", "cpu", "--json"]
    path = os.pathsep.join(
        [str(ROOT), *map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(":")))]
    )
    ran = subprocess.run([*program, *settings], cwd=files, env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    rows = pq.read_table(files / shlex.split(command)[-1] / "data").to_pylist()
    assert [row["error_code"] for row in rows] == [None] * len(rows)
    assert len(rows) >= len(PICTURES)
