"""A row that ends its process is found, and no other is taken for one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.attempts import (
    MOST_DEATHS_OF_A_ROW,
    ROW_DEATHS,
    SHARD_DEATHS,
    WINDOW,
    Attempts,
    Room,
    Rows,
    refuse_broken_engine,
)
from pipelines.folder import JobFolder
from pipelines.layout import shard_name
from skipvision.errors import EngineDeadError
from skipvision.failpoints import VARIABLE
from tests.image_files import write_good


class Death(BaseException):
    """Of a process; its note stays."""


def work(folder: JobFolder, rows: int, dies: Callable[[Rows], bool]) -> tuple[set[int], int]:
    """Work on a shard until it is done, with a new process after each death: the rows given up, and the deaths."""
    for deaths in range(1000):
        course = Attempts(folder, 0, rows).course()
        answered: set[int] = set()
        try:
            for piece in course.pieces:
                with Attempts(folder, 0, rows).noted(piece, alone=course.alone):
                    if dies(piece):
                        raise Death
                answered |= set(range(*piece))
        except Death:
            continue
        assert answered | course.poison == set(range(rows))
        assert not answered & course.poison
        return set(course.poison), deaths
    raise AssertionError("it never ended")


@pytest.mark.parametrize("rows", [1, 2, WINDOW, WINDOW + 1, 100, 256])
def test_exactly_the_rows_that_end_their_process_are_given_up(tmp_path, rows):
    rng = random.Random(rows)
    for count in (0, 1, min(3, rows - 1)):
        poison = set(rng.sample(range(rows), count))
        given_up, deaths = work(
            JobFolder(str(tmp_path / str(count))), rows, lambda piece, p=poison: bool(p & set(range(*piece)))
        )
        assert given_up == poison
        assert deaths <= MOST_DEATHS_OF_A_ROW * count


def test_processes_that_are_killed_from_outside_cost_no_row(tmp_path):
    for seed in range(30):
        rng = random.Random(seed)
        given_up, _ = work(JobFolder(str(tmp_path / str(seed))), 64, lambda _, r=rng: r.random() < 0.08)
        assert given_up == set()


def test_a_poison_row_is_found_though_processes_are_killed_from_outside_too(tmp_path):
    for seed in range(20):
        rng = random.Random(seed)
        given_up, _ = work(
            JobFolder(str(tmp_path / str(seed))),
            40,
            lambda piece, r=rng: piece[0] <= 17 < piece[1] or r.random() < 0.03,
        )
        assert given_up == {17}


def leave_deaths(folder: JobFolder, shard: int, rows: Rows, count: int, *, alone: bool) -> None:
    for _ in range(count):
        with pytest.raises(Death), Attempts(folder, shard, 40).noted(rows, alone=alone):
            raise Death


def test_deaths_in_company_say_nothing_of_a_row(tmp_path):
    folder = JobFolder(str(tmp_path))
    for _ in range(SHARD_DEATHS + ROW_DEATHS):
        with pytest.raises(Death), Attempts(folder, 0, 1).noted((0, 1), alone=False):
            raise Death
    assert Attempts(folder, 0, 1).course().poison == frozenset()
    assert Attempts(folder, 0, 1).course().alone


def test_shards_do_not_answer_for_each_other(tmp_path):
    folder = JobFolder(str(tmp_path))
    leave_deaths(folder, 3, (0, 40), SHARD_DEATHS, alone=False)
    assert Attempts(folder, 3, 40).course().alone
    assert not Attempts(folder, 4, 40).course().alone


def test_an_engine_that_never_answers_is_not_taken_for_poison_rows(tmp_path):
    folder = JobFolder(str(tmp_path))
    leave_deaths(folder, 0, (0, 1), ROW_DEATHS, alone=True)
    refuse_broken_engine(folder, most_poison=16)  # the first row may be one
    leave_deaths(folder, 0, (1, 2), ROW_DEATHS, alone=True)
    with pytest.raises(EngineDeadError, match="every row that was tried alone"):
        refuse_broken_engine(folder, most_poison=16)
    folder.create(shard_name(7), b"answered")
    refuse_broken_engine(folder, most_poison=16)


def test_more_poison_than_may_be_stops_the_job(tmp_path):
    folder = JobFolder(str(tmp_path))
    folder.create(shard_name(7), b"answered")
    for row in range(3):
        leave_deaths(folder, row, (row, row + 1), ROW_DEATHS, alone=True)
    refuse_broken_engine(folder, most_poison=3)
    with pytest.raises(EngineDeadError, match="3 rows have each ended"):
        refuse_broken_engine(folder, most_poison=2)


def test_who_wants_to_be_alone_waits_for_all_and_all_wait_for_it():
    room, log, release = Room(), [], threading.Event()

    def guest() -> None:
        with room.entered(alone=False):
            log.append("guest in")
            release.wait(10)
            log.append("guest out")

    def hermit() -> None:
        with room.entered(alone=True):
            log.append("hermit")

    def late() -> None:
        with room.entered(alone=False):
            log.append("late")

    threads = [threading.Thread(target=who) for who in (guest, hermit, late)]
    for thread, expected in zip(threads, (["guest in"], ["guest in"], ["guest in"]), strict=True):
        thread.start()
        thread.join(0.3)
        assert log == expected
    release.set()
    for thread in threads:
        thread.join(10)
    assert log == ["guest in", "guest out", "hermit", "late"]


SCRIPT = """
import sys
from pipelines.freeze import freeze
from pipelines.inference import Inference, InferenceWorker
from pipelines.folder import JobFolder
from pipelines.job import _inference, _preparation
from pipelines.model import choose_model
from pipelines.plan import read_plan
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig

source, output, model = sys.argv[1:]
config = JobConfig(input=source, output=output, model=model, skip="6/4:plain", max_tokens=4, prompt_column="q",
                   rows_per_shard=20, dtype="float32", device="cpu", stall_seconds=20)
folder, chosen = JobFolder(output), choose_model(config)
plan = freeze(open_table(find_source(source), config), config, chosen, folder)
worker = InferenceWorker(_inference(folder, plan, config, chosen))
for shard in range(plan.shards):
    worker(_preparation(folder, plan, config, chosen).prepare(shard))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["segfault", "exit"])
def test_a_real_worker_commits_the_shard_with_its_poison_row_as_an_error(tmp_path, tiny_model, what):
    names = write_good(tmp_path / "in", 22)
    rows = [{"image": f"in/{name}", "q": "poison ?" if at == 5 else "what ?"} for at, name in enumerate(names)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    variables = os.environ | {
        VARIABLE: json.dumps({"answer": {"what": what, "match": "poison"}}),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "in.jsonl"), str(tmp_path / "out"), str(tiny_model)]
    deaths = 0
    while subprocess.run(command, env=variables, capture_output=True, timeout=200).returncode != 0:
        deaths += 1
        assert deaths <= MOST_DEATHS_OF_A_ROW
    assert deaths == MOST_DEATHS_OF_A_ROW
    answered = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert len(answered) == 22
    assert [row["q"] for row in answered if row["error_code"] == "poison"] == ["poison ?"]
    assert sum(row["answer"] is not None for row in answered) == 21
