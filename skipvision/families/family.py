"""What the engine asks of a kind of VLM, and nothing else: the `Family` protocol and the values it speaks in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from skipvision.conversation import Conversation
from skipvision.method.flops import DecoderShape
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling


class Attend(Protocol):
    """The engine's attention over the packed tokens of one step; rotary embedding is already applied."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, *, only_wanted: bool) -> Tensor:
        """(q rows, heads, head_dim) of attention, for `k` and `v` of (rows, kv_heads, head_dim).

        Args:
            q: (rows, heads, head_dim); or (wanted, heads, head_dim), the wanted rows alone, where `only_wanted`.
        """
        ...


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as token ids, its images left out."""

    text_ids: tuple[int, ...]
    image_offsets: tuple[int, ...]
    """For each image, in order, how many of `text_ids` stand before it."""


@dataclass(frozen=True, slots=True)
class ConversationTokens(PromptTokens):
    """Questions with their answers as token ids."""

    answers: tuple[tuple[int, int], ...]
    """[start, stop) of `text_ids` for each answer, with the token that ends it."""


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """What the vision side made of a batch of images; they may differ in their number of tokens."""

    features: Sequence[Tensor]
    """Of each image (tokens, hidden), after the projector, in the order in which the decoder was taught to read."""
    saliency: Sequence[Tensor]
    """Of each image (tokens,) float32; the tokens with the highest are retained."""


class ImagePreparer(Protocol):
    """The CPU side of a family: small, picklable, without weights."""

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB -> (3, height', width') uint8, as the checkpoint's own processor resizes it.

        Rescaling and normalising are left to the device.
        """
        ...

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """The largest (height, width) that `prepare` resizes a picture of that size to, on the way to its pixels."""
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
    pooled_from: int
    """Of an image's tokens, how many of the first no summary is pooled over."""
    can_resize: bool
    """Whether `encode` takes `side_tokens`."""
    layers: Sequence[nn.Module]
    """The decoder's, in order: stock modules with `self_attn` and `mlp`, whose linear layers `read` calls by name."""

    def tokenize(self, prompt: str | Conversation, *, num_images: int) -> PromptTokens:
        """Put one user message through the checkpoint's chat template, images first; or a conversation as it stands.

        Special tokens in `prompt` are plain text: they never become an image, a role or an end.

        Raises:
            PromptError: `prompt_has_image_token`; `messages_invalid`, where the chat template does not take the
                conversation.
        """
        ...

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out, spaces as the model wrote them."""
        ...

    def encode(self, pixels: Tensor, *, side_tokens: int | None = None) -> EncodedImages:
        """Run the vision encoder, up to the layer that is read, and the projector.

        Args:
            pixels: (images, 3, height, width) uint8 on `device`, prepared; images of one shape.
            side_tokens: make the images smaller first, so that they have as many tokens along each side. None: leave
                them as they are.
        """
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """(rows,) int64 -> (rows, hidden)."""
        ...

    def read(
        self, hidden: Tensor, positions: Tensor, *, ffn_rows: Tensor | None, wanted_rows: Tensor, attend: Attend
    ) -> Tensor:
        """Run every decoder layer and the final norm over one packed row of tokens: (wanted, hidden).

        Of the last layer, rows that are not wanted get their keys and values only.

        Args:
            hidden: (rows, hidden) embeddings; sequences stand one after the other.
            positions: (rows,) int64.
            ffn_rows: (kept,) int64, the rows that run the feed-forward blocks. None: all.
            wanted_rows: (wanted,) int64, the rows that something is chosen from; all of them run the feed-forward
                blocks.
            attend: the engine's attention, which knows the sequences and holds their cache.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """(rows, hidden) after the final norm -> (rows, vocab) float32."""
        ...


class TrainableFamily(Family, Protocol):
    """A family as fine-tuning asks for it."""

    model: Any
    """The transformers model, whose decoder takes `attend` and `skip_ffn_rows` beside its own arguments."""
    resampler: nn.Module | None
    """The projector, where it is not the transformers model's own."""

    def look(self, pixels: Tensor) -> EncodedImages:
        """What `encode` gives, with the gradients of whatever is being trained."""
        ...

    def save_extra(self, folder: Path) -> None:
        """Write what a checkpoint of this family has beside transformers' files and the summary module."""
        ...
