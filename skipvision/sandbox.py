"""Images are looked at in a child process, which may die of one: the image is an error then, and its row goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from skipvision.errors import ImageError, InputError
from skipvision.image_decoders import check_optional
from skipvision.image_formats import OptionalFormat

Encoded = bytes | Path
Prepared = tuple[np.ndarray | InputError, float]
"""(3, height, width) uint8, or why not; and the seconds it took."""

_TRIES = 2
"""An image whose process died is tried once more: the process may have been ended for another's sake."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may take, and be."""

    seconds: float = 60.0
    """By the clock, from bytes to prepared pixels."""
    memory_bytes: int = 2 << 30
    """Beside what the process takes without it."""
    image_formats: tuple[OptionalFormat, ...] = ()
    """Formats that are read beside those that always are."""
    reduced_decoding: bool = False
    """Decode a JPEG smaller when the model needs less, near to exact."""


DEFAULT_LIMITS = Limits()


class Sandbox:
    """Child processes that prepare images, each one after another, and are replaced when they die.

    Args:
        processes: so many images at a time, for all callers together.
    """

    def __init__(self, model: str, limits: Limits, processes: int = 1) -> None:
        self._limits = limits
        check_optional(limits.image_formats)  # a child that cannot begin would be replaced for ever
        context: Any = get_context("forkserver")
        # What takes seconds to import is imported once; a child that replaces a dead one starts at once.
        context.set_forkserver_preload(["skipvision.decoding"])
        self._pool = ProcessPool(max_workers=processes, context=context, initializer=_begin, initargs=[model, limits])

    def prepare(self, images: Sequence[Encoded]) -> list[Prepared]:
        """Each image prepared, or why it cannot be, with the seconds that it took.

        Raises:
            Exception: what kept the child process from its work: the model's processor is gone, or cannot be read.
        """
        made = list(self._tried(images))
        again = [at for at, (each, _) in enumerate(made) if _crashed(each)]
        for _ in range(_TRIES - 1):
            for at, outcome in zip(again, self._tried([images[at] for at in again]), strict=True):
                made[at] = outcome
        return made

    def begin(self) -> None:
        """Start a child, which takes seconds, and wait until it works."""
        self.prepare([b""])

    def _tried(self, images: Sequence[Encoded]) -> Iterator[Prepared]:
        if not images:
            return
        results = self._pool.map(_prepare, images, timeout=self._limits.seconds, chunksize=1).result()
        for _ in images:
            try:
                yield next(results)
            except TimeoutError:
                message = f"the image could not be decoded in {self._limits.seconds:g} seconds"
                yield ImageError(message, code="image_too_slow"), self._limits.seconds
            except ProcessExpired:
                yield ImageError("the image ended the process that decoded it", code=_CRASHED), 0.0


@cache
def sandbox(model: str, limits: Limits, processes: int = 1) -> Sandbox:
    """The one of this process; it ends with it."""
    return Sandbox(model, limits, processes)


_CRASHED = "image_crashed_decoder"


_could_not_begin: Exception | None = None


def _begin(model: str, limits: Limits) -> None:
    global _could_not_begin
    try:
        _in_child("begin", model, limits)
    except Exception as error:  # told with the first image: a child that ends here would be replaced for ever
        _could_not_begin = error


def _prepare(image: Encoded) -> Prepared:
    if _could_not_begin is not None:
        raise _could_not_begin
    made: Prepared = _in_child("prepare", image)
    return made


def _in_child(function: str, *arguments: Any) -> Any:
    # Named, not given: what `decoding` imports takes seconds and hundreds of MiB, and this process needs none of it.
    return getattr(import_module("skipvision.decoding"), function)(*arguments)


def _crashed(made: np.ndarray | InputError) -> bool:
    return isinstance(made, InputError) and made.code == _CRASHED
