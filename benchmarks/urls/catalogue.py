"""The URLs, in groups: every way that is known by which a fetcher was led inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from benchmarks.urls.addresses import INWARD, METADATA, METADATA_NAMES
from benchmarks.urls.names import Answer, Zone
from benchmarks.urls.servers import OPENED, OTHER_SITE, SITE, SITE_IPV6, redirecting
from benchmarks.urls.spellings import BEGINNINGS, OTHER_SCHEMES, OTHER_SCHEMES_BY_REDIRECT, SPELLINGS, SPLITS

WHERE = "latest/meta-data/iam/security-credentials/"
INSIDE = tuple(dict.fromkeys([*METADATA.values(), *INWARD.values()]))
STATUSES = (301, 302, 303, 307, 308)

_SPELLING = frozenset({"url_invalid", "url_refused"})
_ANY_REFUSAL = _SPELLING | {"url_scheme"}


@dataclass(frozen=True, slots=True)
class HostileUrl:
    """One that must not be fetched."""

    group: str
    url: str
    codes: frozenset[str]
    """How the fetcher may refuse it, where its scheme is one that is fetched."""
    was_public: bool = False
    """Its name led to a public server when it was asked about first, and another process fetched it then."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The URLs with what they need to be hostile."""

    urls: tuple[HostileUrl, ...]
    zone: Zone
    good: tuple[str, ...]
    """URLs that every policy fetches."""
    good_over_http: tuple[str, ...]
    """URLs that are fetched where plain http is."""
    good_in_jobs: tuple[str, ...]
    """URLs that are fetched where the operator opened 10.20.0.0/16."""


def catalogue() -> Catalogue:
    """All of it: what can be asked over both http and https, and what has a scheme of its own."""
    zone: Zone = {
        "site.test": ((SITE,),),
        "www.site.test": ((SITE, SITE_IPV6),),
        "six.site.test": ((SITE_IPV6,),),
        "other.site.test": ((OTHER_SITE,),),
        "alias.site.test": (("other.site.test",),),
        "store.site.test": ((OPENED,),),
        "localhost": (("127.0.0.1",),),
        **{name: ((number,),) for name, number in METADATA_NAMES.items()},
    }
    urls: list[HostileUrl] = []
    for scheme in ("http", "https"):
        urls += _spelled(scheme)
        urls += _by_name(scheme, zone)
        urls += _redirected(scheme)
        urls += _rebinding(scheme, zone)
        urls += _parsed_differently(scheme)
        urls += _beside_what_is_opened(scheme, zone)
        urls += _ports_and_credentials(scheme)
        urls += _without_end(scheme)
    urls += _other_schemes()
    once = tuple({hostile.url: hostile for hostile in urls}.values())
    return Catalogue(once, zone, _good("https"), (*_good("http"), _up_to_https()), _good_in_jobs())


def _spelled(scheme: str) -> Iterator[HostileUrl]:
    for address in METADATA.values():
        yield HostileUrl("metadata by number", f"{scheme}://{_host(address)}/{WHERE}", frozenset({"url_refused"}))
    for address in INWARD.values():
        yield HostileUrl("inside by number", f"{scheme}://{_host(address)}/{WHERE}", frozenset({"url_refused"}))
    for host in SPELLINGS:
        yield HostileUrl("other spellings", f"{scheme}://{host}/{WHERE}", _SPELLING)


def _by_name(scheme: str, zone: Zone) -> Iterator[HostileUrl]:
    refused = frozenset({"url_refused"})
    for name in [*METADATA_NAMES, "localhost", "LOCALHOST", "localhost.", "metadata.google.internal."]:
        yield HostileUrl("metadata by name", f"{scheme}://{name}/{WHERE}", refused)
    for number, address in enumerate(INSIDE):
        name = _known(zone, f"in{number}.site.test", (address,))
        yield HostileUrl("inside by name", f"{scheme}://{name}/{WHERE}", refused)


def _redirected(scheme: str) -> Iterator[HostileUrl]:
    """To every address and some spellings and names, with every status, by every form of a Location."""
    hosts = [*map(_host, INSIDE), *METADATA_NAMES, *(host for host in SPELLINGS if host.isascii())][:130]
    forms = (
        lambda host: f"{scheme}://{host}/{WHERE}",
        lambda host: f"//{host}/{WHERE}",
        lambda host: f"{scheme.upper()}://{host}:443/{WHERE}",
        lambda host: redirecting(f"{scheme}://{host}/{WHERE}"),
        lambda host: f"{scheme}://other.site.test{redirecting(f'//{host}/{WHERE}')}",
    )
    for number, host in enumerate(hosts):
        form, status = forms[number % len(forms)], STATUSES[number // len(forms) % len(STATUSES)]
        url = f"{scheme}://site.test{redirecting(form(host), status=status)}"
        yield HostileUrl("redirects inside", url, _SPELLING)


def _rebinding(scheme: str, zone: Zone) -> Iterator[HostileUrl]:
    """Names of which one answer is public and another, at the same time or a moment later, is not."""
    kinds = cycle((
        ((SITE,), ("INSIDE",)),
        ((SITE, "INSIDE"),),
        (("INSIDE", SITE),),
        ((SITE_IPV6, "INSIDE"),),
        (("in-INSIDE",),),
        ((SITE, SITE_IPV6), (SITE, SITE_IPV6, "INSIDE")),
    ))  # fmt: skip
    for number, (address, rounds) in enumerate(zip(INSIDE, kinds, strict=False)):
        name = f"re{number}-{scheme}.site.test"
        _known(zone, f"in{number}.site.test", (address,))
        meant = {"INSIDE": address, "in-INSIDE": f"in{number}.site.test"}
        _known(zone, name, *(tuple(meant.get(each, each) for each in answer) for answer in rounds))
        yield HostileUrl(
            "rebinding names", f"{scheme}://{name}/picture", frozenset({"url_refused"}), was_public=len(rounds) > 1
        )
        if len(rounds) > 1 and scheme == "http":  # to another port, so that the name is looked up again
            again = f"again-{name}"
            _known(zone, again, *(zone[name]))
            url = f"http://{again}{redirecting(f'https://{again}/{WHERE}')}"
            yield HostileUrl("rebinding names", url, frozenset({"url_refused"}))


def _parsed_differently(scheme: str) -> Iterator[HostileUrl]:
    """Where two programs would find two hosts in one URL."""
    inside = "169.254.169.254"
    for text in SPLITS:
        url = f"{scheme}://{text.replace('IN', inside).replace('OUT', 'site.test')}/{WHERE}"
        yield HostileUrl("parsed differently", url, _ANY_REFUSAL | {"fetch_unreachable"})
    for beginning in BEGINNINGS:
        yield HostileUrl("parsed differently", f"{beginning.replace('SCHEME', scheme)}{inside}/{WHERE}", _ANY_REFUSAL)


def _beside_what_is_opened(scheme: str, zone: Zone) -> Iterator[HostileUrl]:
    """One network inside is open to a job: not its neighbours, nor other ways to write it that lead elsewhere."""
    beside = "10.21.0.5"
    for host in (
        beside, "10.19.255.255", "10.20.0.5.", "10.1310725", "0x0a140005", "012.024.0.5", "169083909",
        "[64:ff9b::a14:5]", "[64:ff9b::10.20.0.5]", "[2002:a14:5::]", "[::10.20.0.5]", "[64:ff9b:1::a14:5]",
    ):  # fmt: skip
        yield HostileUrl("beside what is opened", f"{scheme}://{host}/{WHERE}", frozenset({"url_refused"}))
    for number, answer in enumerate(((OPENED, beside), (beside, OPENED), (OPENED, "fd00:ec2::254"))):
        name = _known(zone, f"beside{number}.site.test", answer)
        yield HostileUrl("beside what is opened", f"{scheme}://{name}/{WHERE}", frozenset({"url_refused"}))


def _ports_and_credentials(scheme: str) -> Iterator[HostileUrl]:
    for port in (22, 25, 2375, 6379, 8080, 8265, 9200, 10250):
        for host in ("site.test", SITE, f"[{SITE_IPV6}]"):
            yield HostileUrl("other ports", f"{scheme}://{host}:{port}/picture", frozenset({"url_refused"}))
    for port in ("0", "-1", "65536", "99999", "8_0", "+80", "0x50", "80a", "1e2", "080080", "80;443"):  # fmt: skip
        yield HostileUrl("other ports", f"{scheme}://site.test:{port}/picture", _SPELLING)
    for user in ("me", "me:secret", ":secret", "", "me%40home", "169.254.169.254", "169.254.169.254:80", "[::1]"):
        yield HostileUrl("credentials", f"{scheme}://{user}@site.test/picture", _SPELLING)


def _without_end(scheme: str) -> Iterator[HostileUrl]:
    """Too long, in a circle, or out of the encryption."""
    invalid, redirects = frozenset({"url_invalid"}), frozenset({"fetch_redirects"})
    for url in (
        f"site.test/{'a' * 8192}", f"site.test/?{'a' * 100_000}", f"site.test/#{'a' * 9000}",
        f"{'a' * 64}.site.test/", f"{'a.' * 200}test/", f"{'a' * 300}/", "a..site.test/", ".site.test/",
    ):  # fmt: skip
        yield HostileUrl("without end", f"{scheme}://{url}", invalid | {"fetch_unreachable"})
    target = "/picture"
    for _ in range(7):
        target = redirecting(target)
    yield HostileUrl("without end", f"{scheme}://site.test{target}", redirects)
    yield HostileUrl("without end", f"{scheme}://site.test{redirecting('?')}", frozenset({"fetch_redirects"}))
    if scheme == "https":
        for status, host in zip(
            STATUSES, ("site.test", SITE, "other.site.test", f"[{SITE_IPV6}]", "site.test:80"), strict=True
        ):
            yield HostileUrl(
                "out of the encryption",
                f"https://site.test{redirecting(f'http://{host}/picture', status=status)}",
                redirects | {"url_scheme"},
            )


def _other_schemes() -> Iterator[HostileUrl]:
    for url in OTHER_SCHEMES:
        yield HostileUrl("other schemes", url, _ANY_REFUSAL)
    for location in OTHER_SCHEMES_BY_REDIRECT:
        yield HostileUrl("other schemes", f"https://site.test{redirecting(location)}", _ANY_REFUSAL)


def _good(scheme: str) -> tuple[str, ...]:
    return (
        f"{scheme}://site.test/picture",
        f"{scheme}://SITE.test./picture?sig=%2B%3d#part",
        f"{scheme}://www.site.test/picture",
        f"{scheme}://six.site.test/picture",
        f"{scheme}://alias.site.test/picture",
        f"{scheme}://{SITE}/picture",
        f"{scheme}://[{SITE_IPV6}]/picture",
        f"{scheme}://[::ffff:{SITE}]/picture",
        *(f"{scheme}://site.test{redirecting('/picture', status=status)}" for status in STATUSES),
        f"{scheme}://site.test{redirecting(f'{scheme}://other.site.test/picture')}",
        f"{scheme}://site.test{redirecting('//six.site.test/picture')}",
    )


def _up_to_https() -> str:
    return f"http://site.test{redirecting('https://other.site.test/picture')}"


def _good_in_jobs() -> tuple[str, ...]:
    return (
        f"http://{OPENED}/picture",
        f"http://{OPENED}:9000/picture",
        f"http://[::ffff:{OPENED}]:8080/picture",
        "http://store.site.test:9000/picture",
        "https://store.site.test/picture",
        f"http://site.test{redirecting('http://store.site.test:9000/picture')}",
    )


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _known(zone: Zone, name: str, *rounds: Answer) -> str:
    zone[name] = rounds
    return name
