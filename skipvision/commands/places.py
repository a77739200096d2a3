"""Where jobs are sent: the flags that say so, and what they come to."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.submission.place import Place

Address = Annotated[
    str | None,
    typer.Option(help="Ray's job server, http://host:8265. Default: RAY_API_SERVER_ADDRESS or RAY_ADDRESS, if set."),
]
Kubernetes = Annotated[bool, typer.Option("--kubernetes", help="Kubernetes with KubeRay in place of a Ray cluster.")]
Namespace = Annotated[str | None, typer.Option(help="With --kubernetes. Default: the context's.")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig, with --kubernetes. Default: the current one.")]


def place_of(
    address: str | None, kubernetes: bool, namespace: str | None, context: str | None, *, template: Path | None = None
) -> Place:
    """What the flags name.

    Raises:
        ConfigError: they contradict each other, nobody answers there, or what it takes is not installed here.
    """
    if not kubernetes:
        given = {"--namespace": namespace, "--context": context, "--template": template}
        if needless := [flag for flag, value in given.items() if value is not None]:
            raise ConfigError(f"{' and '.join(needless)} belong to --kubernetes, which was not given")
        _must_be_installed("ray", "submit")
        from pipelines.submission.ray_jobs import RayJobs

        return RayJobs(address)
    if address is not None:
        raise ConfigError("--address names a Ray cluster and --kubernetes has one made: drop one of them")
    _must_be_installed("kubernetes", "kubernetes")
    from pipelines.submission.kubernetes_jobs import KubernetesJobs

    kubeconfig = os.environ.get("KUBECONFIG") or None
    return KubernetesJobs(namespace=namespace, context=context, template=template, kubeconfig=kubeconfig)


def _must_be_installed(package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ConfigError(f"this needs {package}, which is not installed here: pip install 'skipvision[{extra}]'")
