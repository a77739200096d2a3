"""The network of the trial: a namespace in which every address is this machine, and names are the trial's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[2]
NAME_SERVER = "127.0.0.53"
_FILES = {
    "/etc/resolv.conf": f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:1\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
# A user who is not root is root in a user namespace, where the kernel lets him have one.
_UNSHARE = ("unshare", "--net", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))


def why_not() -> str | None:
    """Why the network cannot be made here; None if it can."""
    try:
        tried = subprocess.run([*_UNSHARE, "sh", "-c", "ip link set lo up"], capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr.strip() or f"unshare ended with {tried.returncode}" if tried.returncode else None


def run_inside(module: str, *, addresses: Sequence[str], certified: Sequence[str], timeout_seconds: float) -> Any:
    """What `python -m module FOLDER` prints as JSON, run inside a network of its own.

    FOLDER holds `site.pem`, a key with a certificate that clients inside trust, for the names and numbers `certified`.

    Args:
        addresses: public ones, which this machine has there.
    """
    with TemporaryDirectory() as folder:
        certificate = Path(folder, "site.pem")
        _certify(certificate, certified)
        for path, text in _FILES.items():
            Path(folder, Path(path).name).write_text(text)
        mounts = [f"mount --bind {folder}/{Path(path).name} {path}" for path in _FILES]
        routes = ["ip link set lo up", *(f"ip addr add {address} dev lo" for address in addresses)]
        routes += ["ip route add local 0.0.0.0/0 dev lo", "ip -6 route add local ::/0 dev lo"]
        command = " && ".join(
            ["mount --make-rprivate /", *mounts, *routes, f'exec "{sys.executable}" -m {module} {folder}']
        )
        ran = subprocess.run(
            [*_UNSHARE, "sh", "-c", command],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=timeout_seconds, check=True,
            env=os.environ | {"SSL_CERT_FILE": str(certificate), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    return json.loads(ran.stdout)


def _certify(file: Path, subjects: Sequence[str]) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "trial")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([_subject(text) for text in subjects]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))


def _subject(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
