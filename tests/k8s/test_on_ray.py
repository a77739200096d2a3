"""What the manifests have Ray do, done by a Ray of this machine: the service answers, the job comes to its end.

Its nodes and their CPUs are those of the manifests, and its head is asked with a token, as the operator asks it. What
is replaced, since it is true in a Pod alone, stands in `this_machine`: folders, ports, and GPUs.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx2 as httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from ray import serve

from k8s.policies.deployment import deployments
from pipelines.folder import JobFolder
from pipelines.layout import DATA, REPORT_HTML, REPORT_JSON
from service import application
from skipvision.errors import ConfigError
from skipvision.metrics.hub import Hub
from tests.k8s.this_machine import ON_CPUS, Machine, cluster_of, counted, replaced, wait_until

OVERLAYS = {each.name: each for each in deployments()}
IMAGES = Path(__file__).parents[2] / "examples" / "images"
PICTURES = (
    "banner-3x1.jpg", "landscape-4x3.jpg", "palette.png", "portrait-3x4.jpg", "progressive.jpg", "rotated-by-exif.jpg",
    "small.png", "square.png",
)  # fmt: skip
APPLICATIONS = "/api/serve/applications/"
REQUESTS, ROWS = ("skipvision_requests_total", "status"), ("skipvision_rows_total", "outcome")


@pytest.fixture(params=["cpu-dev", "gpu", "spot"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """In the place of an overlay's Pods."""
    return Machine.of(OVERLAYS[request.param], tmp_path)


def arguments(serve_config: str) -> dict[str, Any]:
    [only] = yaml.safe_load(serve_config)["applications"]
    return dict(only["args"])


def test_the_application_of_an_overlay_can_be_built(machine: Machine) -> None:
    assert isinstance(application(arguments(machine.serve_config())), serve.Application)


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ((), "metrics_prot"),
        (("models", 0), r"models\.0\.\S*metrics_prot"),
        (("tenants", 0), r"tenants\.0\.\S*metrics_prot"),
    ],
)
def test_an_application_with_a_setting_that_nobody_knows_is_refused_by_its_name(
    place: tuple[Any, ...], named: str, tmp_path: Path
) -> None:
    settings = arguments(Machine.of(OVERLAYS["gpu"], tmp_path).serve_config())
    there: Any = settings
    for key in place:
        there = there[key]
    there["metrics_prot"] = 9400
    with pytest.raises(ConfigError, match=named):
        application(settings)


def test_what_a_manifest_no_longer_says_is_not_replaced_in_silence() -> None:
    with pytest.raises(AssertionError, match="'metrics_port: 9400' is not there"):
        replaced("metrics_port: 9401", {"metrics_port: 9400": "metrics_port: 1"})


def state(head: httpx.Client) -> dict[str, Any]:
    """Of the application, as the operator looks at it."""
    applications: dict[str, Any] = head.get(APPLICATIONS).json()["applications"]
    return dict(applications.get("skipvision", {"status": "NOT_STARTED"}))


def deploy(head: httpx.Client, serve_config: str, *, until: str) -> dict[str, Any]:
    """Hand a Serve config to the head as the operator does; the application's state when it has come to that."""
    taken = head.put(APPLICATIONS, json=yaml.safe_load(serve_config))
    assert taken.status_code == 200, taken.text
    wait_until(lambda: state(head)["status"] == until, lambda: json.dumps(state(head), indent=1))
    return state(head)


def ask(machine: Machine, model: str, **headers: str) -> httpx.Response:
    """About a picture."""
    shown = {"url": f"data:image/png;base64,{base64.b64encode((IMAGES / 'square.png').read_bytes()).decode()}"}
    content = [{"type": "image_url", "image_url": shown}, {"type": "text", "text": "Describe the image."}]
    asked = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 16}
    return httpx.post(f"http://127.0.0.1:{machine.port}/v1/chat/completions", json=asked, headers=headers, timeout=240)


def replicas(head: httpx.Client, model: str) -> int:
    return len(state(head)["deployments"][f"model {model}"]["replicas"])


def answers_from_none(head: httpx.Client, machine: Machine, model: str, **headers: str) -> None:
    """There is no replica; a request starts one, is answered, and is counted by the hub."""
    assert replicas(head, model) == 0
    answer = ask(machine, model, **headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert replicas(head, model) >= 1
    wait_until(lambda: told(machine, *REQUESTS) == {"200": 1}, lambda: str(told(machine, *REQUESTS)))


def told(machine: Machine, name: str, label: str) -> dict[str, float]:
    """What a counter of the hub has counted, as Prometheus reads it, by one label."""
    return counted(httpx.get(f"http://127.0.0.1:{machine.hub_port}/metrics").text, name, label)


def kept(machine: Machine, name: str, label: str) -> dict[str, float]:
    """The same, as a hub on the next head begins with it."""
    return counted(Hub(machine.totals).registry.text(), name, label)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", ["cpu-dev"], indirect=True)
def test_the_service_to_look_at_starts_from_none_for_whoever_asks(machine: Machine, tmp_path: Path) -> None:
    with cluster_of(machine.deployment, "RayService", tmp_path / "ray.log") as head:
        deploy(head, machine.serve_config(), until="RUNNING")
        answers_from_none(head, machine, "zoo")
    assert kept(machine, *REQUESTS) == {"200": 1}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", ["gpu"], indirect=True)
def test_the_service_on_gpus_moved_to_cpus_knows_its_callers_and_outlives_a_wrong_config(
    machine: Machine, tmp_path: Path
) -> None:
    """Replaced are the device and, by the one that ships with the package, the checkpoint."""
    config = replaced(machine.serve_config(), ON_CPUS)
    with_key = {"Authorization": f"Bearer {machine.key}"}
    with cluster_of(machine.deployment, "RayService", tmp_path / "ray.log") as head:
        deploy(head, config, until="RUNNING")
        refused = ask(machine, "captions")
        assert refused.status_code == 401
        assert refused.json()["error"].keys() == {"message", "type", "param", "code"}, "as OpenAI says it"
        assert refused.json()["error"]["code"] == "missing_api_key"
        answers_from_none(head, machine, "captions", **with_key)

        wrong = replaced(config, {"drain_seconds: 60": "drain_secnods: 60"})
        assert "drain_secnods: Unexpected" in deploy(head, wrong, until="DEPLOY_FAILED")["message"]
        assert ask(machine, "captions", **with_key).status_code == 200
        wait_until(lambda: told(machine, *REQUESTS) == {"200": 2}, lambda: str(told(machine, *REQUESTS)))
    assert kept(machine, *REQUESTS) == {"200": 2}


@pytest.fixture
def bucket(s3: str) -> Iterator[str]:
    """The bucket that the job files name, with pictures to read; there is none afterwards."""
    name = "skipvision"
    store = boto3.resource("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
    found = store.create_bucket(Bucket=name)
    for picture in PICTURES:
        found.upload_file(str(IMAGES / picture), f"images/{picture}")
    yield f"s3://{name}"
    found.objects.all().delete()
    found.delete()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", ["cpu-dev", "gpu"], indirect=True)
def test_the_job_answers_every_picture_of_its_bucket(machine: Machine, bucket: str, tmp_path: Path) -> None:
    """Of the overlay for GPUs the engines are on CPUs, and the checkpoint is the one that ships with the package.

    The entrypoint names the ConfigMap's file in another folder; in it folders, the hub's port and its host are others.
    """
    settings = machine.deployment.job()
    assert (settings["input"], settings["output"]) == (f"{bucket}/images", f"{bucket}/answers"), "as they are written"
    with cluster_of(machine.deployment, "RayJob", tmp_path / "ray.log") as head:
        job = head.post("/api/jobs/", json={"entrypoint": machine.entrypoint()}).json()["submission_id"]

        def status() -> str:
            return str(head.get(f"/api/jobs/{job}").json()["status"])

        def log() -> str:
            return str(head.get(f"/api/jobs/{job}/logs").json()["logs"])

        wait_until(lambda: status() not in ("PENDING", "RUNNING"), log)
        assert status() == "SUCCEEDED", log()
        # What grew before it was first read is told as 0 then, and as it is from then on.
        wait_until(lambda: told(machine, *ROWS) == {"ok": len(PICTURES)}, lambda: str(told(machine, *ROWS)))
    output = JobFolder(settings["output"])
    rows = [row for name in output.names(DATA) for row in pq.read_table(pa.BufferReader(output.read(name))).to_pylist()]
    assert sorted(row["path"] for row in rows) == sorted(PICTURES)
    assert all(row["answer"] for row in rows)
    report = json.loads(output.read(REPORT_JSON) or b"")
    assert (report["rows"], report["ok"]) == (len(PICTURES), len(PICTURES))
    assert report["money"]["prices"].startswith("example"), "the price list is mounted"
    assert b"<html" in (output.read(REPORT_HTML) or b"")
    assert kept(machine, *ROWS) == {"ok": len(PICTURES)}
