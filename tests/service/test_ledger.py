"""Budgets on disk: whole at any moment, refused when damaged, forgotten at midnight and not before."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.ledger import Ledger
from skipvision.errors import ConfigError, StorageError

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC).timestamp()
SECOND_NS = 1_000_000_000


class Time:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.now_ns, self.epoch = 0, NOON

    def pass_by(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)
        self.epoch += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def opened(path: Path | None, time: Time) -> Ledger:
    return Ledger(path, clock=lambda: time.now_ns, wall=lambda: time.epoch)


def on_disk(path: Path) -> dict:
    return json.loads(path.read_text())


def test_what_was_used_outlives_the_process(tmp_path, time):
    path = tmp_path / "ledger.json"
    ledger = opened(path, time)
    ledger.add("acme", 5)
    ledger.add("acme", 7)
    ledger.add("zeta", 1)
    ledger.close()
    again = opened(path, time)
    assert [again.tokens_of(name) for name in ("acme", "zeta", "nobody")] == [12, 1, 0]


def test_the_file_has_names_and_numbers_and_is_for_its_owner(tmp_path, time):
    path = tmp_path / "ledger.json"
    ledger = opened(path, time)
    ledger.add("acme", 5)
    ledger.close()
    assert on_disk(path) == {"day": "2026-03-14", "tokens": {"acme": 5}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["ledger.json"]


def test_a_ledger_without_a_file_counts_all_the_same(time):
    ledger = opened(None, time)
    ledger.add("acme", 5)
    ledger.close()
    assert ledger.tokens_of("acme") == 5


def test_it_is_saved_once_a_second_at_most_and_only_if_anything_is_new(tmp_path, time, monkeypatch):
    synced = []
    monkeypatch.setattr("service.ledger.os.fsync", synced.append)
    ledger = opened(tmp_path / "ledger.json", time)
    at_opening = len(synced)
    for _ in range(100):  # ten seconds
        ledger.add("acme", 1)
        time.pass_by(0.1)
        ledger.save()
    assert len(synced) - at_opening == 2 * 10, "the file and its folder, each second"
    time.pass_by(60)
    ledger.save()
    assert len(synced) - at_opening == 2 * 10
    assert on_disk(tmp_path / "ledger.json")["tokens"] == {"acme": 100}


def test_the_bytes_are_on_disk_before_the_name_is(tmp_path, time, monkeypatch):
    steps, replace = [], Path.replace
    monkeypatch.setattr("service.ledger.os.fsync", lambda _: steps.append("sync"))
    monkeypatch.setattr(Path, "replace", lambda old, new: steps.append("rename") or replace(old, new))
    opened(tmp_path / "ledger.json", time)
    assert steps == ["sync", "rename", "sync"]


def test_midnight_of_utc_begins_all_budgets_anew(tmp_path, time):
    path = tmp_path / "ledger.json"
    ledger = opened(path, time)
    ledger.add("acme", 5)
    assert ledger.seconds_to_midnight() == 12 * 3600
    time.pass_by(12 * 3600 - 1)
    assert ledger.tokens_of("acme") == 5
    time.pass_by(1)
    assert ledger.tokens_of("acme") == 0
    ledger.close()
    assert on_disk(path) == {"day": "2026-03-15", "tokens": {}}


def test_yesterdays_file_counts_for_nothing_today(tmp_path, time):
    path = tmp_path / "ledger.json"
    path.write_text('{"day": "2026-03-13", "tokens": {"acme": 5}}')
    assert opened(path, time).tokens_of("acme") == 0


@pytest.mark.parametrize("day", ["2026-03-15", "2031-01-01"])
def test_a_clock_that_is_set_back_neither_forgets_nor_keeps_for_years(tmp_path, time, day):
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps({"day": day, "tokens": {"acme": 5}}))
    ledger = opened(path, time)
    assert ledger.tokens_of("acme") == 5
    time.pass_by(12 * 3600)
    assert ledger.tokens_of("acme") == 0


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"7", b"\xff\xff", b"{}", b'{"day": "2026-03-14"}', b"[" * 100_000,
        b'{"day": "today", "tokens": {}}', b'{"day": 3, "tokens": {}}', b'{"day": "2026-03-14", "tokens": []}',
        b'{"day": "2026-03-14", "tokens": {"acme": -1}}', b'{"day": "2026-03-14", "tokens": {"acme": 1.5}}',
        b'{"day": "2026-03-14", "tokens": {"acme": true}}', b'{"day": "2026-03-14", "tokens": {"acme": "5"}}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_name_and_left_as_it_is(tmp_path, time, content):
    path = tmp_path / "ledger.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ledger\.json is damaged: restore it, or remove it"):
        opened(path, time)
    assert path.read_bytes() == content


@pytest.mark.parametrize(("place", "says"), [("none/ledger.json", "cannot be written"), (".", "cannot be read")])
def test_a_place_that_will_not_do_is_refused_before_anything_starts(tmp_path, time, place, says):
    with pytest.raises(ConfigError, match=f"ledger .* {says}"):
        opened(tmp_path / place, time)


def test_a_disk_that_is_full_loses_nothing_that_was_counted(tmp_path, time, monkeypatch):
    path = tmp_path / "ledger.json"
    ledger = opened(path, time)
    ledger.add("acme", 5)
    with monkeypatch.context() as full:
        full.setattr("service.ledger.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(StorageError, match=r"ledger\.json cannot be written: No space left"):
            ledger.close()
        assert on_disk(path)["tokens"] == {}
    time.pass_by(1)
    ledger.save()
    assert on_disk(path)["tokens"] == {"acme": 5}


def test_what_is_added_while_the_disk_is_busy_is_saved_next_time(tmp_path, time, monkeypatch):
    path = tmp_path / "ledger.json"
    ledger = opened(path, time)
    ledger.add("acme", 5)
    with monkeypatch.context() as busy:
        added = iter([lambda: ledger.add("acme", 7), lambda: None])
        busy.setattr("service.ledger.os.fsync", lambda _: next(added)())
        ledger.close()
    assert on_disk(path)["tokens"] == {"acme": 5}
    ledger.close()
    assert on_disk(path)["tokens"] == {"acme": 12}


def test_a_file_left_by_a_killed_process_is_written_over(tmp_path, time):
    (tmp_path / ".ledger.json.unfinished").write_text("half of a page that is longer than the next one" * 9)
    opened(tmp_path / "ledger.json", time).close()
    assert os.listdir(tmp_path) == ["ledger.json"]
    assert on_disk(tmp_path / "ledger.json")["tokens"] == {}
