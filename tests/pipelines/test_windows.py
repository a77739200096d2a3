"""What is measured on a job: which rows are answered both ways, that it is fair, and that it costs no answers."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipelines.attempts import Room
from pipelines.engine_thread import EngineThread
from pipelines.folder import JobFolder
from pipelines.plan import JobPlan
from pipelines.windows import Measuring, Windows, choose_windows
from skipvision.engine import Answer, Engine, Request, Sampling

WINDOWS = Windows(shards=frozenset({0, 1}), rows=6)


def plan(rows: int, rows_per_shard: int = 256) -> JobPlan:
    shards = -(-rows // rows_per_shard)
    return cast(JobPlan, SimpleNamespace(rows=rows, rows_per_shard=rows_per_shard, shards=shards))


@pytest.mark.parametrize(
    ("rows", "share", "shards"),
    [
        (1_000, 0.01, 0),
        (6_399, 0.01, 0),
        (6_400, 0.01, 1),
        (64_000, 0.01, 10),
        (1_000_000, 0.01, 156),
        (1_000_000, 0.0, 0),
        (12, 1.0, 1),
        (1_000, 1.0, 4),
    ],
)
def test_windows_are_whole_and_as_many_as_the_share_is_worth(rows, share, shards):
    windows = choose_windows(plan(rows), share=share, max_running=32)
    assert len(windows.shards) == shards
    assert windows.rows == min(64, rows)


def test_windows_are_spread_over_the_job_from_its_beginning():
    windows = sorted(choose_windows(plan(25_600), share=0.01, max_running=32).shards)
    assert windows == [0, 25, 50, 75]


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    pictures = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    sampling = Sampling(max_tokens=6, ignore_eos=True)
    return [Request(prompt=f"what is {n} ?", images=(image,), sampling=sampling) for n, image in enumerate(pictures)]


def measuring(model: Any, *, skip: str, room: Room | None = None) -> tuple[Measuring, EngineThread]:
    engine = EngineThread(Engine.load(model, skip=skip, device="cpu", dtype="float32", max_running=4))
    return Measuring(engine, room or Room(), WINDOWS), engine


def test_a_job_that_skips_nothing_gives_the_same_answers_both_ways(tmp_path, tiny_model, requests):
    measure, _ = measuring(tiny_model, skip="off")
    comparison = measure.measure(JobFolder.open(str(tmp_path / "job")), 0, requests).comparison
    assert (comparison.rows, comparison.same) == (6, 6)
    assert comparison.ratio == comparison.seconds_all_tokens / comparison.seconds > 0


def test_images_are_encoded_anew_for_each_setting_and_rows_work_is_kept_apart(tmp_path, tiny_model, requests):
    measure, engine = measuring(tiny_model, skip="6/4:plain")
    engine.answer([replace(each, request_id=f"row {n}") for n, each in enumerate(requests)])
    measured = measure.measure(JobFolder.open(str(tmp_path / "job")), 0, requests)
    assert measured.before.counts.vision_cache_misses == 8
    assert measured.comparing.counts.vision_cache_misses == 2 * (6 + 1), "both ways, and one each to warm up"
    assert measured.comparing.counts.vision_cache_hits == 0
    assert measured.comparing.held_seconds >= measured.comparison.seconds + measured.comparison.seconds_all_tokens
    assert engine.take_work().counts.steps == 0


def test_which_setting_comes_first_takes_turns(tmp_path, tiny_model, requests, monkeypatch):
    measure, engine = measuring(tiny_model, skip="6/4:plain")
    asked: list[bool] = []
    answer = engine.answer

    def watched(asking: Any) -> Any:
        asked.append(asking[0].skip is None)
        return answer(asking)

    monkeypatch.setattr(engine, "answer", watched)
    folder = JobFolder.open(str(tmp_path / "job"))
    for shard in (0, 1):
        measure.measure(folder, shard, requests)
    assert asked == [True, False, True, False, True, False, False, True]


def test_a_window_that_was_begun_is_not_begun_again(tmp_path, tiny_model, requests):
    """It may be what ended the process that began it."""
    measure, _ = measuring(tiny_model, skip="off")
    folder = JobFolder.open(str(tmp_path / "job"))
    folder.create("windows/shard-00000", b"")
    assert measure.measure(folder, 0, requests).comparison.rows == 0
    assert measure.measure(folder, 1, requests).comparison.rows == 6


def test_shards_without_a_window_and_windows_without_rows_are_not_measured(tmp_path, tiny_model):
    measure, _ = measuring(tiny_model, skip="off")
    assert not measure.wants(2)
    assert measure.measure(JobFolder.open(str(tmp_path / "job")), 0, []).comparison.rows == 0


def test_rows_that_only_one_setting_has_room_for_are_no_measurement(tmp_path, tiny_model, requests):
    measure, engine = measuring(tiny_model, skip="6/4:plain")
    longest = next(words for words in range(600, 0, -1) if fits(engine, requests[0], words))
    long = [replace(each, prompt="what " * longest) for each in requests]
    assert measure.measure(JobFolder.open(str(tmp_path / "job")), 0, long).comparison.rows == 0


def fits(engine: EngineThread, request: Request, words: int) -> bool:
    """Whether a prompt of so many words has room beside the tokens that are left of its image."""
    sampling = Sampling(max_tokens=1)
    asked = replace(request, prompt="what " * words, sampling=sampling, request_id=f"{words} words")
    return isinstance(engine.answer([asked])[0], Answer)


def test_the_engine_is_left_alone_while_it_is_measured(tmp_path, tiny_model, requests):
    room, inside = Room(), threading.Event()
    measure, _ = measuring(tiny_model, skip="off", room=room)
    leave, done = threading.Event(), []

    def another_shard() -> None:
        with room.entered(alone=False):
            inside.set()
            leave.wait(30)
            done.append("the other shard")

    def window() -> None:
        measure.measure(JobFolder.open(str(tmp_path / "job")), 0, requests)
        done.append("the window")

    threads = [threading.Thread(target=another_shard), threading.Thread(target=window)]
    threads[0].start()
    inside.wait(30)
    threads[1].start()
    time.sleep(0.3)
    assert done == []
    leave.set()
    for thread in threads:
        thread.join(30)
    assert done == ["the other shard", "the window"]
