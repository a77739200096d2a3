"""How long a very large job takes to go on, and how much memory the process that drives it needs.

`python -m benchmarks.resume --help`. The job is planned for real; half of its shards are then committed with answers
that are made up, and the job is started again as a user would, until its engine is asked about the first shard that is
missing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Annotated, Any

import psutil
import pyarrow as pa
import typer

from benchmarks.machine import ROOT, write_result
from pipelines.attempts import ATTEMPTS
from pipelines.commit import commit
from pipelines.folder import JobFolder
from pipelines.frozen import frozen_name, read_table
from pipelines.layout import has_plan
from pipelines.plan import JobPlan, read_plan
from pipelines.result_rows import result_table
from pipelines.statistics import Cost, RowSeconds, ShardStatistics, TokenCounts
from skipvision.config import JobConfig
from skipvision.engine import EngineCounts
from skipvision.errors import InputError
from skipvision.scenes import scene

RESULT = ROOT / "benchmarks" / "results" / "resume.json"
_JOB = """
import json, sys
from pipelines.job import run
from skipvision.config import JobConfig
run(JobConfig(**json.loads(sys.argv[1])))
"""


def measure(
    rows: Annotated[int, typer.Option(min=1024)] = 10_000_000,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    with TemporaryDirectory() as folder:
        write_result(output, "resume", resumed(Path(folder), rows))


def resumed(folder: Path, rows: int) -> dict[str, Any]:
    """Plan a job, commit half of it, and start it again."""
    config = _config(folder, rows)
    planning = _until(config, lambda: has_plan(config.output))
    job = JobFolder(config.output)
    plan = read_plan(job)
    committed = _commit_half(job, plan)
    going_on = _until(config, lambda: bool(job.names(ATTEMPTS)))
    return {
        "rows": rows,
        "shards": plan.shards,
        "committed_shards": committed,
        "planning": planning,
        "going_on": going_on,
    }


def _config(folder: Path, rows: int) -> JobConfig:
    scene(0).render(128).save(folder / "image.png")
    listing = folder / "rows.csv"
    with listing.open("w") as file:
        file.write("image,number\n")
        file.writelines(f"image.png,{row}\n" for row in range(rows))
    return JobConfig(input=str(listing), output=str(folder / "job"), max_tokens=4)


def _commit_half(job: JobFolder, plan: JobPlan) -> int:
    """Commit every second shard; how many."""
    shards = range(0, plan.shards, 2)
    for shard in shards:
        rows: pa.Table = read_table(job, frozen_name(plan.input_id, shard))
        refused = [InputError("made up", code="image_missing")] * len(rows)
        commit(job, result_table(rows, refused, plan.schema), _statistics(shard, len(rows)))
    return len(shards)


def _statistics(shard: int, rows: int) -> ShardStatistics:
    return ShardStatistics(
        shard=shard, rows=rows, ok=0, errors_by_code={"image_missing": rows}, tokens=TokenCounts(), actual=Cost(),
        all_tokens=Cost(), stage_seconds={}, finish_reasons={}, row_seconds=RowSeconds(), engine=EngineCounts(),
    )  # fmt: skip


def _until(config: JobConfig, happened: Callable[[], bool]) -> dict[str, float]:
    """Run the job until that has happened: the seconds, and the most memory that its process took."""
    started, most = time.monotonic(), 0
    command = [sys.executable, "-c", _JOB, json.dumps(asdict(config))]
    with (
        TemporaryFile("w+") as said,
        subprocess.Popen(command, start_new_session=True, cwd=ROOT, stdout=said, stderr=said) as process,
    ):
        driver = psutil.Process(process.pid)
        while not happened():
            most = max(most, driver.memory_info().rss)
            if process.poll() is not None:
                said.seek(0)
                raise SystemExit(f"the job ended with {process.returncode}: {said.read()[-2000:]}")
            time.sleep(0.1)
        seconds = time.monotonic() - started
        os.killpg(process.pid, signal.SIGKILL)
    return {"seconds": round(seconds, 1), "driver_bytes": most}


if __name__ == "__main__":
    typer.run(measure)
