"""Start the batch job that a schedule asks for: a copy of the RayJob that waits in the cluster, by Kubernetes' API.

The name comes from the schedule and holds the minute that it names, so that a second try, after an answer that was
lost, finds the job there. That minute also dates the output, however late the Pod came. Standard library only: it runs
as a file of a ConfigMap.
"""

from __future__ import annotations

import json
import os
import shlex
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
TIMEOUT_SECONDS = 30


def scheduled_at(name: str) -> datetime:
    """The minute that a CronJob's Job is for: its name ends with the minutes since 1970."""
    return datetime.fromtimestamp(int(name.rpartition("-")[2]) * 60, UTC)


def copy_of(template: Mapping[str, Any], name: str, output: str, queue: str) -> dict[str, Any]:
    """The job to start.

    Args:
        output: address of the answers, with the date as `strftime` writes it.
        queue: of Kueue, which then starts the job. Empty: it starts at once.
    """
    address = scheduled_at(name).strftime(output)
    spec = {**template["spec"], "suspend": bool(queue)}
    spec["entrypoint"] += f" --output {shlex.quote(address)}"
    labels = {key: value for key, value in template["metadata"].get("labels", {}).items() if key != QUEUE_LABEL}
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {"name": name, "labels": labels | ({QUEUE_LABEL: queue} if queue else {})},
        "spec": spec,
    }


def main(environment: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> int:
    """Start it, or find that it was started; an answer of another kind ends with Kubernetes' own words."""
    name, namespace = environment["NAME"], (account / "namespace").read_text().strip()
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    jobs = f"https://{host}:{port}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    try:
        template = _ask(account, f"{jobs}/{environment['TEMPLATE']}")
        _ask(account, jobs, copy_of(template, name, environment["OUTPUT"], environment.get("QUEUE", "")))
    except urllib.error.HTTPError as error:
        if error.code == 409:
            print(f"{name} was started already")
            return 0
        print(f"{error.code} {error.read().decode(errors='replace')}", file=sys.stderr)
        return 1
    print(f"{name} is started")
    return 0


def _ask(account: Path, address: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    headers = {
        "Authorization": f"Bearer {(account / 'token').read_text().strip()}",
        "Content-Type": "application/json",
    }
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers)
    trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=trusted) as answer:
        content: dict[str, Any] = json.load(answer)
        return content


if __name__ == "__main__":
    sys.exit(main())
