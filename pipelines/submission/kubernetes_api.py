"""The few calls of the Kubernetes API that jobs need, and what goes wrong in them, in this program's words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from pipelines.submission.rayjob import LABELS, Manifest
from skipvision.errors import ConfigError, JobStoppedError

_GROUP, _VERSION, _PLURAL = "ray.io", "v1", "rayjobs"
_MANAGER = "skipvision"
_APPLY: dict[str, Any] = {"field_manager": _MANAGER, "force": True, "_content_type": "application/apply-patch+yaml"}
_SECONDS = 30.0
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a Pod reads its own."""
_SELECTOR = ",".join(f"{name}={value}" for name, value in LABELS.items())


class KubernetesApi:
    """One namespace of a Kubernetes cluster.

    Args:
        kubeconfig: its file. None: the usual one, or the account of the Pod that this runs in.
    """

    def __init__(self, *, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
        settings = client.Configuration()
        theirs = _load(settings, context, kubeconfig)
        self.namespace = namespace or theirs or "default"
        self.host = settings.host
        api = client.ApiClient(settings)
        self._core, self._custom = client.CoreV1Api(api), client.CustomObjectsApi(api)

    def config_map(self, name: str) -> Manifest | None:
        with _told(self.host):
            found = _or_none(self._core.read_namespaced_config_map, name, self.namespace)
            return None if found is None else _plain(found)

    def config_maps(self) -> list[Manifest]:
        """Those of jobs."""
        with _told(self.host):
            found = self._core.list_namespaced_config_map(
                self.namespace, label_selector=_SELECTOR, _request_timeout=_SECONDS
            )
            return [_plain(each) for each in found.items]

    def apply_config_map(self, manifest: Manifest) -> None:
        with _told(self.host):
            self._core.patch_namespaced_config_map(
                manifest["metadata"]["name"], self.namespace, manifest, _request_timeout=_SECONDS, **_APPLY
            )

    def rayjob(self, name: str) -> Manifest | None:
        with _told(self.host):
            found: Manifest | None = _or_none(
                self._custom.get_namespaced_custom_object, _GROUP, _VERSION, self.namespace, _PLURAL, name
            )
            return found

    def rayjobs(self) -> list[Manifest]:
        """Those of jobs."""
        with _told(self.host):
            found = self._custom.list_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, _PLURAL, label_selector=_SELECTOR, _request_timeout=_SECONDS
            )
            return list(found["items"])

    def apply_rayjob(self, manifest: Manifest) -> None:
        with _told(self.host):
            self._custom.patch_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, _PLURAL, manifest["metadata"]["name"], manifest,
                _request_timeout=_SECONDS, **_APPLY,
            )  # fmt: skip

    def delete_rayjob(self, name: str, *, uid: str | None) -> None:
        """Delete a RayJob, if it is still the one with this uid."""
        only = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=uid))
        with _told(self.host):
            try:
                self._custom.delete_namespaced_custom_object(
                    _GROUP, _VERSION, self.namespace, _PLURAL, name, body=only, _request_timeout=_SECONDS
                )
            except ApiException as error:
                if error.status not in (404, 409):  # gone, or another one by now
                    raise

    def changes(self, name: str, *, since: str, seconds: int) -> Iterator[tuple[str, Manifest]]:
        """How a RayJob changes in the next seconds: `MODIFIED` or `DELETED`, and what it is then."""
        with _told(self.host):
            stream = watch.Watch().stream(
                self._custom.list_namespaced_custom_object, _GROUP, _VERSION, self.namespace, _PLURAL,
                field_selector=f"metadata.name={name}", resource_version=since, timeout_seconds=seconds,
                _request_timeout=seconds + _SECONDS,
            )  # fmt: skip
            try:
                for event in stream:
                    yield event["type"], event["raw_object"]
            except ApiException as error:
                if error.status != 410:  # too old to go on from: whoever follows looks again
                    raise

    def warnings(self) -> list[Manifest]:
        """What went wrong in the namespace lately."""
        with _told(self.host):
            found = self._core.list_namespaced_event(
                self.namespace, field_selector="type=Warning", _request_timeout=_SECONDS
            )
            return [_plain(each) for each in found.items]


def _load(settings: client.Configuration, context: str | None, kubeconfig: str | None) -> str | None:
    """Fill in where the cluster is; the namespace that goes with it."""
    try:
        if context is None and kubeconfig is None:
            try:
                config.load_incluster_config(client_configuration=settings)
                return _OWN_NAMESPACE.read_text().strip()
            except ConfigException:
                pass  # not in a Pod
        config.load_kube_config(config_file=kubeconfig, context=context, client_configuration=settings)
        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)
    except (ConfigException, OSError) as error:
        raise ConfigError(f"no Kubernetes cluster is configured here: {error}; see kubectl config view") from error
    chosen = active if context is None else next(each for each in contexts if each["name"] == context)
    return chosen["context"].get("namespace") or None


def _or_none(call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments, _request_timeout=_SECONDS)
    except ApiException as error:
        if error.status == 404:
            return None
        raise


def _plain(found: Any) -> Manifest:
    """An object of the client as the API wrote it."""
    plain: Manifest = client.ApiClient(client.Configuration()).sanitize_for_serialization(found)
    return plain


@contextmanager
def _told(host: str) -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        said = _said(error)
        if error.status in (401, 403):
            raise ConfigError(f"Kubernetes at {host} refuses this account: {said}") from error
        if error.status == 404:
            raise ConfigError(f"Kubernetes at {host} knows no RayJobs of ray.io/v1: install KubeRay there") from error
        if error.status in (400, 409, 422):
            raise ConfigError(f"Kubernetes at {host} refuses the manifest: {said}") from error
        raise JobStoppedError(f"Kubernetes at {host} answers with an error: {said}") from error
    except HTTPError as error:
        raise JobStoppedError(
            f"Kubernetes at {host} does not answer; the job goes on as long as its cluster does"
        ) from error


def _said(error: ApiException) -> str:
    """The message in an answer."""
    try:
        return str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        return f"{error.status} {error.reason}"
