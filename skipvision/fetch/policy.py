"""What may be fetched, from where, and what it may cost: all settings of the fetcher."""

from __future__ import annotations

from dataclasses import dataclass

from skipvision.errors import ConfigError
from skipvision.fetch.addresses import AddressRules, parse_networks


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchPolicy:
    """What may be fetched, from where, and how much it may cost."""

    schemes: tuple[str, ...] = ("https", "http", "data")
    """Kinds of URL that are accepted, out of these three."""

    allow_networks: tuple[str, ...] = ()
    """Networks that are open although they are not public, such as "10.1.0.0/16" for a store in the cluster; on
    every port. With 64:ff9b::/96 (NAT64) open, all of IPv4 is open through it, private addresses too."""

    ports: tuple[int, ...] = (80, 443)
    """Ports that are open at public addresses."""

    max_bytes: int = 64 * 2**20
    """Size of one answer; reading stops there."""

    connect_seconds: float = 5.0
    """Time to reach a server, encryption included."""

    total_seconds: float = 30.0
    """Time for one URL with its redirects, retries and pauses; waiting for its turn does not count."""

    max_redirects: int = 5
    """Redirects that are followed for one URL."""

    max_attempts: int = 3
    """Tries for a server that is busy, failing, or drops the connection."""

    pause_seconds: float = 0.5
    """Pause before the second try, doubled for each further one. A server's Retry-After stands above it."""

    max_per_host: int = 4
    """Connections to one host, so that a job does not become an attack on it."""

    max_parallel: int = 32
    """Connections in all."""

    def __post_init__(self) -> None:
        parse_networks(self.allow_networks)
        for scheme in self.schemes:
            if scheme not in ("https", "http", "data"):
                raise ConfigError(f"schemes may hold https, http and data; got {scheme!r}")
        for name in ("max_bytes", "connect_seconds", "total_seconds", "max_attempts", "max_per_host", "max_parallel"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0; got {getattr(self, name)}")
        for name in ("max_redirects", "pause_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative; got {getattr(self, name)}")

    @property
    def rules(self) -> AddressRules:
        """The part of the policy that judges hosts and addresses."""
        return AddressRules(
            open_networks=parse_networks(self.allow_networks),
            schemes=frozenset(self.schemes) - {"data"},
            ports=frozenset(self.ports),
        )
