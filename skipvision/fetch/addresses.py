"""Which addresses the program may be sent to by someone else's URL.

A fetcher stands inside the network and takes orders from outside, so it can be made to ask what its sender cannot:
cloud metadata, the cluster's own services, this machine. The rules here are the wall. They are applied to the number
that is about to be connected to, never to a name, and each URL is parsed once, by the parser of the library that
connects, so that no two parsers can disagree about its host.

`ipaddress.is_global` alone is not a wall: it lets multicast pass, both directions of IPv4-in-IPv6 translation, and
the metadata services of two clouds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

from skipvision.errors import ConfigError, FetchError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_URL_CHARACTERS = 8192

_PUBLIC_IPV6 = IPv6Network("2000::/3")
_NEVER_PUBLIC: tuple[IPNetwork, ...] = (
    IPv4Network("168.63.129.16/32"),  # a cloud's host agent, on an address that is public by registration
    IPv4Network("192.0.0.0/24"),  # protocol assignments, another cloud's metadata among them
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
    IPv6Network("2001::/23"),  # protocol assignments, Teredo among them: IPv4 inside
    IPv6Network("2002::/16"),  # 6to4: IPv4 inside
    IPv6Network("3fff::/20"),  # documentation, registered after some of the supported Pythons
)
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Upper half of an interface identifier that holds an IPv4 address, behind any prefix (RFC 5214)."""

_ADDRESS = re.compile(r"data:|[A-Za-z][A-Za-z0-9+.-]*://")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|^\s|\s$")
_PLAIN = re.compile(r"[!-~]*")
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_NUMERIC_HOST = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.*")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressRules:
    """Public addresses on the usual ports are open; every other address only where the operator opens it."""

    open_networks: tuple[IPNetwork, ...] = ()
    """Networks that are open on every port, whatever they are."""

    closed_networks: tuple[IPNetwork, ...] = ()
    """Networks that are closed, whatever they are; this stands above `open_networks`."""

    schemes: frozenset[str] = frozenset({"https", "http"})
    """Kinds of URL that may be connected to."""

    ports: frozenset[int] = frozenset({80, 443})
    """Ports that are open at public addresses."""

    def parse(self, text: str) -> URL:
        """An absolute URL, its spelling kept: signatures are made over it.

        Raises:
            FetchError: `url_invalid`, `url_scheme` or `url_refused`.
        """
        return self._checked(_url(text))

    def follow(self, base: URL, location: str) -> URL:
        """Where a redirect from `base` leads, under the same rules; it may not leave https for http."""
        target = self._checked(base.join(_url(location)))
        if base.scheme == "https" and target.scheme != "https":
            raise FetchError("the URL redirects from https to plain http", code="fetch_redirects")
        return target

    def admits(self, address: str, port: int) -> bool:
        """Whether a connection to this numeric address and port may be made."""
        try:
            number: IPAddress = ip_address(address)
        except ValueError:
            return False
        if isinstance(number, IPv6Address):
            if number.scope_id is not None:
                return False
            number = number.ipv4_mapped or number
        if any(number in network for network in self.closed_networks):
            return False
        if any(number in network for network in self.open_networks):
            return True
        return _is_public(number) and port in self.ports

    def _checked(self, url: URL) -> URL:
        if url.scheme not in self.schemes:
            raise FetchError("URLs of this kind are not fetched; use https", code="url_scheme")
        authority = url.raw_authority
        if "@" in authority:
            raise FetchError("the URL carries a user name or password; leave it out", code="url_refused")
        try:
            host, port = url.raw_host, url.port
        except ValueError as error:  # joined to its base, a redirect is parsed anew, and may have lost its brackets
            raise FetchError("the URL names no valid host", code="url_invalid") from error
        if not host or not port or not _AUTHORITY.fullmatch(authority):
            raise FetchError("the URL names no valid host", code="url_invalid")
        if _is_number(host) and not self.admits(host, port):
            raise refused()
        return url


def is_address(reference: str) -> bool:
    """Whether what names an image is to be fetched rather than read from disk."""
    return _ADDRESS.match(reference) is not None


def parse_networks(texts: tuple[str, ...]) -> tuple[IPNetwork, ...]:
    """The networks of `texts`, each like "10.1.0.0/16"; ConfigError names the one that is none."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise ConfigError(f"{text!r} is not a network such as 10.1.0.0/16 or fd00:1::/64: {error}") from error
    return tuple(networks)


def refused() -> FetchError:
    """The one answer for every closed address, so that answers do not map the network."""
    return FetchError("the URL leads to an address that is not open to fetches", code="url_refused")


def _url(text: str) -> URL:
    """`text` as the connecting library reads it. ASCII stays as it is, since quoting again breaks signed URLs."""
    if len(text) > MAX_URL_CHARACTERS:
        raise FetchError(f"the URL is longer than {MAX_URL_CHARACTERS} characters", code="url_invalid")
    if _FORBIDDEN.search(text):
        raise FetchError("the URL holds a backslash, a control character or outer spaces", code="url_invalid")
    try:
        url = URL(text, encoded=_PLAIN.fullmatch(text) is not None)
        _ = url.port, url.raw_host  # parsed on first use; a wrong one raises here
    except (ValueError, IndexError) as error:  # IndexError: http://[a]@/, which the parser itself trips over
        raise FetchError("the URL cannot be read; check its spelling", code="url_invalid") from error
    return url


def _is_number(host: str) -> bool:
    """Whether a resolver may take `host` for a number: 127.1, 0x7f.1 and 2130706433 all mean this machine.

    Only the plain dotted form and IPv6 can pass `AddressRules.admits`; the other spellings are closed by it.
    """
    return ":" in host or _NUMERIC_HOST.fullmatch(host) is not None


def _is_public(number: IPAddress) -> bool:
    if isinstance(number, IPv6Address) and (number not in _PUBLIC_IPV6 or int(number) >> 32 & 0xFFFF_FFFF in _ISATAP):
        return False
    if number.is_multicast or number.is_reserved or not number.is_global:
        return False
    return not any(number in network for network in _NEVER_PUBLIC)
