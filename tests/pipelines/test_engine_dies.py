"""An engine that breaks takes its process along, and Ray puts another in its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipelines.cluster import Cluster
from pipelines.commit import committed_shards
from pipelines.folder import JobFolder
from pipelines.freeze import freeze
from pipelines.inference import Inference
from pipelines.model import choose_model
from pipelines.plan import JobPlan
from pipelines.prepare import Preparation
from pipelines.sources import find_source
from pipelines.stream import stream
from pipelines.tables import open_table
from skipvision.config import JobConfig
from skipvision.engine import Engine, Sampling
from skipvision.engine.driver import FAILED
from skipvision.errors import JobStoppedError
from tests.image_files import write_good

SCRIPT = """
import sys
import time

from pipelines.engine_thread import EngineThread
from skipvision.engine import Engine, Request


def break_down(*_):
    raise RuntimeError("out of luck")


def hang(*_):
    time.sleep(1000)


engine = Engine.load(sys.argv[1], device="cpu")
thread = EngineThread(engine, stall_seconds=5)
print(len(thread.answer([Request(prompt="what ?")])), flush=True)
engine._runner.run = {"break": break_down, "hang": hang}[sys.argv[2]]
thread.answer([Request(prompt="what ?")])
print("never said")
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("break", ["the engine failed", "RuntimeError: out of luck"]),
        ("hang", ["a step of the engine has taken more than 5 seconds"]),
    ],
)
def test_the_process_ends_with_its_engine_and_says_why(tiny_model, how, told):
    where = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_model), how], capture_output=True, text=True, env=where, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (FAILED, "1\n")
    assert all(line in ended.stderr for line in told), ended.stderr


@dataclass(frozen=True, kw_only=True, slots=True)
class Fragile(Inference):
    """Loads engines that fail in their second step, the first few of them."""

    failures: int
    marks: str
    """A folder with a file for each engine that was loaded."""

    def load_engine(self) -> Engine:
        engine, marks = Inference.load_engine(self), Path(self.marks)
        number = len(list(marks.iterdir()))
        (marks / str(number)).touch()
        if number < self.failures:
            run, steps = engine._runner.run, iter(range(1))

            def fail_later(step):
                if next(steps, None) is None:
                    raise RuntimeError("out of luck")
                return run(step)

            engine._runner.run = fail_later
        return engine


@pytest.fixture
def job(tmp_path, tiny_model, local_ray) -> tuple[JobFolder, JobPlan, Preparation, Fragile]:
    """A planned job of 6 rows in 3 shards."""
    names = write_good(tmp_path / "in", 6)
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"image": f"in/{name}"}) for name in names))
    config = JobConfig(
        input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out"), model=str(tiny_model), skip="6/4:plain",
        rows_per_shard=2,
    )  # fmt: skip
    folder, model = JobFolder(config.output), choose_model(config)
    plan = freeze(open_table(find_source(config.input), config), config, model, folder)
    preparation = Preparation(
        output=config.output, input_id=plan.input_id, model=str(tiny_model), prompt="what ?", prompt_column=None,
        embedded_column=None, allow_networks=(),
    )  # fmt: skip
    (tmp_path / "marks").mkdir()
    inference = Fragile(
        output=config.output, plan=plan, model=str(tiny_model), skip=model.skip, sampling=Sampling(max_tokens=4),
        device="cpu", dtype="float32", max_running=4, failures=1, marks=str(tmp_path / "marks"),
    )  # fmt: skip
    return folder, plan, preparation, inference


ONE_WORKER = Cluster(workers=1, engine_resources={"num_cpus": 1}, prepare_tasks=1)


@pytest.mark.slow
def test_a_worker_whose_engine_breaks_is_replaced_and_no_row_is_lost(job):
    folder, plan, preparation, inference = job
    done = list(stream(range(plan.shards), preparation, inference, ONE_WORKER))
    assert sorted(statistics.shard for statistics, _ in done) == [0, 1, 2]
    assert [statistics.ok for statistics in committed_shards(folder, plan).values()] == [2, 2, 2]
    assert len(list(Path(inference.marks).iterdir())) == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)  # ten engines are loaded, one after another
def test_an_engine_that_breaks_again_and_again_ends_the_job(job):
    folder, plan, preparation, inference = job
    with pytest.raises(JobStoppedError, match="every row that was tried alone ended the engine's process"):
        list(stream(range(plan.shards), preparation, replace(inference, failures=100), ONE_WORKER))
    assert committed_shards(folder, plan) == {}
