"""Jobs on a real Ray cluster, through its job server, with a token and without."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from ray._raylet import AuthenticationTokenLoader

from pipelines.submission.ray_jobs import RayJobs
from pipelines.submission.request import JobRequest
from skipvision.cli import main
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError
from skipvision.failpoints import VARIABLE
from tests.image_files import write_good
from tests.pipelines.submission.hand_made import job_file
from tests.pipelines.submission.ray_cluster import ROOT, free_ports, ray_cluster

TOKEN = "a-token-of-this-test-alone-0123456789"
IMAGES = ROOT / "examples" / "images"
PRICES = ROOT / "examples" / "prices.yaml"


@pytest.fixture
def no_cluster_named(monkeypatch) -> Iterator[None]:
    """The environment of somebody who has no Ray and no token, for the time of a test."""
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    AuthenticationTokenLoader.instance().reset_cache()
    yield
    AuthenticationTokenLoader.instance().reset_cache()


def with_token(monkeypatch, token: str) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    AuthenticationTokenLoader.instance().reset_cache()


def written(folder: Path, **settings: object) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({"output": str(folder / "out"), "workers": 1, **settings}))
    return path


def job_of(capsys, output: Path, *where: str) -> dict[str, object]:
    assert main(["jobs", "show", str(output), *where, "--json"]) == 0
    shown: dict[str, object] = json.loads(capsys.readouterr().out)
    return shown


def wait_for(condition: Callable[[], bool], *, seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("no_cluster_named")
def test_a_job_is_sent_with_a_token_followed_and_found_done_when_it_is_sent_again(tmp_path, capsys, monkeypatch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("square.png", "small.png", "cut-off.jpg"):
        shutil.copy(IMAGES / name, pictures)
    job = written(tmp_path, input=str(pictures), max_tokens=4, prices=str(PRICES), prompt="What is\nit? `$HOME`")
    with ray_cluster(tmp_path / "ray.log", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as address:
        with_token(monkeypatch, "another-token-altogether-0123456789")
        assert main(["submit", str(job), "--address", address]) == 2
        assert "wants a token" in capsys.readouterr().err
        with_token(monkeypatch, TOKEN)

        assert main(["submit", str(job), "--address", address, "--report", str(tmp_path / "here"), "--json"]) == 0
        told = capsys.readouterr()
        report = json.loads(told.out)
        assert (report["rows"], report["ok"], report["errors_by_code"]) == (3, 2, {"image_truncated": 1})
        assert report["money"]["prices"].startswith("example"), "the price list travelled along"
        assert report["settings"]["prompt"] == "What is\nit? `$HOME`"
        assert "3 rows, 1 of them errors" in told.err, "the driver's own words"
        assert json.loads((tmp_path / "here" / "report.json").read_text()) == report
        assert "<html" in (tmp_path / "here" / "report.html").read_text()

        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
        assert main(["submit", str(job)]) == 0
        assert "was there already" in capsys.readouterr().err
        shown = job_of(capsys, tmp_path / "out")
        assert (shown["status"], shown["rows"], shown["name"]) == ("done", "3 of 3", "out")

        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
        other = written(tmp_path, input=str(pictures), max_tokens=5)
        assert main(["submit", str(other), "--address", address]) == 2
        assert "max_tokens is 5 and was 4" in capsys.readouterr().err, "the flag stands above the environment"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("no_cluster_named")
def test_a_job_that_is_cancelled_midway_and_resumed_has_every_row_once(tmp_path, capsys, tiny_model):
    names = write_good(tmp_path / "in", 60)
    out, shards = tmp_path / "out", 15
    job = written(
        tmp_path, input=str(tmp_path / "in"), model=str(tiny_model), max_tokens=200, rows_per_shard=4, dtype="float32",
        skip="off", max_running=1,
    )  # fmt: skip
    # Without, the job might be done before anybody could stop it.
    held = {"answer": {"what": "pause", "after": 3, "until": str(tmp_path / "let go")}}
    variables = {"RAY_AUTH_MODE": "disabled", VARIABLE: json.dumps(held)}
    with ray_cluster(tmp_path / "ray.log", **variables) as address:
        where = ("--address", address)
        follower = subprocess.Popen(
            [sys.executable, "-m", "skipvision.cli", "submit", str(job), *where], cwd=ROOT, text=True,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_for(lambda: (out / "data").exists() and len(list((out / "data").glob("*.parquet"))) >= 2)
        follower.send_signal(signal.SIGINT)
        said = follower.communicate(timeout=60)[1]
        assert follower.returncode == 130
        name = re.search(r"(\S+) goes on; look at it, stop it or go on with it", said)[1]
        assert job_of(capsys, out, *where)["status"] == "running", "who follows a job does not hold it"
        request = JobRequest.of(check(yaml.safe_load(job.read_text()), JobConfig, origin="a test"))
        assert RayJobs(address).start(request, after=None).handle == name, "of two that start it at once, one does"
        assert main(["jobs", "cancel", name, *where]) == 0
        said = capsys.readouterr().err
        kept = {path.name: path.read_bytes() for path in (out / "data").glob("*.parquet")}
        assert f"{name} is cancelled, {4 * len(kept)} of 60 rows are committed" in said
        assert 2 <= len(kept) < shards
        assert json.loads((out / "lease.json").read_text())["holder"] is None, "its driver ended politely"

        (tmp_path / "let go").touch()
        assert main(["jobs", "resume", name, *where, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["resumed_shards"] == len(kept)
        table = pq.read_table(out / "data")
        assert sorted(table.column("path").to_pylist()) == sorted(names)
        assert all((out / "data" / name).read_bytes() == content for name, content in kept.items())
        assert main(["jobs", "list", *where, "--json"]) == 0
        [listed] = json.loads(capsys.readouterr().out)["jobs"]
        assert (listed["id"], listed["status"], listed["rows"]) == (name, "done", "60 of 60")


@pytest.mark.usefixtures("no_cluster_named")
def test_an_address_where_nobody_or_somebody_else_answers_is_named(tmp_path, capsys):
    job = job_file(tmp_path)
    silent = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert main(["submit", str(job), "--address", silent]) == 2
    assert f"no Ray job server answers at {silent}" in capsys.readouterr().err
    stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=stranger.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with pytest.raises(ConfigError, match="is not Ray's job server"):
            RayJobs(f"http://127.0.0.1:{stranger.server_port}")
    finally:
        stranger.shutdown()
        stranger.server_close()


@pytest.mark.parametrize(("setting", "value"), [("max_tokens", 0), ("max_token", 5), ("skip", "many")])
@pytest.mark.usefixtures("no_cluster_named")
def test_wrong_settings_are_refused_before_anybody_is_asked(tmp_path, capsys, setting, value):
    job = written(tmp_path, input=str(tmp_path), **{setting: value})
    assert main(["submit", str(job), "--address", "http://127.0.0.1:1"]) == 2
    assert setting in capsys.readouterr().err
