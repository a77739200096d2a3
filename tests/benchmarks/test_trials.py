"""Every engine runs in the best of its layouts, and who cannot run is reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.lineup import Contestant, Layout
from benchmarks.trials import Field
from benchmarks.work import Work

WORK = Work(folder="nowhere", requests=5, new_tokens=1)


@pytest.fixture
def field() -> Iterator[Field]:
    with Field() as field:
        yield field


def parrot(**layouts: tuple[str, int]) -> Contestant:
    """With layouts by name: the seconds it says it takes, and its processes."""
    return Contestant(
        name="parrot",
        module="tests.benchmarks.parrot",
        layouts=[
            Layout(name=name, processes=processes, environment={"PARROT_SECONDS": seconds})
            for name, (seconds, processes) in layouts.items()
        ],
        settings={"parrot": {}},
    )


def test_the_layout_that_is_fastest_in_the_trial_is_the_one_that_runs(field):
    field.start(parrot(slow=("5", 1), fast=("2", 1), slower=("10", 1)), dtype="float32", trial=WORK)
    (report,) = field.report()
    assert (report["layout"], report["trials"]) == ("fast", {"slow": 1.0, "fast": 2.5, "slower": 0.5})
    assert [setting for setting, _ in field.rows()] == ["parrot"]


def test_a_layout_that_fails_is_noted_and_the_others_are_tried(field):
    field.start(parrot(cramped=("never", 1), roomy=("5", 1)), dtype="float32", trial=WORK)
    (report,) = field.report()
    assert report["layout"] == "roomy"
    assert report["trials"]["cramped"] == "MemoryError: the cage is too small"


def test_who_fails_in_every_layout_is_absent_with_the_reason(field):
    field.start(parrot(cramped=("never", 1)), dtype="float32", trial=WORK)
    assert field.report() == [{"name": "parrot", "absent": "MemoryError: the cage is too small"}]
    assert field.rows() == []


def test_processes_share_the_work_and_answer_in_its_order(field):
    field.start(parrot(two=("5", 2)), dtype="float32", trial=WORK)
    ((setting, engine),) = field.rows()
    assert engine.answer_all(setting, WORK)["output_ids"] == [[0], [1], [2], [3], [4]]


def test_a_lone_request_is_answered_in_the_best_layout_of_one_process(field):
    contestant = parrot(slow=("5", 1), shared=("1", 2), fast=("2", 1), cramped=("never", 1))
    field.start(contestant, dtype="float32", trial=WORK)
    assert field.report()[0]["layout"] == "shared"
    field.go_alone(dtype="float32", folder="nowhere")
    assert field.report()[0]["layout"] == "fast"
