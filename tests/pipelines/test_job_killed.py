"""Jobs killed for real, and jobs that race: nothing lost, nothing twice, nothing touched that was committed."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.folder import JobFolder
from skipvision.failpoints import VARIABLE
from tests.image_files import write_good

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3000)]

SHARDS = 12
KILLS = 6
SCRIPT = """
import sys
from pipelines.job import run
from skipvision.config import JobConfig

source, output, model, standstill = sys.argv[1:]
run(JobConfig(input=source, output=output, model=model, skip="6/4:plain", max_tokens=40, rows_per_shard=4,
              dtype="float32", standstill_seconds=float(standstill)))
"""


@pytest.fixture
def start(tmp_path, tiny_model):
    """Start the job in a process group of its own; whatever still runs at the end is ended."""
    names = write_good(tmp_path / "in", 4 * SHARDS - 1)
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        output: str = str(tmp_path / "out"), *, standstill: float = 600, failing: str = "{}"
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "in"), output, str(tiny_model), str(standstill)]
        where = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), VARIABLE: failing}
        started.append(subprocess.Popen(command, start_new_session=True, env=where))
        return started[-1]

    begin.names = {*names, "broken.png"}  # type: ignore[attr-defined]
    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def committed(output: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (output / "data").glob("*")}


def wait_for(process: subprocess.Popen[bytes], output: Path, shards: int) -> None:
    while len(list((output / "data").glob("*"))) < shards:
        assert process.poll() is None, "the job ended before it could be killed"
        time.sleep(0.02)


def check_result(output: Path, names: set[str]) -> None:
    table = pq.read_table(output / "data")
    assert sorted(table.column("path").to_pylist()) == sorted(names)
    assert len(set(table.column("row_key").to_pylist())) == len(names)
    assert table.column("error_code").drop_null().to_pylist() == ["image_empty"]
    assert (output / "_SUCCESS").is_file()


def test_a_killed_job_goes_on_where_it_stopped(start, tmp_path):
    output, kept = tmp_path / "out", {}
    for shards in (2, 6):
        process = start()
        wait_for(process, output, shards)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)  # Ray's own processes end with the one that started them, a moment later
        now = committed(output)
        assert len(now) < SHARDS, "killed too late to mean anything"
        assert all(name.endswith(".parquet") and pq.read_metadata(output / "data" / name) for name in now)
        assert {name: now[name] for name in kept} == kept
        kept = now

    assert start().wait() == 0
    done = committed(output)
    assert {name: done[name] for name in kept} == kept
    assert len(done) == SHARDS
    check_result(output, start.names)

    assert start().wait() == 0
    assert committed(output) == done


def test_a_job_that_is_told_to_end_says_so_and_can_go_on(start, tmp_path, capfd):
    process = start()
    wait_for(process, tmp_path / "out", 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    said = capfd.readouterr().err
    assert "JobStoppedError: the job stopped: it was told to end; what it committed to" in said
    assert start().wait() == 0
    check_result(tmp_path / "out", start.names)


def test_a_job_that_stands_still_says_so_and_can_go_on(start, tmp_path, capfd):
    process = start(standstill=20, failing=json.dumps({"answer": {"what": "freeze", "after": 2}}))
    assert process.wait(200) == 1
    said = capfd.readouterr().err
    assert "JobStoppedError: the job stopped: no shard has come to its end for 20 seconds" in said
    assert start().wait() == 0
    check_result(tmp_path / "out", start.names)


def test_two_jobs_on_one_folder_do_no_harm(start, tmp_path):
    first, second = start(), start()
    assert (first.wait(), second.wait()) == (0, 0)
    assert len(committed(tmp_path / "out")) == SHARDS
    check_result(tmp_path / "out", start.names)


def test_a_job_in_an_object_store_that_is_killed_at_random_ends_as_an_undisturbed_one(start, tmp_path, s3):
    rng, output, kills = random.Random(0), f"{s3}/out", 0
    folder = JobFolder(output)
    for _ in range(KILLS):
        process, until = start(output), len(folder.names("data")) + rng.randrange(3)
        while process.poll() is None and len(folder.names("data")) < until:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert start(output).wait() == 0
    assert start().wait() == 0
    undisturbed = pq.read_table(tmp_path / "out" / "data")
    rows = [row for name in folder.names("data") for row in pq.read_table(io.BytesIO(folder.read(name))).to_pylist()]
    assert [without_seconds(row) for row in rows] == [without_seconds(row) for row in undisturbed.to_pylist()]
    assert folder.read("_SUCCESS") is not None
    assert folder.names("attempts") == []
    assert kills > 1


def without_seconds(row):
    return {name: value for name, value in row.items() if name != "seconds"}
