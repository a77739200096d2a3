"""The manifests of a job: what is put into a template, and what of it stays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.submission.rayjob import MOUNT, manifests, read_template, request_in
from pipelines.submission.request import JobRequest
from skipvision.cli import main
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError
from tests.pipelines.submission.hand_made import job_file

PRICES = Path(__file__).parents[3] / "examples" / "prices.yaml"

TEMPLATE: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "skipvision", "namespace": "jobs", "labels": {"kueue.x-k8s.io/queue-name": "gpus"}},
    "spec": {
        "entrypoint": "to be replaced",
        "submissionMode": "HTTPMode",
        "shutdownAfterJobFinishes": True,
        "preRunningDeadlineSeconds": 1800,
        "rayClusterSpec": {
            "rayVersion": "2.60.0",
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": "0"},
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "name": "ray-head",
                                "image": "registry.example/skipvision:1",
                                "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                            }
                        ],
                        "volumes": [{"name": "cache", "emptyDir": {}}],
                    }
                },
            },
            "workerGroupSpecs": [
                {"groupName": "gpu", "minReplicas": 0, "maxReplicas": 2, "template": {"spec": {"containers": []}}}
            ],
        },
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The template with one value in another's place; None takes it out."""
    template = copy.deepcopy(TEMPLATE)
    *way, last = path.split(".")
    place = template
    for step in way:
        place = place[step]
    place[last] = value
    if value is None:
        del place[last]
    return template


@pytest.fixture
def template_file(tmp_path) -> Path:
    path = tmp_path / "rayjob.yaml"
    path.write_text(yaml.safe_dump(TEMPLATE))
    return path


def request_of(**settings: Any) -> JobRequest:
    return JobRequest.of(JobConfig(input="s3://pictures/2026", output="s3://answers/2026", **settings))


def test_the_driver_finds_its_files_where_the_command_says():
    config_map, rayjob = manifests(request_of(prices=str(PRICES), seed=4), TEMPLATE, namespace="jobs")
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    [volume] = [each for each in head["volumes"] if "configMap" in each]
    [mount] = [each for each in head["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    job = yaml.safe_load(config_map["data"]["job.yaml"])
    assert rayjob["spec"]["entrypoint"].split()[-2:] == ["run", f"{mount['mountPath']}/job.yaml"]
    assert job["prices"] == f"{MOUNT}/prices.yaml"
    assert yaml.safe_load(config_map["data"]["prices.yaml"]) == yaml.safe_load(PRICES.read_text())
    config = check(job, JobConfig, origin="the driver")
    assert (config.ray_address, config.seed, config.output) == ("auto", 4, "s3://answers/2026")


def test_all_else_is_the_templates():
    _, rayjob = manifests(request_of(), TEMPLATE, namespace=None)
    assert rayjob["metadata"]["namespace"] == "jobs"
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    spec = rayjob["spec"]
    assert spec["preRunningDeadlineSeconds"] == 1800
    assert spec["rayClusterSpec"]["workerGroupSpecs"] == TEMPLATE["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert {"name": "cache", "emptyDir": {}} in spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert TEMPLATE["spec"]["entrypoint"] == "to be replaced", "the template is left as it is"


def test_a_job_comes_out_of_its_config_map_as_it_went_in_and_can_be_its_own_template():
    sent = request_of(prices=str(PRICES), prompt="What is\nit?")
    config_map, rayjob = manifests(sent, TEMPLATE, namespace="jobs")
    assert request_in(config_map["data"]) == sent
    kept = yaml.safe_load(config_map["data"]["rayjob.yaml"])
    assert manifests(sent, kept, namespace="jobs")[1] == rayjob, "nothing is put in twice"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (changed("apiVersion", "ray.io/v1alpha1"), "v1alpha1"),
        (changed("spec.clusterSelector", {"ray.io/cluster": "mine"}), "clusterSelector"),
        (changed("spec.submissionMode", "InteractiveMode"), "submissionMode"),
        (changed("spec.rayClusterSpec.headGroupSpec", None), "containers"),
        (changed("spec.rayClusterSpec.headGroupSpec.template.spec.containers", []), "containers"),
        (changed("spec", None), "containers"),
        (changed("kind", "RayCluster"), "it holds 0"),
    ],
)
def test_a_template_that_no_job_can_run_in_is_refused(tmp_path, template, says):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(template))
    with pytest.raises(ConfigError, match=says):
        read_template(path)


def test_a_dry_run_prints_what_would_be_applied_and_asks_nobody(capsys, tmp_path, template_file, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    job = job_file(tmp_path, output="s3://answers/2026")
    arguments = ["submit", str(job), "--kubernetes", "--template", str(template_file), "--dry-run", "--namespace", "n"]
    assert main(arguments) == 0
    config_map, rayjob = yaml.safe_load_all(capsys.readouterr().out)
    assert (config_map["kind"], rayjob["kind"]) == ("ConfigMap", "RayJob")
    assert {each["metadata"]["namespace"] for each in (config_map, rayjob)} == {"n"}
    assert config_map["metadata"]["name"] == rayjob["metadata"]["name"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dry-run"], "--template"),
        (["--namespace", "n"], "--namespace belong"),
        (["--kubernetes", "--address", "http://there:8265"], "drop one"),
        (["--address", "there:8265"], "http://host:8265"),
        ([], "no cluster is named"),
        (["--kubernetes", "--dry-run", "--template", "{folder}/absent.yaml"], "absent.yaml cannot be read"),
        (["--kubernetes", "--dry-run", "--template", "{folder}/rayjob.yaml"], "--shared-files"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_says_why(capsys, tmp_path, template_file, monkeypatch, arguments, says):
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    job = job_file(tmp_path)
    assert main(["submit", str(job), *(each.format(folder=tmp_path) for each in arguments)]) == 2
    assert says in capsys.readouterr().err
