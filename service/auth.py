"""Who is calling: tenants, their API keys, and which tenant a request's `Authorization` header belongs to.

A key itself is held nowhere: what is kept and compared is its SHA-256. How much a tenant may ask for stands in its
settings here, and is counted in `limits`.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from service.keys import KeyFile, hash_of, read_hash, read_lines
from skipvision.errors import ConfigError

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantConfig:
    """One tenant: where its keys are found, and how much it may ask for. A limit that is left out does not exist."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    """Stands in logs, metrics and the ledger: up to 64 letters, digits, dots, dashes and underscores."""

    key_hashes: tuple[str, ...] = ()
    """The SHA-256 of each key in hex, of the key's characters alone and no line end. `sha256:` may stand before it."""

    key_files: tuple[str, ...] = ()
    """Mounted secrets: on each line a key, or `sha256:` and its hash. Blank lines, and those that begin with #, count
    for nothing. They are read again when they change."""

    key_env: str | None = None
    """Name of an environment variable that holds what a key file may hold."""

    requests_per_minute: int | None = None
    """Requests that may be begun per minute; after a pause, as many at once."""

    tokens_per_minute: int | None = None
    """Tokens of prompts and answers together, per minute; also the most that one request may take."""

    images_per_minute: int | None = None
    """Images per minute; also the most that one request may bring."""

    max_concurrent: int | None = None
    """Requests in work at a time."""

    tokens_per_day: int | None = None
    """The budget: tokens of prompts and answers together, per day of UTC."""

    models: tuple[str, ...] = ()
    """Models that may be asked. Empty: all."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"tenant name {self.name!r} must be 1 to 64 letters, digits, dots, dashes or underscores, and begin "
                "with a letter or digit"
            )
        for index, text in enumerate(self.key_hashes):
            read_hash(text, f"tenant {self.name}: key_hashes[{index}]")
        if self.key_env is not None and not _VARIABLE.fullmatch(self.key_env):
            raise ConfigError(f"tenant {self.name}: key_env must be the name of a variable, and not the key itself")
        for field in fields(self):
            limit = getattr(self, field.name)
            if isinstance(limit, int) and limit < 1:
                raise ConfigError(
                    f"tenant {self.name}: {field.name} must be at least 1; got {limit}; leave it out for no limit, or "
                    "leave the tenant out to admit nothing"
                )

    @property
    def has_keys(self) -> bool:
        """Whether it says of any place that keys are there."""
        return bool(self.key_hashes or self.key_files or self.key_env is not None)

    def may_ask(self, model: str) -> bool:
        """Whether this tenant may use the model of that name."""
        return not self.models or model in self.models


class AuthError(Exception):
    """The caller did not say who it is, or not rightly; for status 401."""

    MESSAGES: ClassVar[dict[str, str]] = {
        "missing_api_key": "no API key was sent; send the header Authorization: Bearer <key>",
        "invalid_api_key": "the API key is not valid; check it, or ask the operator for a new one",
    }

    def __init__(self, code: Literal["missing_api_key", "invalid_api_key"]) -> None:
        self.code = code
        super().__init__(self.MESSAGES[code])

    def __reduce__(self) -> tuple[Any, ...]:
        return AuthError, (self.code,)


class Keyring:
    """The keys of all tenants. With no tenants it is open: every caller is the `anonymous` one.

    Args:
        tenants: each has at least one key, and no key belongs to two.
        anonymous: whom callers count as while there are no tenants, and its limits. None: without limits.
        environ: where `key_env` is looked up, once.

    Raises:
        ConfigError: naming the tenant, the place and the remedy, and never what stands there.
    """

    def __init__(
        self,
        tenants: Iterable[TenantConfig],
        *,
        anonymous: TenantConfig | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._tenants = tuple(tenants)
        self._anonymous = anonymous or TenantConfig(name="anonymous")
        _check(self._tenants, self._anonymous)
        self._fixed = {tenant.name: _fixed_hashes(tenant, environ) for tenant in self._tenants}
        self._files = {tenant.name: _key_files(tenant) for tenant in self._tenants}
        self._owners = self._find_owners()

    @property
    def is_open(self) -> bool:
        """Whether no keys are configured, so that anyone may call."""
        return not self._tenants

    @property
    def tenants(self) -> tuple[TenantConfig, ...]:
        """Everyone whom `tenant_of` can return."""
        return self._tenants or (self._anonymous,)

    def tenant_of(self, authorization: str | None) -> TenantConfig:
        """Return the tenant whose key the raw value of an `Authorization` header carries.

        Raises:
            AuthError: it carries none, or one that is nobody's.
        """
        if self.is_open:
            return self._anonymous
        key = _bearer(authorization)
        offered = hash_of(key)
        found = None
        # With all of them, whatever was found or sent: how long it takes tells nothing about the keys.
        for known, tenant in self._owners:
            if hmac.compare_digest(known, offered):
                found = tenant
        if found is None:
            raise AuthError("invalid_api_key" if key else "missing_api_key")
        return found

    def refresh(self) -> bool:
        """Read the key files that changed, and tell whether the keys did. To be called every few seconds.

        A file that is gone or wrong leaves its old keys in force, and a warning in the log once for each change: half
        a secret must not lock everyone out. To withdraw a file's last key, put another into its place.
        """
        changed = [file for files in self._files.values() for file in files if file.has_changed()]
        if not changed:
            return False
        before = self._owners
        try:
            for file in changed:
                _reread(file)
            self._owners = self._find_owners()
        except ConfigError as error:
            log.warning("all API keys stay as they were: %s", error)
        return set(self._owners) != set(before)

    def _find_owners(self) -> tuple[tuple[bytes, TenantConfig], ...]:
        owner_of: dict[bytes, TenantConfig] = {}
        for tenant in self._tenants:
            for known in self._fixed[tenant.name].union(*(file.hashes for file in self._files[tenant.name])):
                other = owner_of.setdefault(known, tenant)
                if other is not tenant:
                    raise ConfigError(f"tenants {other.name} and {tenant.name} have the same key: give one a new key")
        return tuple(owner_of.items())


def new_key() -> tuple[str, str]:
    """Make a key of 256 random bits; return it, for the caller alone, and `sha256:` and its hash, for the settings."""
    key = f"sv-{secrets.token_urlsafe(32)}"
    return key, f"sha256:{hash_of(key).hex()}"


def _bearer(authorization: str | None) -> str:
    """The key in the header's value; empty where there is none."""
    scheme, _, key = (authorization or "").strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _check(tenants: tuple[TenantConfig, ...], anonymous: TenantConfig) -> None:
    if anonymous.has_keys:
        raise ConfigError(f"tenant {anonymous.name} has keys, so it is not anonymous: list it among the tenants")
    seen: set[str] = set()
    for tenant in tenants:
        if tenant.name in seen:
            raise ConfigError(f"tenant {tenant.name} is listed twice: rename one, or join their keys")
        if not tenant.has_keys:
            raise ConfigError(f"tenant {tenant.name} has no key: set key_hashes, key_files or key_env")
        seen.add(tenant.name)


def _fixed_hashes(tenant: TenantConfig, environ: Mapping[str, str]) -> frozenset[bytes]:
    """Of the keys that stay the same as long as the process lives."""
    hashes = frozenset(read_hash(text, f"tenant {tenant.name}: key_hashes") for text in tenant.key_hashes)
    if tenant.key_env is None:
        return hashes
    origin = f"tenant {tenant.name}: the environment variable that key_env names"
    if tenant.key_env not in environ:
        raise ConfigError(f"{origin} is not set: set it to a key, or leave key_env out")
    return hashes | read_lines(environ[tenant.key_env], origin)


def _key_files(tenant: TenantConfig) -> list[KeyFile]:
    return [KeyFile(path, f"tenant {tenant.name}: key_files[{index}]") for index, path in enumerate(tenant.key_files)]


def _reread(file: KeyFile) -> None:
    try:
        file.reread()
    except ConfigError as error:
        log.warning("its API keys stay as they were: %s", error)
