"""Fetching: from real servers on this machine, over real sockets; what is closed is never even asked."""

from __future__ import annotations

import asyncio
import base64
import gc
import pickle
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from yarl import URL

from skipvision.errors import ConfigError, FetchError
from skipvision.fetch import AsyncFetcher, Fetcher, FetchPolicy, decode_data_url
from skipvision.fetch.addresses import AddressRules, parse_networks
from skipvision.fetch.failures import retry_after_seconds
from tests.fetch.site import PICTURE, Site, drop_the_line, policy, redirect


def refusal(fetcher: Fetcher, url: str) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url)
    return caught.value


# Getting bytes


def test_a_file_is_fetched(site, fetcher):
    assert fetcher.fetch(site.root + "/a.png") == PICTURE


def test_the_url_arrives_as_it_was_signed(site, fetcher):
    path = "/a%2Fb%20c/%7Ed?sig=%2B%3D%2f&x=a+b~&y=%e4"
    fetcher.fetch(site.root + path + "#fragment")
    assert site.paths == [path]


def test_letters_of_other_alphabets_are_quoted(site, fetcher):
    fetcher.fetch(site.root + "/bücher 1.png")
    assert site.paths == ["/b%C3%BCcher%201.png"]


def test_the_server_learns_nothing_it_need_not(site, fetcher, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.2:1")
    site.answers["/a"] = [(200, {"Set-Cookie": "who=me"}, PICTURE)]
    fetcher.fetch(site.root + "/a")
    fetcher.fetch(site.root + "/a")
    assert [sorted(headers) for headers in site.headers] == [["Accept", "Accept-Encoding", "Host", "User-Agent"]] * 2
    assert site.headers[0]["Accept-Encoding"] == "identity"


def test_many_come_back_in_order_each_with_its_own_error(site, fetcher):
    site.answers["/gone"] = [(404, {}, b"")]
    outcomes = fetcher.fetch_many([f"{site.root}/{name}" for name in ("a", "gone", "b")] + ["ftp://x/", "data:,"])
    codes = [outcome.code if isinstance(outcome, FetchError) else outcome for outcome in outcomes]
    assert codes == [PICTURE, "fetch_not_found", PICTURE, "url_scheme", "url_invalid"]


def test_the_same_url_is_fetched_once(site, fetcher):
    assert fetcher.fetch_many([site.root + "/a"] * 5) == [PICTURE] * 5
    assert site.paths == ["/a"]


@pytest.mark.parametrize("most", [1, 3])
def test_a_host_gets_no_more_connections_than_it_should(site, most):
    site.answers = defaultdict(lambda: [lambda handler: (time.sleep(0.02), handler.say(200, {}, PICTURE))])
    with Fetcher(policy(max_per_host=most)) as fetcher:
        outcomes = fetcher.fetch_many([f"{site.root}/{i}" for i in range(20)])
    assert outcomes == [PICTURE] * 20
    assert site.most_open <= most


def test_a_host_reached_by_redirects_gets_no_more_either(site, inner_site):
    site.answers = defaultdict(lambda: [redirect(inner_site.root + "/slow")])
    inner_site.answers["/slow"] = [lambda handler: (time.sleep(0.02), handler.say(200, {}, PICTURE))]
    names = [f"http://127.0.0.{n}:{site.port}" for n in (1, 1)]
    with Fetcher(policy(allow_networks=("127.0.0.0/8",), max_per_host=2)) as fetcher:
        fetcher.fetch_many([f"{name}/{i}" for i, name in enumerate(names * 6)])
    assert len(inner_site.paths) == 12
    assert inner_site.most_open <= 2


def test_waiting_for_ones_turn_does_not_count_as_the_servers_time(site):
    site.answers = defaultdict(lambda: [lambda handler: (time.sleep(0.1), handler.say(200, {}, PICTURE))])
    with Fetcher(policy(max_per_host=1, total_seconds=2)) as fetcher:
        assert fetcher.fetch_many([f"{site.root}/{i}" for i in range(24)]) == [PICTURE] * 24


# Where it may go


CLOSED_HOSTS = [
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1",
    "169.254.169.254", "169.254.170.2", "192.0.0.192", "192.0.0.8", "168.63.129.16", "100.100.100.200", "198.18.0.1",
    "192.0.2.1", "198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]",
    "[2606:4700::5efe:7f00:1]", "[2606:4700::200:5efe:a9fe:a9fe]", "[2001:0:a9fe:a9fe::1]", "[2001:db8::1]",
    "[3fff::1]", "[100::1]", "[5f00::1]", "[4000::1]",
]  # fmt: skip
DISGUISED_HOSTS = [
    "2130706433", "2852039166", "0", "1", "127.1", "127.0.1", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0X7F.0.0.1",
    "017700000001", "0177.0.0.1", "0177.1", "127.0.0.1.", "127.0.0.1..", "127.0.0.01", "00127.0.0.1", "0xa9fea9fe",
    "0251.0376.0251.0376", "0251.254.169.254", "①②⑦.0.0.1", "\uff11\uff12\uff17.0.0.1", "127。0。0。1",
    "256.256.256.256", "1.2.3.4.5", "8.8.2056", "134744072", "0x08080808", "example.1", "example.0x1",
]  # fmt: skip
OPEN_HOSTS = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "[2606:4700:4700::1111]",
    "[2a00:1450:4001::1]",
    "[::ffff:8.8.8.8]",
]


@pytest.mark.parametrize("host", CLOSED_HOSTS + DISGUISED_HOSTS)
def test_closed_addresses_are_refused_in_every_spelling(host):
    with pytest.raises(FetchError) as caught:
        AddressRules().parse(f"http://{host}/latest/meta-data/")
    assert caught.value.code == "url_refused"


@pytest.mark.parametrize("host", OPEN_HOSTS)
def test_public_addresses_are_open_on_the_usual_ports_only(host):
    assert AddressRules().parse(f"https://{host}/a.png").path == "/a.png"
    with pytest.raises(FetchError, match="not open"):
        AddressRules().parse(f"https://{host}:6379/a.png")


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "localhost.localdomain"])
def test_a_name_that_means_this_machine_is_refused_unasked(name):
    with Fetcher(FetchPolicy(pause_seconds=0)) as fetcher, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        assert refusal(fetcher, f"http://{name}:{listener.getsockname()[1]}/").code in (
            "url_refused",
            "fetch_unreachable",
        )
        with pytest.raises(TimeoutError):
            listener.accept()


def test_localhost_is_refused_for_what_it_is():
    with Fetcher() as fetcher:
        assert [e.code for e in fetcher.fetch_many([f"http://localhost/{i}" for i in range(8)])] == ["url_refused"] * 8


def test_an_opened_network_is_open_on_every_port_and_no_wider(site, inner_site, fetcher):
    assert fetcher.fetch(site.root) == PICTURE
    assert refusal(fetcher, inner_site.root).code == "url_refused"
    assert inner_site.paths == []


def test_an_opened_ipv4_network_is_open_in_ipv6_clothes():
    rules = AddressRules(open_networks=parse_networks(("10.1.0.0/16",)))
    assert rules.admits("::ffff:10.1.2.3", 9000)
    assert not rules.admits("::ffff:10.2.2.3", 9000)
    assert not rules.admits("fe80::1%eth0", 80)


def test_a_closed_network_is_closed_though_it_is_public_or_opened():
    settings = policy(deny_networks=("2606:4700::/32", "127.0.0.1/32"))
    assert [settings.rules.admits(address, 443) for address in ("2606:4700::1", "::ffff:127.0.0.1")] == [False] * 2
    assert settings.rules.admits("2606:4701::1", 443)


def test_what_is_connected_to_is_judged_even_if_nothing_before_it_was(site, monkeypatch):
    monkeypatch.setattr(AddressRules, "parse", lambda _, text: URL(text))
    with Fetcher() as fetcher:
        assert refusal(fetcher, site.root + "/a").code == "url_refused"
    assert site.paths == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_inward_is_refused_and_the_inner_host_never_asked(site, inner_site, fetcher, status):
    site.answers["/a"] = [redirect(inner_site.root + "/secret", status)]
    assert refusal(fetcher, site.root + "/a").code == "url_refused"
    assert inner_site.paths == []


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://169.254.169.254/latest/meta-data/", "url_refused"),
        ("//169.254.169.254/", "url_refused"),
        ("http://2852039166/", "url_refused"),
        ("http://me:secret@127.0.0.1/", "url_refused"),
        ("file:///etc/hostname", "url_scheme"),
        ("data:image/png;base64,AAAA", "url_scheme"),
        ("gopher://127.0.0.1/", "url_scheme"),
        ("http://127.0.0.1\\@example.com/", "url_invalid"),
        ("https://", "url_invalid"),
    ],
)
def test_a_redirect_is_judged_like_the_url_itself(site, fetcher, location, code):
    site.answers["/a"] = [redirect(location)]
    assert refusal(fetcher, site.root + "/a").code == code


def answering(*rounds: list[str]) -> Callable[..., list[tuple[object, ...]]]:
    """A resolver that gives other addresses each time it is asked, the last ones for ever."""
    left = list(rounds)

    def getaddrinfo(host: object, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo


def test_a_name_that_changes_its_meaning_after_the_check_gains_nothing(site, inner_site, fetcher, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", answering(["127.0.0.1"], ["127.0.0.2"]))
    assert fetcher.fetch(f"http://rebinding.test:{site.port}/a") == PICTURE
    assert (site.paths, inner_site.paths) == (["/a"], [])
    assert site.headers[0]["Host"] == f"rebinding.test:{site.port}"


@pytest.mark.parametrize("addresses", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]])
def test_one_closed_address_among_open_ones_closes_the_name(site, fetcher, monkeypatch, addresses):
    monkeypatch.setattr(socket, "getaddrinfo", answering(addresses))
    assert refusal(fetcher, f"http://mixed.test:{site.port}/").code == "url_refused"
    assert site.paths == []


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "url_scheme"),
        ("a.png", "url_scheme"),
        ("/etc/hostname", "url_scheme"),
        ("file:///etc/hostname", "url_scheme"),
        ("ftp://example.com/a.png", "url_scheme"),
        ("s3://bucket/a.png", "url_scheme"),
        ("javascript:alert(1)", "url_scheme"),
        ("\\\\server\\share\\a.png", "url_invalid"),
        ("http://", "url_invalid"),
        ("http:///a.png", "url_invalid"),
        ("http:a.png", "url_invalid"),
        ("http://exa mple.com/", "url_invalid"),
        ("http://example.com:99999/", "url_invalid"),
        ("http://example.com:0/", "url_invalid"),
        ("http://example.com:8_0/", "url_invalid"),
        ("http://example.com:x/", "url_invalid"),
        ("http://[::1/", "url_invalid"),
        ("http://[::1]x/", "url_invalid"),
        ("http://[fe80::1%25eth0]/", "url_invalid"),
        ("http://%31%32%37.0.0.1/", "url_invalid"),
        ("http://example.com\\@127.0.0.1/", "url_invalid"),
        ("http://example.com/\r\nHost: inner", "url_invalid"),
        ("http://example.com/\x00", "url_invalid"),
        (" http://example.com/", "url_invalid"),
        ("http://example.com/\ud800", "url_invalid"),
        ("http://example.com/" + "a" * 9000, "url_invalid"),
        ("http://" + "a" * 64 + ".com/", "url_invalid"),
        ("http://a..b/", "url_invalid"),
        ("http://user@example.com/", "url_refused"),
        ("http://user:secret@example.com/", "url_refused"),
        ("http://@example.com/", "url_refused"),
        ("http://127.0.0.1#@example.com/", "url_refused"),
    ],
)
def test_a_url_that_is_no_plain_web_address_is_refused(url, code):
    with Fetcher() as fetcher:
        assert refusal(fetcher, url).code == code


def test_only_the_schemes_of_the_policy_are_fetched(site):
    with Fetcher(policy(schemes=("https",))) as fetcher:
        assert refusal(fetcher, site.root).code == "url_scheme"
        assert refusal(fetcher, "data:image/png;base64,AAAA").code == "url_scheme"
    assert site.paths == []


# Redirects


def test_redirects_are_followed_relative_and_absolute(site, fetcher):
    site.answers["/a/b"] = [redirect("../c?x=%2F")]
    site.answers["/c?x=%2F"] = [redirect(site.root + "/d")]
    assert fetcher.fetch(site.root + "/a/b") == PICTURE
    assert site.paths == ["/a/b", "/c?x=%2F", "/d"]


def test_redirects_in_a_circle_come_to_an_end(site):
    site.answers["/a"] = [redirect("/a")]
    with Fetcher(policy(max_redirects=3)) as fetcher:
        assert refusal(fetcher, site.root + "/a").code == "fetch_redirects"
    assert site.paths == ["/a"] * 4


def test_a_redirect_to_nowhere_is_an_error_of_the_server(site, fetcher):
    site.answers["/a"] = [(302, {}, b"")]
    assert refusal(fetcher, site.root + "/a").code == "fetch_http_error"


def test_encryption_is_not_left_by_a_redirect():
    rules = AddressRules()
    secure = rules.parse("https://example.com/a")
    assert str(rules.follow(secure, "/b")) == "https://example.com/b"
    with pytest.raises(FetchError) as caught:
        rules.follow(secure, "http://example.com/b")
    assert caught.value.code == "fetch_redirects"


# Servers that fail


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "fetch_not_found"), (410, "fetch_not_found"), (401, "fetch_http_error"), (403, "fetch_http_error"),
     (204, "fetch_http_error"), (206, "fetch_http_error"), (501, "fetch_http_error")],
)  # fmt: skip
def test_a_final_answer_is_not_asked_for_again(site, fetcher, status, code):
    site.answers["/a"] = [(status, {}, b"")]
    error = refusal(fetcher, site.root + "/a")
    assert (error.code, len(site.paths)) == (code, 1)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    "first", [(429, {"Retry-After": "0"}, b""), (503, {}, b"busy"), (500, {}, b""), (520, {}, b""), drop_the_line]
)
def test_a_passing_failure_is_tried_again(site, fetcher, first):
    site.answers["/a"] = [first, first, (200, {}, PICTURE)]
    assert fetcher.fetch(site.root + "/a") == PICTURE


@pytest.mark.parametrize(
    ("answer", "code"), [((503, {}, b""), "fetch_http_error"), (drop_the_line, "fetch_unreachable")]
)
def test_tries_come_to_an_end(site, answer, code):
    site.answers["/a"] = [answer]
    with Fetcher(policy(max_attempts=2)) as fetcher:
        assert refusal(fetcher, site.root + "/a").code == code
        asked = len(site.paths)
        assert 2 <= asked <= 4, "aiohttp itself repeats once when an idle connection turns out closed"


def test_a_server_that_asks_for_a_longer_pause_than_there_is_time_is_left_alone(site, fetcher):
    site.answers["/a"] = [(429, {"Retry-After": "3600"}, b"")]
    assert refusal(fetcher, site.root + "/a").code == "fetch_http_error"
    assert len(site.paths) == 1


def test_retry_after_is_read_as_seconds_or_as_a_date():
    assert retry_after_seconds("7") == 7
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert retry_after_seconds(in_an_hour) == pytest.approx(3600, abs=30)
    assert [retry_after_seconds(text) for text in ("", "soon", "-1", "1.5e9")] == [None] * 4
    overflowing = ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 +99999999999999999999")
    assert [retry_after_seconds(text) for text in overflowing] == [None] * 2
    assert retry_after_seconds("9" * 400) == float("inf")


@pytest.mark.parametrize("seconds_before", ["headers", "body"])
def test_a_server_that_falls_silent_is_given_up(site, seconds_before):
    released = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        if seconds_before == "body":
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            handler.wfile.write(b"x")
        released.wait(30)

    site.answers["/a"] = [silent]
    with Fetcher(policy(total_seconds=0.3)) as fetcher:
        assert refusal(fetcher, site.root + "/a").code == "fetch_timeout"
    released.set()


def test_an_answer_that_says_it_is_too_large_is_not_read(site):
    site.answers["/a"] = [(200, {}, b"x" * 1001)]
    site.answers["/b"] = [(200, {}, b"x" * 1000)]
    with Fetcher(policy(max_bytes=1000)) as fetcher:
        assert refusal(fetcher, site.root + "/a").code == "fetch_too_large"
        assert len(fetcher.fetch(site.root + "/b")) == 1000


def test_an_endless_answer_is_read_to_the_limit_and_no_further(site):
    sent = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            while len(sent) < 10_000:
                handler.wfile.write(b"x" * 65536)
                sent.append(65536)
        except OSError:
            pass

    site.answers["/a"] = [endless]
    with Fetcher(policy(max_bytes=200_000)) as fetcher:
        assert refusal(fetcher, site.root + "/a").code == "fetch_too_large"
    assert sum(sent) < 100_000_000


def test_half_an_answer_is_no_answer(site, fetcher):
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.say(200, {"Content-Length": "1000"}, b"x" * 10)
        handler.close_connection = True

    site.answers["/a"] = [half]
    assert refusal(fetcher, site.root + "/a").code == "fetch_unreachable"
    assert len(site.paths) == 3


def test_compression_nobody_asked_for_is_refused(site, fetcher):
    site.answers["/a"] = [(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b")]
    assert refusal(fetcher, site.root + "/a").code == "fetch_http_error"


def test_a_server_that_does_not_speak_http_is_an_error_of_its_own(fetcher):
    def mumble(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 mail ready\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=mumble, args=(listener,), daemon=True).start()
        assert refusal(fetcher, f"http://127.0.0.1:{listener.getsockname()[1]}/").code == "fetch_http_error"


def test_a_port_where_nobody_listens_is_unreachable(fetcher):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refusal(fetcher, f"http://127.0.0.1:{port}/").code == "fetch_unreachable"


@pytest.mark.parametrize(("errno", "lookups"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)])
def test_a_name_that_nobody_knows_is_unreachable_and_asked_for_again_only_if_that_may_help(
    fetcher, monkeypatch, errno, lookups
):
    asked = []

    def getaddrinfo(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise socket.gaierror(errno, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert refusal(fetcher, "http://nowhere.test/").code == "fetch_unreachable"
    assert len(asked) == lookups


def test_names_that_nobody_answers_for_do_not_hold_up_those_that_are_good(site, monkeypatch):
    released = threading.Event()

    def getaddrinfo(host: object, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        if str(host).startswith("slow"):
            released.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with Fetcher(policy(total_seconds=3, max_parallel=40)) as fetcher:
        outcomes = fetcher.fetch_many(
            [f"http://slow{i}.test:{site.port}/" for i in range(39)] + [f"http://good.test:{site.port}/"]
        )
        released.set()
    assert [outcome.code for outcome in outcomes[:-1]] == ["fetch_timeout"] * 39
    assert outcomes[-1] == PICTURE


def test_a_certificate_that_nobody_signed_is_not_trusted(tmp_path, fetcher):
    server = Site("127.0.0.1", tls=self_signed(tmp_path))
    try:
        error = refusal(fetcher, server.root + "/a")
    finally:
        server.close()
    assert (error.code, "certificate" in str(error), server.paths) == ("fetch_unreachable", True, [])


def self_signed(folder: Path) -> ssl.SSLContext:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "both.pem").write_bytes(certificate + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context


def test_no_message_repeats_the_url_or_an_address(site, inner_site, fetcher):
    site.answers["/secret-away"] = [redirect(inner_site.root + "/secret")]
    site.answers["/secret-gone"] = [(404, {}, b"")]
    site.answers["/secret-dropped"] = [drop_the_line]
    urls = [f"{site.root}/secret-{what}" for what in ("away", "gone", "dropped")]
    urls += [
        "http://secret..x/",
        "http://secret@x/",
        "secret://x",
        "http://secret.invalid:81/",
        inner_site.root + "/secret",
    ]
    for outcome in fetcher.fetch_many(urls):
        assert isinstance(outcome, FetchError)
        assert "secret" not in str(outcome)
        assert "127.0" not in str(outcome)
        assert str(site.port) not in str(outcome)
        assert pickle.loads(pickle.dumps(outcome)).code == outcome.code


# data: URLs


def test_a_data_url_gives_its_bytes(fetcher):
    text = base64.b64encode(PICTURE).decode()
    assert fetcher.fetch(f"data:image/png;base64,{text}") == PICTURE
    assert fetcher.fetch(f"DATA:image/png;charset=x;BASE64,{text}") == PICTURE
    assert fetcher.fetch("data:;base64,") == b""


@pytest.mark.parametrize(
    "url",
    ["data:", "data:image/png;base64", "data:image/png,abc", "data:image/png;base64,AAA",
     "data:image/png;base64,A A A A", "data:image/png;base64,AAAA\n", "data:image/png;base64,AAAA=",
     "data:image/png;base64,AAAA====", "data:image/png;base64,AA=A", "data:image/png;base64,AA-_", "data:;base64,äääa",
     "data:;base64,data:;base64,AAAA", "data:;base64,AA%3D%3D"],
)  # fmt: skip
def test_a_data_url_is_base64_to_the_letter_or_invalid(fetcher, url):
    assert refusal(fetcher, url).code == "url_invalid"


@pytest.mark.parametrize("size", [998, 999, 1000])
def test_a_data_url_may_hold_just_as_much_as_a_file(size):
    url = "data:;base64," + base64.b64encode(b"x" * size).decode()
    assert len(decode_data_url(url, max_bytes=size)) == size
    with pytest.raises(FetchError) as caught:
        decode_data_url(url, max_bytes=size - 1)
    assert caught.value.code == "fetch_too_large"


# The policy and the two faces


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"allow_networks": ("10.0.0.0/33",)}, r"'10.0.0.0/33' is not a network such as"),
        ({"allow_networks": ("10.0.0.1/8",)}, r"'10.0.0.1/8' is not a network"),
        ({"deny_networks": ("mine",)}, r"'mine' is not a network"),
        ({"schemes": ("file",)}, "schemes may hold https, http and data; got 'file'"),
        ({"max_bytes": 0}, "max_bytes must be above 0; got 0"),
        ({"total_seconds": float("nan")}, "total_seconds must be above 0; got nan"),
        ({"max_redirects": -1}, "max_redirects must not be negative; got -1"),
    ],
)
def test_a_wrong_policy_is_refused_with_the_setting_and_its_value(settings, says):
    with pytest.raises(ConfigError, match=says):
        FetchPolicy(**settings)


def test_the_service_fetches_encrypted_public_urls_and_data_at_a_smaller_cost():
    job, service = FetchPolicy(), FetchPolicy.service(deny_networks=("198.41.0.0/24",))
    assert (service.schemes, service.ports, service.allow_networks) == (("https", "data"), (443,), ())
    assert service.deny_networks == ("198.41.0.0/24",)
    bounds = ("max_bytes", "connect_seconds", "total_seconds", "max_redirects", "max_attempts", "max_per_host")
    assert all(getattr(service, bound) < getattr(job, bound) for bound in bounds)
    with Fetcher(service) as fetcher:
        urls = ("http://8.8.8.8/", "https://8.8.8.8:80/", "https://10.0.0.1/")
        assert [refusal(fetcher, url).code for url in urls] == ["url_scheme", "url_refused", "url_refused"]
        assert fetcher.fetch("data:;base64,") == b""
    assert FetchPolicy.service(http=True).rules.parse("http://8.8.8.8/")


def test_a_fetcher_travels_to_other_processes_as_its_policy(site, fetcher):
    fetcher.fetch(site.root)
    with pickle.loads(pickle.dumps(fetcher)) as copy:
        assert copy.policy == fetcher.policy
        assert copy.fetch(site.root) == PICTURE


def test_the_blocking_fetcher_works_where_a_loop_is_running_already(site, fetcher):
    async def notebook() -> bytes:
        return fetcher.fetch(site.root)

    assert asyncio.run(notebook()) == PICTURE


def test_the_async_fetcher_works_in_the_callers_loop(site):
    async def service() -> list[bytes | FetchError]:
        fetcher = AsyncFetcher(policy())
        try:
            return await fetcher.fetch_many([site.root + "/a", site.root + "/b"])
        finally:
            await fetcher.close()

    assert asyncio.run(service()) == [PICTURE, PICTURE]


def test_threads_share_one_fetcher(site, fetcher):
    outcomes: list[bytes] = []
    threads = [
        threading.Thread(target=lambda i=i: outcomes.append(fetcher.fetch(f"{site.root}/{i}"))) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [PICTURE] * 8


def fetch_threads() -> int:
    return sum(thread.name == "skipvision-fetch" for thread in threading.enumerate())


def test_a_closed_fetcher_leaves_no_thread_and_starts_again(site):
    before = fetch_threads()
    fetcher = Fetcher(policy())
    fetcher.fetch(site.root)
    assert fetch_threads() == before + 1
    fetcher.close()
    fetcher.close()
    assert fetch_threads() == before
    assert fetcher.fetch(site.root) == PICTURE
    fetcher.close()


def test_a_forgotten_fetcher_ends_its_thread(site):
    before = fetch_threads()
    Fetcher(policy()).fetch(site.root)
    gc.collect()
    assert fetch_threads() == before
