"""Jobs on Kubernetes, each a RayJob with a cluster of its own, by KubeRay.

The ConfigMap is the record of a job and outlives its RayJob, which is deleted to stop the job: so KubeRay tells its
driver to end before its machines go, which it does not when a RayJob is suspended. To start a job again, a RayJob that
is over is deleted, and applied anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from pipelines.submission.kubernetes_api import KubernetesApi
from pipelines.submission.place import Status, SubmittedJob, Tell
from pipelines.submission.rayjob import RAYJOB_FILE, Manifest, check_template, manifests, read_template, request_in
from pipelines.submission.request import JobRequest
from pipelines.submission.standing import is_finished, read_standing
from skipvision.errors import ConfigError, JobStoppedError

DEFAULT_TEMPLATE = "skipvision-batch"
"""The RayJob that the overlays of k8s/ have waiting in their namespace."""
DELETE_SECONDS = 180.0
"""That the operator may take to let a RayJob go."""

_LOOK_SECONDS = 10
_AWAY_SECONDS = 300.0
"""For so long the API may not answer while a job is followed."""
_STATUS = {
    "Running": Status.RUNNING,
    "Complete": Status.DONE,
    "Failed": Status.FAILED,
    "ValidationFailed": Status.FAILED,
}
"""Of `jobDeploymentStatus`; with any other the job waits: for machines, or for a queue that holds it back."""


class KubernetesJobs:
    """The jobs of a namespace.

    Args:
        namespace: None: the template's, else the context's.
        template: a RayJob. None: what a job was started with before, and for a new one `DEFAULT_TEMPLATE`.
    """

    def __init__(
        self, *, namespace: str | None, context: str | None, template: Path | None = None, kubeconfig: str | None = None
    ) -> None:
        self._template = None if template is None else read_template(template)
        if namespace is None and self._template is not None:
            namespace = (self._template.get("metadata") or {}).get("namespace")
        self._api = KubernetesApi(namespace=namespace, context=context, kubeconfig=kubeconfig)
        self._context = context
        try:
            self._api.rayjobs()
        except JobStoppedError as error:
            raise ConfigError(f"no Kubernetes API answers at {self._api.host}; see kubectl config view") from error

    @property
    def flags(self) -> str:
        context = "" if self._context is None else f" --context {self._context}"
        return f"--kubernetes --namespace {self._api.namespace}{context}"

    def is_this_machine(self) -> bool:
        return False

    def jobs(self) -> list[SubmittedJob]:
        rayjobs = {rayjob["metadata"]["name"]: rayjob for rayjob in self._api.rayjobs()}
        kept = self._api.config_maps()
        found = [_job(each, rayjobs.get(each["metadata"]["name"])) for each in kept]
        return sorted(found, key=lambda job: (job.started or datetime.max.replace(tzinfo=UTC), job.id))

    def find(self, job_id: str) -> SubmittedJob | None:
        kept = self._api.config_map(job_id)
        return None if kept is None else _job(kept, self._api.rayjob(job_id))

    def start(self, request: JobRequest, *, after: SubmittedJob | None) -> SubmittedJob:
        template = self._template or self._kept_template(request.id) or self._default_template()
        config_map, rayjob = manifests(request, template, namespace=self._api.namespace)
        there = self.find(request.id)
        if there is not None and not there.status.is_over:
            return there
        self._delete(request.id)
        self._api.apply_config_map(config_map)
        self._api.apply_rayjob(rayjob)
        return _job(config_map, self._api.rayjob(request.id))

    def follow(self, job: SubmittedJob, tell: Tell) -> SubmittedJob:
        talk, since = _Talk(tell), time.monotonic()
        while True:
            try:
                rayjob = self._api.rayjob(job.id)
                while True:
                    talk.about(job, rayjob, self._api.warnings())
                    if rayjob is None or _status(rayjob).is_over:
                        return _job_of(job, rayjob)
                    since = time.monotonic()
                    rayjob = self._next(rayjob)
            except JobStoppedError:
                if time.monotonic() - since > _AWAY_SECONDS:
                    raise
                time.sleep(1)

    def stop(self, job: SubmittedJob) -> SubmittedJob:
        self._delete(job.id)
        return _job_of(job, None)

    def _next(self, rayjob: Manifest) -> Manifest | None:
        """The RayJob as soon as its state is another, or when some seconds have passed."""
        metadata = rayjob["metadata"]
        for kind, changed in self._api.changes(
            metadata["name"], since=metadata["resourceVersion"], seconds=_LOOK_SECONDS
        ):
            if kind == "DELETED":
                return None
            if _state(changed) != _state(rayjob):
                return changed
        return self._api.rayjob(metadata["name"])

    def _kept_template(self, job_id: str) -> Manifest | None:
        kept = self._api.config_map(job_id)
        return None if kept is None else yaml.safe_load(kept["data"][RAYJOB_FILE])

    def _default_template(self) -> Manifest:
        if (waiting := self._api.rayjob(DEFAULT_TEMPLATE)) is None:
            raise ConfigError(
                f"a new job needs a RayJob to be made from, and there is no {DEFAULT_TEMPLATE} in namespace "
                f"{self._api.namespace}: name another --namespace, apply an overlay of k8s/ there, or bring one "
                "(--template rayjob.yaml)"
            )
        check_template(waiting, f"{DEFAULT_TEMPLATE} in namespace {self._api.namespace}")
        return waiting

    def _delete(self, job_id: str) -> None:
        if (there := self._api.rayjob(job_id)) is None:
            return
        self._api.delete_rayjob(job_id, uid=there["metadata"].get("uid"))
        until = time.monotonic() + DELETE_SECONDS
        while self._api.rayjob(job_id) is not None:
            if time.monotonic() > until:
                raise JobStoppedError(f"RayJob {job_id} was told to end and is still there; see kubectl get rayjobs")
            time.sleep(0.5)


class _Talk:
    """What is said of a job while it is followed, each thing once."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._said: set[str] = set()
        self._last = ""

    def about(self, job: SubmittedJob, rayjob: Manifest | None, warnings: Iterable[Manifest]) -> None:
        """Tell the state where it is another, how far the job is, and what went wrong with its Pods."""
        for warning in warnings:
            if _is_about(warning, job.id, rayjob):
                self._once(f"{warning['reason']}: {warning['message']} ({warning['involvedObject']['name']})")
        standing = read_standing(job.request.output)
        state = "its RayJob is gone" if rayjob is None else _state(rayjob)
        said = f"{job.id}: {state}{f', {standing} rows' if standing else ''}"
        if said != self._last:
            self._tell(said)
            self._last = said

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._tell(line)


def _is_about(warning: Manifest, job_id: str, rayjob: Manifest | None) -> bool:
    """Whether it happened to the RayJob, its cluster, or one of its Pods."""
    cluster = ((rayjob or {}).get("status") or {}).get("rayClusterName")
    name = warning["involvedObject"].get("name", "")
    return name == job_id or name.startswith(f"{job_id}-") or bool(cluster and name.startswith(cluster))


def _job(config_map: Manifest, rayjob: Manifest | None) -> SubmittedJob:
    request, name = request_in(config_map["data"]), config_map["metadata"]["name"]
    return _job_of(SubmittedJob(id=name, handle=name, request=request, status=Status.WAITING), rayjob)


def _job_of(job: SubmittedJob, rayjob: Manifest | None) -> SubmittedJob:
    """The job as its RayJob stands, or as it can be told without one: KubeRay may have removed one that was done."""
    if rayjob is None:
        done = is_finished(job.request.output)
        status, message, started, code = Status.DONE if done else Status.CANCELLED, "", job.started, None
    else:
        said = rayjob.get("status") or {}
        status, message, code = _status(rayjob), _message(rayjob), _exit_code(said.get("message") or "")
        time_of = said.get("startTime") or rayjob["metadata"].get("creationTimestamp")
        started = datetime.fromisoformat(time_of) if time_of else None
    return SubmittedJob(
        id=job.id, handle=job.handle, request=job.request, status=status, started=started,
        message=message if status is not Status.DONE else "", exit_code=code,
    )  # fmt: skip


def _status(rayjob: Manifest) -> Status:
    said = rayjob.get("status") or {}
    status = _STATUS.get(said.get("jobDeploymentStatus") or "", Status.WAITING)
    return Status.CANCELLED if status is Status.DONE and said.get("jobStatus") == "STOPPED" else status


def _state(rayjob: Manifest) -> str:
    """One line: what the operator says, and Ray."""
    said = rayjob.get("status") or {}
    parts = [said.get("jobDeploymentStatus") or "new", said.get("jobStatus") or "", said.get("reason") or ""]
    return " ".join(part for part in parts if part)


def _message(rayjob: Manifest) -> str:
    said = rayjob.get("status") or {}
    lines = [line.strip() for line in (said.get("message") or "").splitlines() if line.strip(" .")]
    return ": ".join(part for part in (said.get("reason"), lines[-1] if lines else None) if part)


def _exit_code(message: str) -> int | None:
    """As Ray says it."""
    found = re.search(r"failed with exit code (\d+)", message)
    return int(found[1]) if found else None
