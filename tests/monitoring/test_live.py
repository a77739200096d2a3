"""A real Prometheus reads a real service and a real job, whose hub is killed halfway: what boards, rules and alerts ask
is answered, what is counted is what clients and reports say, and a fault comes as far as the webhook."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from monitoring.expressions import all_expressions, filled_in
from monitoring.local import QUIET, alerts_printed, ask, free_ports, job_command, render, service
from monitoring.prometheus import Prometheus
from monitoring.stack import Ports, watching
from tests.monitoring.rule_files import RECORDED, TOLD, selectors

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="install Debian's package prometheus"),
    pytest.mark.skipif(
        shutil.which("prometheus-alertmanager") is None and shutil.which("alertmanager") is None,
        reason="install Debian's package prometheus-alertmanager",
    ),
]

IMAGES, BROKEN = 96, 12
QUESTIONS = 40


@dataclass
class Live:
    """What runs, what its clients were told, and what the job reported."""

    prometheus: Prometheus
    alerts: list[dict[str, Any]]
    folder: Path
    ray_address: str
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "job" / "report.json").read_text())

    def total(self, expr: str) -> float:
        return sum(series.values[-1] for series in self.prometheus.at(expr, time.time()))


def as_fast_as_may_be(rules: dict[str, Any]) -> None:
    """Rules as they are committed, but for how often they are looked at and how long an alert waits."""
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    hub, prometheus, alertmanager, webhook, api = free_ports(5)
    ports = Ports(hub=hub, prometheus=prometheus, alertmanager=alertmanager, webhook=webhook)
    render(folder / "images", IMAGES)
    for number in range(BROKEN - 1):
        (folder / "images" / f"broken-{number}.png").write_bytes(b"no image")
    with ExitStack() as stack:
        alerts = stack.enter_context(alerts_printed(webhook))
        stack.enter_context(watching(folder, ports, scrape_seconds=1, change_rules=as_fast_as_may_be))
        ray_address = stack.enter_context(service(folder, hub_port=hub, api_port=api))
        running = Live(Prometheus(f"http://127.0.0.1:{prometheus}"), alerts, folder, ray_address)
        job = threading.Thread(target=run_job, args=[running])
        job.start()
        stopped = threading.Event()
        asking = threading.Thread(target=ask, args=[f"http://127.0.0.1:{api}", stopped, running.answers])
        asking.start()
        wait_for(lambda: len(running.answers) >= QUESTIONS / 2, 300)
        kill_hub(ray_address)
        wait_for(lambda: len(running.answers) >= QUESTIONS, 300)
        job.join()
        stopped.set()
        asking.join()
        asked = len(running.answers)
        wait_for(lambda: running.total("sum(skipvision_requests_total)") == asked, 60)
        wait_for(lambda: running.total("sum(skipvision_rows_total)") == IMAGES + BROKEN, 60)
        time.sleep(5)  # rules of rules are evaluated one after the other
        yield running


def kill_hub(ray_address: str) -> None:
    """As a machine does it, while it is told of questions and rows."""
    code = f"""
        import os, signal, ray
        ray.init({ray_address!r}, log_to_driver=False, logging_level="ERROR")
        from monitoring.hub import find_hub
        os.kill(ray.get(find_hub().__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env={**os.environ, **QUIET})


def run_job(live: Live) -> None:
    command = [*job_command(live.folder, live.ray_address, "job"), "--compared-share", "1"]
    with (live.folder / "job.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True, env={**os.environ, **QUIET})


def wait_for(holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.5)


def test_everything_that_boards_ask_is_answered(live: Live) -> None:
    asked = all_expressions()
    assert len(asked) > 150
    unanswered = [
        f"{each.board}: {each.panel}: {each.expr}" for each in asked
        if not live.prometheus.at(filled_in(each.expr, range_seconds=600, rate_interval="30s"), time.time())
    ]  # fmt: skip
    assert unanswered == []


def test_every_rule_has_a_value(live: Live) -> None:
    assert len(RECORDED) > 40
    assert [name for name in RECORDED if not live.prometheus.at(f'{{__name__="{name}"}}', time.time())] == []


def test_everything_that_alerts_read_is_there(live: Live) -> None:
    read = {(name, str(selector)) for name, rule in TOLD.items() for selector in selectors(rule["expr"])}
    assert len(read) > 30
    unanswered = {name for name, expr in read if not live.prometheus.at(expr, time.time())}
    assert unanswered == {"SkipvisionDeviceIdle"}, "it is about GPUs, of which this machine has none"


def test_a_typo_is_not_answered(live: Live) -> None:
    """Else these tests would say nothing."""
    asked = [each for each in all_expressions() if "skipvision_" in each.expr]
    for each in asked[::10]:
        typo = re.sub(r"skipvision_(\w)", r"skipvision_x\1", filled_in(each.expr, range_seconds=600))
        assert not any(series.values[-1] for series in live.prometheus.at(typo, time.time())), typo


def test_requests_and_tokens_are_those_that_clients_were_told_of(live: Live) -> None:
    statuses = Counter(str(status) for status, _ in live.answers)
    assert statuses["200"] > 25
    assert statuses["400"] > 2
    for status, number in statuses.items():
        assert live.total(f'skipvision_requests_total{{status="{status}"}}') == number
    usages = [body["usage"] for status, body in live.answers if status == 200]
    online = 'workload="online"'
    generated = live.total(f'skipvision_text_tokens_total{{{online}, direction="generated"}}')
    assert generated == sum(usage["completion_tokens"] for usage in usages)
    for fate in ("retained", "skipped", "merged", "dropped"):
        told = sum(usage["skipvision"][f"{fate}_tokens"] for usage in usages)
        assert live.total(f'skipvision_visual_tokens_total{{{online}, fate="{fate}"}}') == told
    for name, told in (("flops", "flops"), ("baseline_flops", "flops_all_tokens")):
        total = live.total(f"skipvision_{name}_total{{{online}}}")
        assert total == pytest.approx(sum(usage["skipvision"][told] for usage in usages), rel=1e-12)
    assert live.total('skipvision_tenant_requests_total{outcome="ok"}') == statuses["200"]


def test_rows_tokens_and_money_are_those_of_the_report(live: Live) -> None:
    report, batch = live.report, 'workload="batch"'
    assert live.total(f'skipvision_rows_total{{{batch}, outcome="ok"}}') == report["ok"] == IMAGES
    assert live.total(f'skipvision_errors_total{{{batch}, code="image_unidentified"}}') == BROKEN
    assert live.total(f'skipvision_visual_tokens_total{{{batch}, fate="skipped"}}') == report["tokens"]["skipped"]
    spent = live.total(f"skipvision_cost_usd_total{{{batch}}}")
    assert spent == pytest.approx(report["money"]["usd"]["spent"], rel=1e-9)
    modelled = live.total(f'skipvision_baseline_cost_usd_total{{{batch}, basis="modelled"}}')
    assert modelled == pytest.approx(report["money"]["usd"]["modelled"], rel=1e-9)
    assert live.total(f'skipvision_baseline_cost_usd_total{{{batch}, basis="measured"}}') > 0
    assert live.total(f"skipvision_compared_rows_total{{{batch}}}") == report["comparison"]["rows"] > 0
    assert live.total('skipvision_job_progress_ratio{job_name="scenes"}') == 1


def test_what_the_encoder_gave_is_retained_skipped_merged_or_dropped(live: Live) -> None:
    fates = live.total("sum(skipvision_visual_tokens_total)")
    assert fates == 256 * live.total('sum(skipvision_images_total{outcome="ok"})')


def test_a_fault_goes_from_the_metric_to_the_webhook(live: Live) -> None:
    """The job's broken images are more than one in twenty."""
    wait_for(lambda: any(a["labels"]["alertname"] == "SkipvisionRowErrorsHigh" for a in live.alerts), 60)
    alert = next(a for a in live.alerts if a["labels"]["alertname"] == "SkipvisionRowErrorsHigh")
    assert alert["status"] == "firing"
    assert alert["labels"]["cluster"] == "local"
    assert alert["labels"]["model"] == "zoo"
    assert "%" in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"].endswith("docs/runbook.md#skipvisionrowerrorshigh")
    assert any(a["labels"]["alertname"] == "SkipvisionWatchdog" for a in live.alerts)
