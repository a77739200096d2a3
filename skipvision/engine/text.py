"""Output tokens into text, as they come: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"
"""What tokenizers put in the place of bytes that are no character, or not yet one."""


class Detokeniser:
    """Text of a growing list of tokens, each piece given once.

    The tokenizer is asked about the last few tokens only, so that a long answer does not cost its square. It is
    asked twice, with and without the new tokens, since what it writes for a token may depend on the one before.
    """

    def __init__(self, detokenize: Callable[[Sequence[int]], str]) -> None:
        self._detokenize = detokenize
        self._given: list[int] = []
        """The latest tokens whose text was given: the context of the next."""
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """New text; empty while the last character is incomplete."""
        self._pending.append(token)
        text = self._pending_text()
        if not text or text.endswith(_UNFINISHED):
            return ""
        self._given, self._pending = self._pending, []
        return text

    def finish(self) -> str:
        """The rest; a character that will never be complete is dropped."""
        text = self._pending_text().rstrip(_UNFINISHED)
        self._pending = []
        return text

    def _pending_text(self) -> str:
        before = self._detokenize(self._given)
        return self._detokenize(self._given + self._pending)[len(before) :]


class StopStrings:
    """Hold text back while it may be the beginning of a stop string, and cut before the stop string."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that is certain to be part of the answer."""
        text = self._held + text
        places = [place for place in map(text.find, self._stop) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        certain = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """What was held back: no stop string can come of it any more."""
        text, self._held = self._held, ""
        return text


class AnswerText:
    """The text of one answer while it grows.

    Args:
        whole: give it at the end, from all tokens at once, where no stop string must be looked for before.
    """

    def __init__(self, detokenize: Callable[[Sequence[int]], str], stop: Sequence[str], *, whole: bool = False) -> None:
        self._detokenize, self._waits = detokenize, whole and not stop
        self._waiting: list[int] = []
        self._tokens = Detokeniser(detokenize)
        self._stops = StopStrings(stop)
        self._pieces: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been written."""
        return self._stops.found

    def push(self, token: int) -> str:
        """Take one token; the text it makes certain."""
        if self._waits:
            self._waiting.append(token)
            return ""
        return self._keep(self._stops.push(self._tokens.push(token)))

    def finish(self) -> str:
        """No token follows; the text that was still held back."""
        if self.stopped:
            return ""
        if self._waits:
            text = self._detokenize(self._waiting)
            if _UNFINISHED not in text:
                return self._keep(text)
            # One character that is cut off can take those before it along, where a tokenizer reads bytes by runs.
            self._keep("".join(map(self._tokens.push, self._waiting)))
            return self.so_far() + self._keep(self._tokens.finish())
        last = self._stops.push(self._tokens.finish())
        return self._keep(last + self._stops.finish())

    def so_far(self) -> str:
        """All text given so far."""
        return "".join(self._pieces)

    def _keep(self, piece: str) -> str:
        self._pieces.append(piece)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins; less than all of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
