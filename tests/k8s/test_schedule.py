"""The schedule starts the job that is due, once, by a Kubernetes API that speaks TLS and asks who is there."""

from __future__ import annotations

import datetime
import importlib.util
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from k8s.rendering import HERE, UNITS
from k8s.schemas import Compact, problems

[GPU] = [unit.manifests() for unit in UNITS if unit.name == "gpu"]
[TEMPLATE] = [each for each in GPU if each["kind"] == "RayJob"]
[CRON] = [each for each in GPU if each["kind"] == "CronJob"]
NAME = "skipvision-nightly-29654280"  # 2026-05-20 02:00
JOBS = "/apis/ray.io/v1/namespaces/skipvision/rayjobs"


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("start_job", HERE / "components/schedule/start_job.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


start_job = _script()


class Kubernetes:
    """As much of an API server as the schedule asks."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.jobs: dict[str, Any] = {TEMPLATE["metadata"]["name"]: TEMPLATE}
        self.may_create = True

    def environment(self, **more: str) -> dict[str, str]:
        """Of a Pod of the schedule: what Kubernetes puts there, and what the CronJob says."""
        [container] = CRON["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        said = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        server = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}
        return said | server | {"NAME": NAME} | more


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a Pod with a token finds mounted; `server.pem` is the other side's."""
    folder = tmp_path_factory.mktemp("account")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "ca.crt").write_bytes(pem)
    (folder / "server.pem").write_bytes(private + pem)
    (folder / "token").write_text("who-i-am\n")
    (folder / "namespace").write_text("skipvision")
    return folder


@pytest.fixture
def kubernetes(account: Path) -> Iterator[Kubernetes]:
    with _serving(account) as api:
        yield api


@contextmanager
def _serving(account: Path) -> Iterator[Kubernetes]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            job = api.jobs.get(self.path.removeprefix(f"{JOBS}/"))
            self._answer(200, job) if job else self._answer(404, {"message": "not found"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = body["metadata"]["name"]
            if not api.may_create or self.path != JOBS:
                self._answer(403, {"message": "rayjobs.ray.io is forbidden"})
            elif name in api.jobs:
                self._answer(409, {"message": "already exists"})
            else:
                api.jobs[name] = body
                self._answer(201, body)

        def _answer(self, status: int, body: Any) -> None:
            if self.headers["Authorization"] != "Bearer who-i-am":
                status, body = 401, {"message": "unauthorized"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(account / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    api = Kubernetes(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_job_is_started_as_a_copy_of_the_one_that_waits(kubernetes, account):
    assert start_job.main(kubernetes.environment(), account) == 0
    job = kubernetes.jobs[NAME]
    assert job["spec"].pop("suspend") is False
    command, _, output = job["spec"].pop("entrypoint").partition(" --output ")
    assert command == TEMPLATE["spec"]["entrypoint"]
    assert output == "s3://skipvision/answers/2026-05-20"
    assert job["spec"] == {
        key: value for key, value in TEMPLATE["spec"].items() if key not in ("suspend", "entrypoint")
    }
    assert TEMPLATE["spec"]["suspend"] is True


def test_what_is_started_is_an_object_that_kubernetes_takes(kubernetes, account):
    start_job.main(kubernetes.environment(), account)
    assert problems(kubernetes.jobs[NAME], Compact()) == []


def test_a_second_try_starts_nothing_more(kubernetes, account, capsys):
    assert [start_job.main(kubernetes.environment(), account) for _ in range(2)] == [0, 0]
    assert len(kubernetes.jobs) == 2
    assert "was started already" in capsys.readouterr().out


def test_with_a_queue_kueue_starts_it(kubernetes, account):
    start_job.main(kubernetes.environment(QUEUE="skipvision"), account)
    job = kubernetes.jobs[NAME]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "skipvision"


def test_a_refusal_ends_it_with_kubernetes_own_words(kubernetes, account, capsys):
    kubernetes.may_create = False
    assert start_job.main(kubernetes.environment(), account) == 1
    assert "403" in (told := capsys.readouterr().err)
    assert "is forbidden" in told


def test_a_missing_template_ends_it(kubernetes, account, capsys):
    assert start_job.main(kubernetes.environment(TEMPLATE="other"), account) == 1
    assert "404" in capsys.readouterr().err


def test_an_api_server_that_somebody_else_signed_is_not_told_the_token(kubernetes, account, tmp_path):
    for file in account.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    import certifi

    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    with pytest.raises(OSError, match="certificate verify failed"):
        start_job.main(kubernetes.environment(), tmp_path)


def test_the_output_is_quoted_for_the_shell():
    job = start_job.copy_of(TEMPLATE, NAME, "s3://a/b c", "")
    assert job["spec"]["entrypoint"].endswith("--output 's3://a/b c'")


def test_its_rights_are_those_that_it_uses():
    [role] = [each for each in GPU if each["kind"] == "Role"]
    asked = {(rule["verbs"][0], *rule.get("resourceNames", ["any"])) for rule in role["rules"]}
    assert asked == {("get", "skipvision-batch"), ("create", "any")}
