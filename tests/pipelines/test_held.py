"""What engines held devices for with no committed shard to show for it is found when a job ends, whoever was killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitoring.devices import Device
from pipelines import held
from pipelines.folder import JobFolder
from pipelines.held import HeldNote, unaccounted
from pipelines.statistics import DeviceSeconds
from skipvision.errors import StorageError

GPU = Device(kind="h200", capacity="spot", units=1.0)
CORES = Device(kind="cpu", capacity="on_demand", units=4.0)


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder.open(str(tmp_path / "job"))


def test_an_engine_that_is_killed_has_held_its_device_since_its_last_commit(folder):
    clock = Clock(1000.0)
    note = HeldNote(folder, GPU, 990.0, clock=clock)
    note.settle(1060.0)
    clock.now = 1100.0
    note.write()
    clock.now = 9999.0  # nobody saw it any more
    [found] = unaccounted(folder)
    assert found == DeviceSeconds(device="h200", capacity="spot", lost=40.0)
    assert found.held(2.0).idle == found.held(2.0).measured == found.held(2.0).modelled == 40.0


def test_what_was_committed_is_not_found_again_before_the_next_look(folder):
    clock = Clock(100.0)
    note = HeldNote(folder, GPU, 60.0, clock=clock)
    clock.now = 105.0
    note.settle(104.0)
    assert unaccounted(folder)[0].lost == 1.0


def test_shards_that_are_committed_out_of_order_settle_the_later_one(folder):
    note = HeldNote(folder, GPU, 0.0, clock=Clock(100.0))
    note.settle(90.0)
    note.settle(80.0)
    note.write()
    assert unaccounted(folder)[0].lost == 10.0


def test_engines_of_all_attempts_are_added_up_by_device(folder):
    for device, since in ((GPU, 0.0), (GPU, 50.0), (CORES, 90.0)):
        HeldNote(folder, device, since, clock=Clock(100.0))
    assert {each.device: each.lost for each in unaccounted(folder)} == {"h200": 150.0, "cpu": 40.0}


def test_a_job_whose_engines_left_no_note_has_lost_nothing(folder):
    assert unaccounted(folder) == ()


def test_an_engine_says_by_itself_that_it_is_there(folder, monkeypatch):
    monkeypatch.setattr(held, "BEAT_SECONDS", 0.01)
    clock = Clock(0.0)
    HeldNote(folder, GPU, 0.0, clock=clock)
    clock.now = 7.0
    while not unaccounted(folder)[0].lost:
        pass
    assert unaccounted(folder)[0].lost == 7.0


def test_storage_that_fails_does_not_end_the_engine(folder, monkeypatch, caplog):
    note = HeldNote(folder, GPU, 0.0, clock=Clock(5.0))

    def fails(*_: object) -> None:
        raise StorageError("no room left")

    monkeypatch.setattr(JobFolder, "replace", fails)
    note.write()
    assert "could not be noted" in caplog.text


def test_a_note_is_plain_json(folder):
    HeldNote(folder, CORES, 1.0, clock=Clock(2.0))
    [name] = folder.names("held")
    assert json.loads(folder.read(name)) == {
        "device": "cpu", "capacity": "on_demand", "units": 4.0, "since": 1.0, "seen": 2.0,
    }  # fmt: skip
