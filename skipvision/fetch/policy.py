"""What may be fetched, from where, and what it may cost: all settings of the fetcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from skipvision.errors import ConfigError
from skipvision.fetch.addresses import AddressRules, parse_networks


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchPolicy:
    """What may be fetched, from where, and how much it may cost.

    The defaults are the policy of a job, whose operator chose the data; `service` is the one for URLs of strangers.
    """

    schemes: tuple[str, ...] = ("https", "http", "data")
    """Kinds of URL that are accepted, out of these three."""

    allow_networks: tuple[str, ...] = ()
    """Networks that are open although they are not public, such as "10.1.0.0/16" for a store in the cluster; on
    every port. With 64:ff9b::/96 (NAT64) open, all of IPv4 is open through it, private addresses too."""

    deny_networks: tuple[str, ...] = ()
    """Networks that stay closed although they are public, such as one's own servers, pods with public IPv6 addresses,
    or the prefix of one's own NAT64. They stand above `allow_networks`."""

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

    host_patience_seconds: float = 300.0
    """How long a host may fail, again and again with no answer between, before it is given up: then it is asked once
    in ten seconds, until it answers, and what else is wanted from it is refused at once."""

    max_per_host: int = 4
    """Connections to one host, so that a job does not become an attack on it."""

    max_parallel: int = 32
    """Connections in all."""

    def __post_init__(self) -> None:
        parse_networks(self.allow_networks + self.deny_networks)
        for scheme in self.schemes:
            if scheme not in ("https", "http", "data"):
                raise ConfigError(f"schemes may hold https, http and data; got {scheme!r}")
        for name in ("max_bytes", "connect_seconds", "total_seconds", "max_attempts", "max_per_host", "max_parallel"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0; got {getattr(self, name)}")
        for name in ("max_redirects", "pause_seconds", "host_patience_seconds"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative; got {getattr(self, name)}")

    @classmethod
    def service(cls, *, http: bool = False, deny_networks: tuple[str, ...] = ()) -> Self:
        """For URLs of strangers who wait for the answer.

        - Encrypted: what a picture shows decides the answer, and nobody on the way may change it. `http` gives in.
        - No open networks: a stranger has no business in the operator's.
        - 20 MiB: a picture for a model is smaller, and so many times `max_parallel` must fit into memory.
        - 15 seconds, and two tries: a request waits, and its sender can repeat it.
        - Three redirects: what stores and their CDNs need.
        - Two connections to one host: more, for any number of senders, is what an attacker would have us do.
        - A host that has not answered for half a minute is given up, since all who ask wait for it in turn.
        """
        return cls(
            schemes=("https", "http", "data") if http else ("https", "data"),
            deny_networks=deny_networks,
            ports=(443, 80) if http else (443,),
            max_bytes=20 * 2**20,
            connect_seconds=3.0,
            total_seconds=15.0,
            max_redirects=3,
            max_attempts=2,
            max_per_host=2,
            host_patience_seconds=30.0,
        )

    @property
    def rules(self) -> AddressRules:
        """The part of the policy that judges hosts and addresses."""
        return AddressRules(
            open_networks=parse_networks(self.allow_networks),
            closed_networks=parse_networks(self.deny_networks),
            schemes=frozenset(self.schemes) - {"data"},
            ports=frozenset(self.ports),
        )
