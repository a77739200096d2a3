"""What processes report is added up once, whatever is sent again, killed or started again in between."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipvision import metrics
from skipvision.errors import ConfigError
from skipvision.metrics import Delta, Registry
from skipvision.metrics import hub as hub_module
from skipvision.metrics.feed import Feed
from skipvision.metrics.hub import Counted, Hub, Report

DEVICE = {
    "workload": "online", "model": "m", "skip": "44/69", "device": "h200", "capacity": "spot",
}  # fmt: skip
WORK = {name: DEVICE[name] for name in metrics.WORK}


def spent(usd: float) -> Delta:
    registry = Registry()
    registry.within(**DEVICE).add(metrics.COST, usd, basis="measured")
    return registry.take()


def total(hub: Hub) -> float:
    return hub.registry.value(metrics.COST, **DEVICE, basis="measured")


def seen(hub: Hub, name: str) -> list[float]:
    return [float(line.rsplit(" ", 1)[1]) for line in hub.registry.text().splitlines() if line.startswith(name)]


def test_a_report_that_comes_twice_is_counted_once():
    hub = Hub()
    for _ in range(3):
        hub.report(Report(source="a", number=1, delta=spent(1.25)))
    hub.report(Report(source="b", number=1, delta=spent(0.5)))
    assert total(hub) == 1.75
    assert hub.registry.value(metrics.HUB_REPORTS, result="counted") == 2
    assert hub.registry.value(metrics.HUB_REPORTS, result="repeated") == 2


@given(st.lists(st.integers(0, 60)))
def test_numbers_of_reports_are_known_in_whatever_order_they_come(numbers):
    counted, known = Counted(), set()
    for number in numbers:
        assert (number in counted) == (number in known)
        if number not in known:
            counted.add(number)
            known.add(number)
    assert {number for first, last in counted.ranges() for number in range(first, last + 1)} == known
    assert all(
        first > before + 1 for (_, before), (first, _) in zip(counted.ranges(), counted.ranges()[1:], strict=False)
    )
    again = Counted(json.loads(json.dumps(counted.ranges())))
    assert all((number in again) == (number in known) for number in range(62))


def test_reports_that_count_up_take_no_more_room_the_more_they_are(tmp_path):
    hub = Hub(tmp_path / "totals.json")
    for number in range(200):
        hub.report(Report(source="a", number=number, delta=Delta()))
    assert json.loads((tmp_path / "totals.json").read_text())["sources"]["a"]["reports"] == [[0, 199]]


def test_histograms_are_added_up_by_bucket():
    hub = Hub()
    for source, values in (("a", [0.07, 0.3]), ("b", [0.08, 400.0])):
        registry = Registry()
        registry.within(**WORK).observe(metrics.ROW_SECONDS, *values)
        hub.report(Report(source=source, number=1, delta=registry.take()))
    hub.registry.text()
    buckets = {
        line.split('le="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in hub.registry.text().splitlines() if line.startswith("skipvision_row_seconds_bucket")
    }  # fmt: skip
    assert (buckets["0.05"], buckets["0.1"], buckets["0.5"], buckets["300.0"], buckets["+Inf"]) == (0, 2, 3, 3, 4)
    assert hub.registry.value(metrics.ROW_SECONDS, **WORK) == pytest.approx(400.45)


def test_what_is_new_is_told_as_zero_once_so_that_its_growth_is_seen():
    hub = Hub()
    hub.report(Report(source="a", number=1, delta=spent(2.0)))
    cost = "skipvision_cost_usd_total{"
    assert seen(hub, cost) == [0.0]
    assert seen(hub, cost) == [2.0]
    hub.report(Report(source="a", number=2, delta=spent(1.0)))
    assert seen(hub, cost) == [3.0]


def test_totals_outlive_the_hub_and_are_told_at_once(tmp_path):
    first = Hub(tmp_path / "totals.json")
    first.report(Report(source="a", number=1, delta=spent(2.0)))
    del first  # as a kill leaves it: nothing is closed
    second = Hub(tmp_path / "totals.json")
    assert seen(second, "skipvision_cost_usd_total{") == [2.0], "a zero would look as if the total had begun again"
    second.report(Report(source="a", number=1, delta=spent(2.0)))
    second.report(Report(source="a", number=2, delta=spent(0.25)))
    assert total(second) == 2.25
    assert second.unknown("a", range(4)) == [0, 3]


def test_a_gauge_is_what_those_say_that_live(monkeypatch):
    hub = Hub()

    def told(source: str, waiting: float, oldest: float) -> None:
        registry = Registry()
        to = registry.within(**WORK)
        to.set(metrics.QUEUE_DEPTH, waiting, stage="engine")
        to.set(metrics.QUEUE_OLDEST, oldest)
        hub.report(Report(source=source, number=int(time.monotonic_ns()), delta=registry.take()))

    told("a", 3, 0.5)
    told("b", 4, 2.5)
    told("b", 5, 1.5)
    assert hub.registry.value(metrics.QUEUE_DEPTH, **WORK, stage="engine") == 8
    assert hub.registry.value(metrics.QUEUE_OLDEST, **WORK) == 1.5
    monkeypatch.setattr(hub_module, "SILENT_SECONDS", -1.0)
    hub.forget_the_silent()
    assert "skipvision_queue_depth{" not in hub.registry.text()
    assert hub.registry.value(metrics.HUB_SOURCES) == 0


def test_what_was_said_last_of_a_job_stays_when_its_process_is_gone(monkeypatch, tmp_path):
    registry = Registry()
    registry.within(job_name="j").set(metrics.JOB_PROGRESS, 0.5)
    hub = Hub(tmp_path / "totals.json")
    hub.report(Report(source="a", number=1, delta=registry.take()))
    monkeypatch.setattr(hub_module, "SILENT_SECONDS", -1.0)
    hub.forget_the_silent()
    hub.report(Report(source="b", number=1, delta=Delta()))
    assert Hub(tmp_path / "totals.json").registry.value(metrics.JOB_PROGRESS, job_name="j") == 0.5


def test_jobs_that_are_long_over_are_forgotten(monkeypatch):
    monkeypatch.setattr(hub_module, "MOST_JOBS", 2)
    hub = Hub()
    for job, committed in (("old", 100.0), ("older", 50.0), ("new", 200.0)):
        registry = Registry()
        to = registry.within(job_name=job)
        to.set(metrics.JOB_LAST_COMMIT, committed)
        to.set(metrics.JOB_ROWS, 7, state="ok")
        hub.report(Report(source=job, number=1, delta=registry.take()))
    hub.forget_the_silent()
    assert hub.registry.said(metrics.JOB_LAST_COMMIT) == {("old",): 100.0, ("new",): 200.0}
    assert {labels[0] for labels in hub.registry.said(metrics.JOB_ROWS)} == {"old", "new"}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 7}', "no JSON", '{"format": 1, "sources": {}}'])
def test_a_file_that_holds_no_totals_is_refused_and_left_as_it_is(tmp_path, content):
    file = tmp_path / "totals.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"totals\.json holds no totals of metrics, or is damaged: .* move it away"):
        Hub(file)
    assert file.read_text() == content


def test_a_place_where_totals_cannot_be_kept_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be kept in .* name a file in a folder that can be written"):
        Hub(tmp_path / "no" / "totals.json")


def test_totals_of_a_metric_that_there_is_no_more_do_not_keep_the_hub_from_starting(tmp_path):
    Hub(tmp_path / "totals.json").report(Report(source="a", number=1, delta=spent(2.0)))
    content = json.loads((tmp_path / "totals.json").read_text())
    content["counters"].append(["skipvision_gone_total", ["x"], 5])
    (tmp_path / "totals.json").write_text(json.dumps(content))
    hub = Hub(tmp_path / "totals.json")
    assert total(hub) == 2.0
    assert "gone" not in hub.registry.text()


class Flaky:
    """A way to a hub that loses every other message, before it is counted or after."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.sent = 0
        self._random = random.Random(0)

    def send(self, reports: Sequence[Report]) -> None:
        self.sent += 1
        if self._random.random() < 0.3:
            raise TimeoutError("lost on the way")
        self.hub.report(*reports)
        if self._random.random() < 0.3:
            raise TimeoutError("the answer was lost")

    def ask(self, source: str, numbers: Sequence[int]) -> list[int]:
        return self.hub.unknown(source, numbers)


def feed_of(way: Flaky, *, before: Callable[[], object] = lambda: None) -> Feed:
    return Feed(way.send, way.ask, before=before, seconds=0.005)


def test_a_way_that_loses_messages_loses_and_doubles_nothing():
    way = Flaky(Hub())
    feeds = [feed_of(way) for _ in range(4)]

    def spend(feed: Feed) -> None:
        to = feed.registry.within(**DEVICE)
        for _ in range(100):
            to.add(metrics.COST, 0.01, basis="measured")
            time.sleep(0.001)

    threads = [threading.Thread(target=spend, args=[feed]) for feed in feeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for feed in feeds:
        feed.close()
    assert way.sent > 20
    assert total(way.hub) == pytest.approx(4.0, abs=1e-9)
    assert way.hub.registry.value(metrics.HUB_REPORTS, result="repeated") > 0


def test_what_was_told_of_by_another_process_is_not_counted_again():
    way = Flaky(Hub())
    for _ in range(2):  # a driver, and the one that goes on when it was killed
        feed = feed_of(way)
        for shard in feed.unknown("job 1", [0, 1, 2]) or [0, 1, 2]:
            feed.tell("job 1", shard, spent(1.0))
        feed.close()
    assert total(way.hub) == 3.0


def test_a_hub_that_does_not_answer_stops_nobody(caplog):
    def never(*_: object) -> list[int]:
        raise ConnectionError("nobody there")

    feed = Feed(never, never, seconds=0.005)  # type: ignore[arg-type]
    feed.registry.within(**DEVICE).add(metrics.COST, 1.0, basis="measured")
    assert feed.unknown("job 1", [4, 5]) == [4, 5]
    feed.close(patience_seconds=0.2)
    assert "was not told 1 reports" in caplog.text


def test_what_is_due_is_recorded_before_each_telling():
    way, due = Flaky(Hub()), []
    feed = feed_of(way, before=lambda: [to.add(metrics.COST, 0.5, basis="measured") for to in due])
    due.append(feed.registry.within(**DEVICE))
    time.sleep(0.1)
    feed.close()
    assert total(way.hub) > 1


def test_saving_is_shared_by_those_who_report_at_once(tmp_path, monkeypatch):
    hub, saves = Hub(Path(tmp_path / "totals.json")), []
    save = Hub._save

    def slow(self: Hub) -> None:
        saves.append(1)
        time.sleep(0.05)
        save(self)

    monkeypatch.setattr(Hub, "_save", slow)
    threads = [
        threading.Thread(target=hub.report, args=[Report(source=f"{n}", number=1, delta=spent(1.0))]) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saves) < len(threads)
    assert total(Hub(tmp_path / "totals.json")) == 20
