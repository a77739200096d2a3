"""A job that is submitted to a namespace where an overlay stands: made from the RayJob that waits there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k8s import policies, schemas
from k8s.policies.deployment import Deployment, deployments
from pipelines.submission.kubernetes_jobs import DEFAULT_TEMPLATE
from pipelines.submission.rayjob import JOB_FILE, MOUNT, check_template, manifests
from pipelines.submission.request import JobRequest
from skipvision.config import JobConfig

REQUEST = JobRequest.of(
    JobConfig(
        input="s3://pictures/2026", output="s3://answers/2026", workers=2, device="cuda", metrics_port=9400,
        metrics_host="0.0.0.0",
    )
)  # fmt: skip

OF_WHAT_WAITS = {"jobs_cost_no_more_than_they_may", "schedules_start_each_job_once", "the_job_has_valid_settings"}
"""That it does wait, for schedules to copy it, with a file beside it. A job that is submitted begins, with its own."""


@pytest.fixture(params=deployments(), ids=lambda each: each.name)
def deployment(request: pytest.FixtureRequest) -> Deployment:
    found: Deployment = request.param
    return found


@pytest.fixture
def submitted(deployment: Deployment) -> list[schemas.Manifest]:
    """The ConfigMap and the RayJob of a job."""
    waiting = deployment.find("RayJob", DEFAULT_TEMPLATE)
    assert waiting is not None, "the template that is taken if none is named"
    check_template(waiting, deployment.name)
    return list(manifests(REQUEST, waiting, namespace="skipvision"))


def test_kubernetes_takes_it(submitted: list[schemas.Manifest]) -> None:
    for manifest in submitted:
        assert schemas.problems(manifest, schemas.schemas()) == []


def test_it_begins_at_once_and_its_driver_has_its_files_where_nothing_else_is_mounted(
    submitted: list[schemas.Manifest],
) -> None:
    config_map, rayjob = submitted
    assert "suspend" not in rayjob["spec"]
    assert rayjob["spec"]["entrypoint"].split()[-1] == f"{MOUNT}/{JOB_FILE}"
    pod = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    places = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert len(places) == len(pod["containers"][0]["volumeMounts"]), "Kubernetes refuses two mounts in one place"
    [volume] = [each for each in pod["volumes"] if each["name"] == places[MOUNT]]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    assert JOB_FILE in config_map["data"]


@pytest.mark.parametrize("policy", sorted(policies.ALL.keys() - OF_WHAT_WAITS))
def test_it_holds_the_policies_that_its_template_holds(
    policy: str, deployment: Deployment, submitted: list[schemas.Manifest]
) -> None:
    others = [each for each in deployment.manifests if each["kind"] != "RayJob"]
    assert list(policies.ALL[policy](replace(deployment, manifests=[*others, *submitted]))) == []
