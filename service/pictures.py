"""Images of a request: from an address to what the model's processor makes of them.

Addresses are fetched under the strict policy; what comes is decoded in processes of their own, with limits, so that an
image which crashes its decoder costs nobody but its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from service.config import ServiceConfig
from service.errors import ApiError, answer_to
from service.traces import Parts, unwatched
from skipvision.errors import FetchError, InputError
from skipvision.fetch import AsyncFetcher, FetchPolicy
from skipvision.sandbox import Limits, sandbox


class Pictures:
    """Of one door."""

    def __init__(self, config: ServiceConfig) -> None:
        self._fetcher = AsyncFetcher(FetchPolicy.service(http=config.allow_http, deny_networks=config.deny_networks))
        self._decoders = config.decoders
        self._limits = Limits(
            seconds=config.decode_seconds,
            memory_bytes=config.decode_memory_mib << 20,
            image_formats=config.image_formats,
        )

    async def prepared(self, urls: Sequence[str], model: str, part: Parts = unwatched) -> tuple[np.ndarray, ...]:
        """(3, height, width) uint8 each, as the model's processor prepares them.

        Args:
            part: is put around each part of the work.

        Raises:
            ApiError: one of them cannot be had or read; it says which.
        """
        if not urls:
            return ()
        with part("fetch images"):
            encoded = await self._fetcher.fetch_many(urls)
        sound = [image for image in encoded if not isinstance(image, FetchError)]
        with part("decode images"):
            made = iter(await asyncio.to_thread(self._decoded, sound, model))
        return tuple(
            _sound(image if isinstance(image, FetchError) else next(made), number, len(urls))
            for number, image in enumerate(encoded)
        )

    async def begin(self, model: str) -> None:
        """Start a process that decodes for a model, so that the first who asks need not wait for it."""
        await asyncio.to_thread(sandbox(model, self._limits, self._decoders).begin)

    async def close(self) -> None:
        await self._fetcher.close()

    def _decoded(self, images: Sequence[bytes], model: str) -> list[np.ndarray | InputError]:
        return [made for made, _ in sandbox(model, self._limits, self._decoders).prepare(images)]


def _sound(image: np.ndarray | InputError, number: int, of: int) -> np.ndarray:
    if not isinstance(image, InputError):
        return image
    error = answer_to(image)
    which = f"image {number + 1} of {of}: " if of > 1 else ""
    raise ApiError(f"{which}{error}", code=error.code, param="messages") from image
