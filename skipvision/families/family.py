"""What the engine asks of a kind of VLM, and nothing else: the `Family` protocol and the values it speaks in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from skipvision.method.flops import DecoderShape
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling

Attend = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""The engine's attention: (layer, q (rows, heads, head_dim), k and v (rows, kv_heads, head_dim), scaling) ->
(rows, heads, head_dim). Rows are the packed tokens of one step; rotary embedding is already applied."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as token ids, its images left out."""

    text_ids: tuple[int, ...]
    image_offsets: tuple[int, ...]
    """For each image, in order, how many of `text_ids` stand before it."""


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """What the vision side made of a batch of images of one size."""

    features: Tensor
    """(images, tokens, hidden), after the projector."""
    saliency: Tensor
    """(images, tokens) float32; the tokens with the highest are retained."""


class ImagePreparer(Protocol):
    """The CPU side of a family: small, picklable, without weights."""

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB -> (3, height', width') uint8, as the checkpoint's own processor resizes it.

        Rescaling and normalising are left to the device.
        """
        ...

    def visual_tokens(self, pixels: np.ndarray) -> int:
        """How many visual tokens the encoder will make of prepared pixels.

        Raises:
            InputError: the pixels are of a size that `prepare` never returns.
        """
        ...


class Family(Protocol):
    """A loaded checkpoint of one kind of VLM."""

    name: str
    device: torch.device
    dtype: torch.dtype
    shape: DecoderShape
    preparer: ImagePreparer
    eos_token_ids: frozenset[int]
    context_tokens: int
    """Positions the decoder was made for."""
    carried_skip: SkipConfig
    """The setting that the checkpoint was fine-tuned with; `SkipConfig()` if none."""
    summary: SummaryPooling | None

    def tokenize(self, prompt: str, *, num_images: int) -> PromptTokens:
        """Put one user message through the checkpoint's chat template, images first.

        Special tokens in `prompt` are plain text: they never become an image, a role or an end.
        """
        ...

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out, spaces as the model wrote them."""
        ...

    def encode(self, pixels: Tensor) -> EncodedImages:
        """Run the vision encoder, up to the layer that is read, and the projector.

        Args:
            pixels: (images, 3, height, width) uint8 on `device`, prepared.
        """
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """(rows,) int64 -> (rows, hidden)."""
        ...

    def read(self, hidden: Tensor, positions: Tensor, *, ffn_rows: Tensor | None, attend: Attend) -> Tensor:
        """Run every decoder layer and the final norm over one packed row of tokens.

        Args:
            hidden: (rows, hidden) embeddings; sequences stand one after the other.
            positions: (rows,) int64.
            ffn_rows: (kept,) int64, the rows that run the feed-forward blocks. None: all.
            attend: the engine's attention, which knows the sequences and holds their cache.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """(rows, hidden) after the final norm -> (rows, vocab) float32."""
        ...
