"""A Kubernetes API server of the few calls that jobs need, over real HTTP, and an operator that does as it is told."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
Act = Callable[["FakeKubernetes", str], None]
"""What the operator does once a RayJob of this name is there."""

_NAMED = re.compile(
    r"/(api/v1|apis/ray.io/v1)/namespaces/(?P<namespace>[^/]+)/(?P<kind>configmaps|rayjobs|events)(/(?P<name>[^/]+))?$"
)


class FakeKubernetes(ThreadingHTTPServer):
    """What stands in one namespace, `jobs`, and every change of it."""

    daemon_threads = True

    def __init__(self, act: Act) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.act = act
        self.objects: dict[tuple[str, str], Object] = {}
        self.changes: list[tuple[int, str, Object]] = []
        """Of RayJobs: version, kind of change, the object then."""
        self.events: list[Object] = []
        self.applied: list[tuple[str, Object]] = []
        self.refusal: tuple[int, str] | None = None
        """A status and a message for every call."""
        self.cut_watches = 0
        """So many watches end with the error that their version is too old."""
        self.changed = threading.Condition()
        self._version = 0

    def put(self, kind: str, name: str, content: Object) -> Object:
        with self.changed:
            self._version += 1
            before = self.objects.get((kind, name))
            born = (
                before["metadata"]
                if before
                else {"creationTimestamp": "2026-11-27T10:00:00Z", "uid": f"u{self._version}"}
            )
            metadata = {**born, **content["metadata"]}
            content = {**content, "metadata": {**metadata, "resourceVersion": str(self._version)}}
            if before and "status" in before:
                content.setdefault("status", before["status"])
            self.objects[kind, name] = content
            if kind == "rayjobs":
                self.changes.append((self._version, "MODIFIED" if before else "ADDED", content))
            self.changed.notify_all()
            return content

    def remove(self, kind: str, name: str) -> Object | None:
        with self.changed:
            self._version += 1
            gone = self.objects.pop((kind, name), None)
            if gone is not None and kind == "rayjobs":
                self.changes.append((self._version, "DELETED", gone))
            self.changed.notify_all()
            return gone

    def say(self, name: str, **status: str) -> None:
        """Set the status of a RayJob, if it is still there."""
        with self.changed:
            if found := self.objects.get(("rayjobs", name)):
                self.put("rayjobs", name, {**found, "status": status})

    def warn(self, name: str, reason: str, message: str) -> None:
        self.events.append(
            {"metadata": {"name": f"{name}.1"}, "involvedObject": {"kind": "Pod", "name": name}, "type": "Warning",
             "reason": reason, "message": message}
        )  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: FakeKubernetes
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        kind, name, query = self._asked()
        if kind is None:
            return
        if "watch" in query:
            self._watch(query)
        elif name is not None:
            self._found(self.server.objects.get((kind, name)))
        elif kind == "events":
            assert query["fieldSelector"] == ["type=Warning"]
            self._answer(200, {"kind": "EventList", "metadata": {}, "items": self.server.events})
        else:
            assert "managed-by=skipvision-submit" in query["labelSelector"][0]
            items = [each for (of, _), each in self.server.objects.items() if of == kind]
            self._answer(200, {"kind": "List", "metadata": {}, "items": items})

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind, name, query = self._asked()
        if kind is None or name is None:
            return
        if self.headers["Content-Type"] != "application/apply-patch+yaml" or query["fieldManager"] != ["skipvision"]:
            self._answer(400, {"message": "not a server-side apply"})
            return
        fresh = (kind, name) not in self.server.objects
        self.server.applied.append((kind, body))
        self._answer(200, self.server.put(kind, name, body))
        if kind == "rayjobs" and fresh:
            threading.Thread(target=self.server.act, args=(self.server, name), daemon=True).start()

    def do_DELETE(self) -> None:
        kind, name, _ = self._asked()
        if kind is not None and name is not None:
            found = self.server.objects.get((kind, name))
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            if found is not None and body["preconditions"]["uid"] != found["metadata"]["uid"]:
                self._answer(409, {"kind": "Status", "message": "another uid"})
                return
            self._found(found)
            if found is not None:  # the operator lets a RayJob go when it has told its driver to end
                threading.Timer(0.3, self.server.remove, (kind, name)).start()

    def _asked(self) -> tuple[str | None, str | None, dict[str, list[str]]]:
        split = urlsplit(self.path)
        match = _NAMED.match(split.path)
        if self.server.refusal is not None:
            status, message = self.server.refusal
            self._answer(status, {"kind": "Status", "message": message})
            return None, None, {}
        if match is None or match["namespace"] != "jobs":
            self._answer(404, {"kind": "Status", "message": "there is no such thing"})
            return None, None, {}
        return match["kind"], match["name"], parse_qs(split.query)

    def _found(self, content: Object | None) -> None:
        self._answer(200, content) if content else self._answer(404, {"kind": "Status", "message": "not found"})

    def _answer(self, status: int, content: Object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, query: dict[str, list[str]]) -> None:
        since, until = int(query["resourceVersion"][0]), time.monotonic() + int(query["timeoutSeconds"][0])
        name = query["fieldSelector"][0].removeprefix("metadata.name=")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.server.cut_watches:
            self.server.cut_watches -= 1
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            self._write({"type": "ERROR", "object": gone})
            return
        while (left := until - time.monotonic()) > 0:
            with self.server.changed:
                fresh = [
                    each for each in self.server.changes if each[0] > since and each[2]["metadata"]["name"] == name
                ]
                if not fresh:
                    self.server.changed.wait(left)
            for version, kind, content in fresh:
                self._write({"type": kind, "object": content})
                since = version

    def _write(self, content: Object) -> None:
        self.wfile.write(json.dumps(content).encode() + b"\n")
        self.wfile.flush()


@contextmanager
def kubernetes_api(folder: Path, act: Act) -> Iterator[tuple[FakeKubernetes, Path]]:
    """The server inside the `with` block, and a kubeconfig that leads there."""
    server = FakeKubernetes(act)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    kubeconfig = folder / "kubeconfig.yaml"
    kubeconfig.write_text(yaml.safe_dump(config_for(f"http://127.0.0.1:{server.server_port}")))
    try:
        yield server, kubeconfig
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def config_for(address: str) -> Object:
    """A kubeconfig with one context, `here`, whose namespace is `jobs`."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "jobs"}}],
    }
