"""What each target is given first: small inputs that reach far, and everything that was found wrong once.

A finding is written here as what it is rather than as a file of bytes: `FOUND` names it.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from tests.image_catalogue import REFUSED
from tests.image_files import GOOD

MAX_SEED_BYTES = 100_000


def _images() -> Iterable[bytes]:
    yield from (make(0) for make in GOOD.values())
    yield from (case.make() for case in REFUSED.values())


def _parquet(table: pa.Table, **options: object) -> bytes:
    memory = io.BytesIO()
    pq.write_table(table, memory, **options)
    return memory.getvalue()


def _tables() -> Iterable[bytes]:
    image = GOOD["one-pixel.png"](0)
    plain = pa.table({"image": ["a.png", None], "n": [1, 2], "when": pa.array([0, 1], pa.timestamp("us", tz="UTC"))})
    nested = pa.table(
        {
            "image": [{"bytes": image, "path": "a.png"}],
            "tags": [["x", None]],
            "counts": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            "kind": pa.array(["jpeg"]).dictionary_encode(),
        }
    )
    yield from (_parquet(table, compression=how) for table in (plain, nested) for how in ("none", "zstd"))
    yield _parquet(plain, store_schema=False, data_page_version="2.0")
    yield _parquet(plain.slice(0, 0))


def _renamed(name: bytes, to: bytes) -> bytes:
    plain = pa.table({"image": [{"bytes": b"", "path": "a.png"}]})
    return _parquet(plain, store_schema=False).replace(name, to)


def _damaged_page() -> bytes:
    """The head of a page is zeros; the footer is whole."""
    content = _parquet(pa.table({"image": ["a.png" * 50]}), compression="none", use_dictionary=False)
    return content[:4] + bytes(16) + content[20:]


SEEDS: dict[str, Callable[[], Iterable[bytes]]] = {
    "image": _images,
    "url": lambda: [
        b"https://example.com/a.png?x=%20#f", b"http://[2001:db8::1]:8080/", b"//host/p", b"../up?q", b"http://0x7f.1/",
        "https://ü.example/é".encode(), b"HTTPS://EXAMPLE.com:443/%zz", b"http://a@b/", b"data:,x", b"http:///x",
    ],
    "data_url": lambda: [b"", b"AAAA", b"AAA=", b"AA==", b"AA=A", b"data:image/png;base64,iVBORw0KGgo=", b"data:,x",
                         b"data:;BASE64,AA A=", base64.b64encode(bytes(65))],
    "retry_after": lambda: [b"", b"120", b"-1", b"1.5", b"Wed, 21 Oct 2026 07:28:00 GMT", b"21 Oct 26 07:28 +0200",
                            b"Wed, 21 Oct 0001 07:28:00 -2359"],
    "settings": lambda: [
        b"input: a\noutput: b\n", b"input: a\noutput: b\nprompt: hi\nmax_tokens: 3\nskip: 100/156\n", b"- a\n- b\n",
        b"input: [a, {b: c}]\n", b"a: &x [1]\nb: *x\n", b"? [a]\n: 1\n", b"!!python/object:os.system x\n", b"\xff",
    ],
    "openai_line": lambda: [
        json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
        for body in (
            {"model": "m", "messages": [{"role": "user", "content": "What?"}], "max_tokens": 5, "stop": ["."], "n": 1},
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "https://a/b.png"}}, {"type": "text", "text": "What?"}]}]},
            {"messages": "[]", "tools": [{}], "temperature": None},
        )
    ],
    "jsonl": lambda: [
        b'{"image": "a.png", "n": 1}\n{"image": null, "n": 1.5}\n\n', b'{"image": "a", "t": [1, null], "s": {"x": {}}}',
        b'\xef\xbb\xbf{"image": "\\u00e9", "b": true}\r\n', b"[]", b'{"image": "a", "n": 123456789012345678901}',
    ],
    "csv": lambda: [
        b"image,n\na.png,1\n,2\n", b'image,note\r\n"a ""b""\n",x\r\n', b"image;n\na;1\n",
        b"\xef\xbb\xbfimage\n\xc3\xa9\n",
        b"image,when,no\na,2026-01-02,007\nb,12:00,x\n", b"image,image\n1,2\n", b"",
    ],
    "parquet": _tables,
}  # fmt: skip

FOUND: dict[str, dict[str, bytes]] = {
    "url": {
        "brackets around what is no number, in a redirect": "//[20018db8::1]:8080/é".encode(),
        "a number in brackets where credentials stand": b"http://[a]@/",
    },
    "retry_after": {
        "a time zone further away than any": b"Wed, 21 Oct 2026 07:28:00 +99999999999999999999",
    },
    "settings": {
        "a day that no calendar has": b"a: 2024-13-45\n",
        "a moment that is none": b"a: !!timestamp x",
        "a truth value that is none": b"a: !!bool x",
        "lists in lists": b"[" * 2000,
    },
    "openai_line": {
        "half a character": b'{"body": {"messages": [{"role": "user", "content": "\\ud800"}]}}',
        "half a character in a name": b'{"body": {"messages": [{"role": "user", "content": "a"}], "\\ud800": 1}}',
    },
    "jsonl": {
        "lists in lists": b"[" * 100_000,
        "lists in lists of a column": b'{"image": ' + b"[" * 99_000,
        "half a character as a column's name": b'{"image": "a", "\\ud800": 1}',
    },
    "csv": {
        "a column's name in another encoding": b"\xff,image\n1,a\n",
    },
    "parquet": {
        "a damaged page behind a sound footer": _damaged_page(),
        "a column's name in another encoding": _renamed(b"image", b"\xffmage"),
        "a part's name in another encoding": _renamed(b"path", b"\xffath"),
    },
}
"""Target -> what was found wrong, by what it is. Mended; the tests try it for ever."""


def seeds(target: str) -> list[bytes]:
    """All small inputs of a target, those that were found among them."""
    every = [*SEEDS[target](), *FOUND.get(target, {}).values()]
    return [seed for seed in every if len(seed) <= MAX_SEED_BYTES]
