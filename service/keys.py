"""How API keys are written down, and read as their SHA-256: in settings, in mounted files, in the environment.

No refusal repeats what stands in such a place, nor the name that settings gave for it: either may be a key.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from skipvision.errors import ConfigError

SHORTEST_KEY = 20
"""Characters. With fewer that a header can carry, not even random ones have 128 bits."""

_HASH = re.compile(r"(?:sha256:)?([0-9A-Fa-f]{64})")
_SENDABLE = re.compile(r"[!-~]+")
_HASH_OF_NOTHING = hashlib.sha256(b"").digest()


def hash_of(key: str) -> bytes:
    """Hash a key, or whatever a caller sent for one: 32 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_hash(text: str, origin: str) -> bytes:
    """Read the SHA-256 of a key, as 64 hex digits, with or without `sha256:` before them.

    Raises:
        ConfigError: beginning with `origin`.
    """
    match = _HASH.fullmatch(text)
    if match is None:
        raise ConfigError(f"{origin} is not the SHA-256 of a key: write its 64 hex digits, and not the key itself")
    found = bytes.fromhex(match[1])
    if found == _HASH_OF_NOTHING:
        raise ConfigError(f"{origin} is the SHA-256 of an empty text: hash the key itself")
    return found


def read_lines(text: str, origin: str) -> frozenset[bytes]:
    """Read a key, or `sha256:` and its hash, from each line that is neither blank nor begins with #.

    Raises:
        ConfigError: beginning with `origin`; also where no line holds a key.
    """
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    found = frozenset(
        _read_entry(line, f"{origin}, line {number}") for number, line in lines if line and line[0] != "#"
    )
    if not found:
        raise ConfigError(f"{origin} holds no key: write one, or sha256: and its hash, on a line")
    return found


class KeyFile:
    """A mounted secret, and the hashes of the keys that it held when it was last right.

    Raises:
        ConfigError: beginning with `origin`.
    """

    def __init__(self, path: str, origin: str) -> None:
        self._path, self._origin = Path(path), origin
        self.reread()

    def has_changed(self) -> bool:
        """Whether it was written, replaced or removed since it was last read, rightly or not."""
        return self._stamp != self._look()

    def reread(self) -> None:
        """Read it again; if it is wrong, `hashes` stay what they were."""
        self._stamp = self._look()  # before reading: what is written meanwhile has another, and is read next time
        try:
            text = self._path.read_text(encoding="utf-8-sig")
        except OSError as error:
            problem = f"{self._origin} cannot be read ({error.strerror}): mount it, or take it out"
            raise ConfigError(problem) from None  # the cause repeats the path
        except UnicodeDecodeError:
            raise ConfigError(f"{self._origin} is not text: write one key per line") from None  # it holds the bytes
        self.hashes = read_lines(text, self._origin)

    def _look(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()  # follows links: a secret of Kubernetes changes by having a link replaced
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _read_entry(entry: str, origin: str) -> bytes:
    if entry.startswith("sha256:"):
        return read_hash(entry, origin)
    if not _SENDABLE.fullmatch(entry):
        raise ConfigError(f"{origin}: a key is visible ASCII without spaces, since a header carries it")
    if len(entry) < SHORTEST_KEY:
        raise ConfigError(f"{origin}: the key has {len(entry)} characters and needs {SHORTEST_KEY}: make a random one")
    return hash_of(entry)
