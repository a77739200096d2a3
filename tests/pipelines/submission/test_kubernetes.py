"""Jobs on Kubernetes: applied, followed, found, stopped and started again, against an API server over HTTP."""

from __future__ import annotations

import copy
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.submission import kubernetes_jobs
from pipelines.submission.kubernetes_jobs import DEFAULT_TEMPLATE
from skipvision.cli import main
from tests.pipelines.submission.fake_kubernetes import FakeKubernetes, config_for, kubernetes_api
from tests.pipelines.submission.hand_made import commit_rows, finish, job_file
from tests.pipelines.submission.test_rayjob import TEMPLATE, changed

STEP_SECONDS = 0.3


class Operator:
    """What KubeRay does with a RayJob, as a test says; it has done nothing until a test does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ending = "done"

    def __call__(self, api: FakeKubernetes, name: str) -> None:
        api.say(name, jobDeploymentStatus="Initializing", rayClusterName=f"{name}-x7k2p")
        api.warn(
            f"{name}-x7k2p-gpu-worker-1", "FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
        )
        api.warn("of-another-job", "FailedScheduling", "something else")
        time.sleep(STEP_SECONDS)
        api.say(name, jobDeploymentStatus="Running", jobStatus="RUNNING", startTime="2026-11-27T10:00:05Z")
        commit_rows(self.folder, 1)
        time.sleep(STEP_SECONDS)
        getattr(self, self.ending)(api, name)

    def done(self, api: FakeKubernetes, name: str) -> None:
        finish(self.folder)
        api.say(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", message="Job finished successfully.")

    def endless(self, api: FakeKubernetes, name: str) -> None: ...

    def refused(self, api: FakeKubernetes, name: str) -> None:
        said = "Job entrypoint command failed with exit code 2, last available logs:\nskipvision: input is gone"
        api.say(name, jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message=said)

    def late(self, api: FakeKubernetes, name: str) -> None:
        said = "The RayJob has passed the activeDeadlineSeconds"
        api.say(name, jobDeploymentStatus="Failed", reason="DeadlineExceeded", message=said)


@pytest.fixture
def operator(tmp_path) -> Operator:
    return Operator(tmp_path)


@pytest.fixture
def api(tmp_path, operator, monkeypatch) -> Iterator[FakeKubernetes]:
    monkeypatch.setattr(kubernetes_jobs, "_LOOK_SECONDS", 1)
    with kubernetes_api(tmp_path, operator) as (server, kubeconfig):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield server


@pytest.fixture
def submit_by_default(tmp_path, api):
    """Submit a job whose output is `tmp_path`/job, by what waits in the namespace; the exit code."""

    def send(*more: str, **settings: Any) -> int:
        return main(["submit", str(job_file(tmp_path, **settings)), "--kubernetes", "--shared-files", *more])

    return send


@pytest.fixture
def submit(tmp_path, submit_by_default):
    """The same by a template of one's own."""
    template = tmp_path / "rayjob.yaml"
    template.write_text(yaml.safe_dump(TEMPLATE))

    def send(*more: str, **settings: Any) -> int:
        return submit_by_default("--template", str(template), *more, **settings)

    return send


def jobs(capsys, *arguments: str) -> dict[str, Any]:
    assert main(["jobs", *arguments, "--kubernetes", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def rayjobs(api: FakeKubernetes) -> list[str]:
    return [name for kind, name in api.objects if kind == "rayjobs"]


def test_a_job_is_applied_followed_through_its_troubles_and_its_report_fetched(submit, api, tmp_path, capsys):
    api.cut_watches = 1
    assert submit("--report", str(tmp_path / "here"), "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["rows"] == 5
    assert (tmp_path / "here" / "report.html").read_text() == "<html>the report</html>"
    for said in ("Initializing", "FailedScheduling: 0/3 nodes", "Running RUNNING", "Complete SUCCEEDED, 5 of 5 rows"):
        assert said in told.err
    assert told.err.count("Insufficient nvidia.com/gpu") == 1, "said once"
    assert "something else" not in told.err
    assert [kind for kind, _ in api.applied] == ["configmaps", "rayjobs"], "what is mounted is there first"


def test_without_a_template_a_job_is_made_from_the_one_that_waits_in_the_namespace(submit_by_default, api):
    waiting = copy.deepcopy(TEMPLATE)
    waiting["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "photos"}
    waiting["spec"]["suspend"] = True
    api.put("rayjobs", DEFAULT_TEMPLATE, {**waiting, "status": {"jobDeploymentStatus": "Suspended"}})
    assert submit_by_default() == 0
    [rayjob] = [applied for kind, applied in api.applied if kind == "rayjobs"]
    assert rayjob["metadata"]["name"] != DEFAULT_TEMPLATE
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in rayjob["metadata"]["annotations"]
    assert rayjob["metadata"]["annotations"]["team"] == "photos"
    assert "suspend" not in rayjob["spec"], "it is to begin, or to be held back by Kueue alone"
    assert rayjob["spec"]["preRunningDeadlineSeconds"] == TEMPLATE["spec"]["preRunningDeadlineSeconds"]


@pytest.mark.parametrize("waits", [False, True])
def test_where_no_template_waits_or_none_that_a_job_can_run_in_it_is_said_and_nothing_is_sent(
    submit_by_default, api, capsys, waits
):
    if waits:
        api.put("rayjobs", DEFAULT_TEMPLATE, changed("spec.clusterSelector", {"ray.io/cluster": "mine"}))
    assert submit_by_default() == 2
    said = capsys.readouterr().err
    assert f"{DEFAULT_TEMPLATE} in namespace jobs" in said
    assert ("clusterSelector" if waits else "--template rayjob.yaml") in said
    assert api.applied == []


def test_sent_again_a_job_that_is_done_is_found_done(submit, api, capsys):
    assert submit() == 0
    assert submit() == 0
    assert "was there already" in capsys.readouterr().err
    assert len(api.applied) == 2


@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [("refused", 2, "input is gone"), ("late", 3, "DeadlineExceeded: The RayJob has passed the activeDeadlineSeconds")],
)
def test_how_a_job_ended_decides_how_the_command_does(submit, operator, capsys, ending, code, says):
    operator.ending = ending
    assert submit() == code
    assert says in capsys.readouterr().err


def test_a_job_that_runs_is_found_and_with_other_settings_refused(submit, api, operator, capsys):
    operator.ending = "endless"
    assert submit("--no-wait") == 0
    assert submit("--no-wait") == 0
    assert "was there already" in capsys.readouterr().err
    assert submit("--no-wait", seed=7) == 2
    assert "another seed" in capsys.readouterr().err
    assert len(api.applied) == 2


def test_a_job_is_cancelled_and_goes_on_from_what_was_kept_of_it(submit, api, operator, capsys, tmp_path):
    operator.ending = "endless"
    assert submit("--no-wait") == 0
    [name] = rayjobs(api)
    while jobs(capsys, "show", name)["rows"] != "2 of 5":
        time.sleep(0.1)
    assert jobs(capsys, "list")["jobs"][0] | {"id": name} == {
        "id": name,
        "name": "job",
        "status": "running",
        "rows": "2 of 5",
        "started": "2026-11-27 10:00:05Z",
        "output": str(tmp_path / "job"),
    }
    assert main(["jobs", "cancel", str(tmp_path / "job"), "--kubernetes"]) == 0
    assert "2 of 5 rows are committed" in capsys.readouterr().err
    assert rayjobs(api) == []
    assert jobs(capsys, "show", name)["status"] == "cancelled"

    operator.ending = "done"
    assert main(["jobs", "resume", name, "--kubernetes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] == 5
    first, again = [applied for kind, applied in api.applied if kind == "rayjobs"]
    assert first == again
    api.remove("rayjobs", name)  # as KubeRay does when its time is over
    assert jobs(capsys, "show", name)["status"] == "done"


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        ((404, "the server could not find the requested resource"), "install KubeRay"),
        ((403, "rayjobs is forbidden"), "refuses this account: rayjobs is forbidden"),
        ((500, "etcdserver: request timed out"), "no Kubernetes API answers"),
    ],
)
def test_a_cluster_that_takes_no_rayjobs_is_named_before_anything_is_sent(submit, api, capsys, refusal, says):
    api.refusal = refusal
    assert submit() == 2
    assert says in capsys.readouterr().err
    assert api.applied == []


def test_a_cluster_that_does_not_answer_or_is_not_configured_is_named(submit, tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "dead.yaml").write_text(yaml.safe_dump(config_for(address)))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "dead.yaml"))
    assert submit() == 2
    assert f"no Kubernetes API answers at {address}" in capsys.readouterr().err
    assert submit("--context", "elsewhere") == 2
    assert "elsewhere" in capsys.readouterr().err
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent.yaml"))
    assert submit() == 2
    assert "no Kubernetes cluster is configured here" in capsys.readouterr().err
