"""A name server that says what it is told to, and something else when it is asked again."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from ipaddress import ip_address

_A, _CNAME, _AAAA = 1, 5, 28
_THE_QUESTION = b"\xc0\x0c"  # a pointer to the name that was asked about
_FOUND, _NO_SUCH_NAME = 0x8180, 0x8183

Answer = tuple[str, ...]
"""Numbers of either kind, or one other name."""
Zone = dict[str, tuple[Answer, ...]]
"""For each name what is answered, in turn, the last for ever. A name that is not here does not exist."""


class NameServer:
    """Answers at one address, over UDP, with a time to live of zero."""

    def __init__(self, zone: Zone, address: str) -> None:
        self._zone = zone
        self._asked: Counter[tuple[str, int]] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def begin_again(self) -> None:
        """Answer the next question about each name as if it were the first."""
        self._asked.clear()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(question), sender)

    def _answer(self, message: bytes) -> bytes:
        name, end = _name(message)
        (kind,) = struct.unpack_from("!H", message, end)
        rounds = self._zone.get(name, ())
        turn = min(self._asked[name, kind], len(rounds) - 1)
        self._asked[name, kind] += 1
        records = self._records(rounds[turn], kind) if rounds else []
        header = struct.pack("!HHHHH", _FOUND if rounds else _NO_SUCH_NAME, 1, len(records), 0, 0)
        return message[:2] + header + message[12 : end + 4] + b"".join(records)

    def _records(self, answer: Answer, kind: int, about: bytes = _THE_QUESTION) -> list[bytes]:
        records = []
        for text in answer:
            try:
                number = ip_address(text)
            except ValueError:
                other = b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"
                records += [_record(about, _CNAME, other), *self._records(self._zone[text][-1], kind, other)]
            else:
                if kind == (_A if number.version == 4 else _AAAA):
                    records.append(_record(about, kind, number.packed))
        return records


def _record(about: bytes, kind: int, data: bytes) -> bytes:
    return about + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


def _name(message: bytes) -> tuple[str, int]:
    """The name that is asked about, and where it ends."""
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels).lower(), at + 1
