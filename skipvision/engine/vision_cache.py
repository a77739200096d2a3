"""What the decoder reads for images that were asked about before, so that they need not be encoded again."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import numpy as np
from torch import Tensor

from skipvision.method.plan import SkipConfig

VisionKey = tuple[bytes, SkipConfig]
"""A digest of the pixels, and how their tokens were reduced."""


def digest_of(pixels: np.ndarray) -> bytes:
    """Equal for equal prepared pixels of equal shape."""
    digest = blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


class VisionCache:
    """Reduced visual tokens by image and setting, the least recently used out first.

    Args:
        max_bytes: of tokens held. 0: none are.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tokens: OrderedDict[VisionKey, Tensor] = OrderedDict()
        self.bytes_held = 0

    def get(self, key: VisionKey) -> Tensor | None:
        """(lm_tokens, hidden), read and never changed; it is the most recently used now. None: it is not here."""
        if key not in self._tokens:
            return None
        self._tokens.move_to_end(key)
        return self._tokens[key]

    def put(self, key: VisionKey, tokens: Tensor) -> None:
        """Keep a copy of `tokens`, (lm_tokens, hidden), that are not here yet."""
        if tokens.nbytes > self._max_bytes:
            return
        self._tokens[key] = tokens.clone()  # a view would hold the whole batch that it was made in
        self.bytes_held += tokens.nbytes
        while self.bytes_held > self._max_bytes:
            _, oldest = self._tokens.popitem(last=False)
            self.bytes_held -= oldest.nbytes

    def clear(self) -> None:
        """Give the memory back."""
        self._tokens.clear()
        self.bytes_held = 0
