"""The wish (`SkipConfig`) and what follows from it for one prompt (`SkipPlan`).

Everything that counts tokens reads the plan: the patched model, the engine's cache, FLOPs, metrics, reports.
Inside one image the decoder reads

    [retained] [summary of the retained] [skipped] [summary of the skipped]

with plain causal attention, positions counted over that order. Retained and summary tokens run every block in
full. Skipped tokens attend in every layer and never enter the FFN; with `forget_skipped` their keys and values are
gone once the prompt has been read.

With a `reducer` an image is only its retained tokens; the others are dropped before the decoder. That needs no
training and is no part of Skip-Vision: it is what Skip-Vision is compared with (docs/decisions/0013).

Source: Skip-Vision (arXiv:2503.21817), sections 3.1 to 3.3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from skipvision.errors import ConfigError

Reducer = Literal["uniform", "random", "saliency", "resize"]
"""Which tokens stay when the others are dropped: `uniform`, evenly spread over the grid; `random`, drawn by the image's
content; `saliency`, those that would be retained; `resize`, all of a smaller picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipConfig:
    """How much visual work to leave out. The default leaves nothing out: no layer is patched at all."""

    retain: int | None = None
    """Visual tokens per image that run every block in full; the others are skipped, or dropped. None: all."""

    merge_skipped_to: int | None = None
    """Tokens per image that the skipped ones are merged into beforehand. None: do not merge."""

    summarise: bool = False
    """Put a learned summary token after the retained and after the skipped tokens of each image."""

    forget_skipped: bool = False
    """Drop the keys and values of skipped tokens once the prompt has been read."""

    reducer: Reducer | None = None
    """How the retained tokens are chosen where the others are dropped before the language model. None: none are
    dropped."""

    def __post_init__(self) -> None:
        if self.retain is not None and self.retain < 1:
            raise ConfigError(f"retain must be at least 1, or None to skip nothing; got {self.retain}")
        if self.merge_skipped_to is not None and self.merge_skipped_to < 1:
            raise ConfigError(f"merge_skipped_to must be at least 1, or None not to merge; got {self.merge_skipped_to}")
        if self.retain is None and (self.merge_skipped_to is not None or self.summarise or self.forget_skipped):
            raise ConfigError("nothing is skipped unless retain is set: set it, or leave the other settings off")
        if self.reducer is not None:
            self._check_reducer(self.reducer, self.retain)

    @classmethod
    def parse(cls, text: str) -> SkipConfig:
        """Read a setting as people write it.

        `off` skips nothing. `100/156` is the paper's method: 100 retained, the others merged to 156, with summary
        tokens, skipped keys and values forgotten. `100/156:plain` is the same without summary tokens, for
        checkpoints that were not trained with them; `100/156:keep` keeps the skipped keys and values, and
        `100/156:plain:keep` is both. `100/rest` leaves the skipped tokens unmerged. `uniform:64`, `random:64`,
        `saliency:64` and `resize:64` let 64 tokens of each image into the language model and drop the others.

        Raises:
            ConfigError: the text is none of these.
        """
        if text.strip() == "off":
            return cls()
        if reduction := re.fullmatch(r"([a-z]+):(\d+)", text.strip()):
            return cls(reducer=_reducer(reduction[1]), retain=int(reduction[2]))
        match = re.fullmatch(r"(\d+)/(\d+|rest)(:plain)?(:keep)?", text.strip())
        if match is None:
            raise ConfigError(
                "skip must be 'off', 'auto', 'R/S' such as 100/156 or 100/rest, perhaps with ':plain' or ':keep' after "
                f"it, or a reduction such as uniform:64; got {text!r}"
            )
        return cls(
            retain=int(match[1]),
            merge_skipped_to=None if match[2] == "rest" else int(match[2]),
            summarise=match[3] is None,
            forget_skipped=match[4] is None,
        )

    @property
    def is_off(self) -> bool:
        """Whether nothing is skipped or dropped."""
        return self.retain is None

    def describe(self) -> str:
        """Say the setting in the words of `parse`."""
        if self.is_off:
            return "off"
        if self.reducer is not None:
            return f"{self.reducer}:{self.retain}"
        skipped = "rest" if self.merge_skipped_to is None else str(self.merge_skipped_to)
        plain = "" if self.summarise else ":plain"
        kept = "" if self.forget_skipped else ":keep"
        return f"{self.retain}/{skipped}{plain}{kept}"

    @property
    def resized_side(self) -> int | None:
        """Tokens along each side of the image that the tower is to see. None: as many as it makes by itself."""
        return math.isqrt(self.retain) if self.reducer == "resize" and self.retain is not None else None

    def _check_reducer(self, reducer: Reducer, kept: int | None) -> None:
        if reducer not in get_args(Reducer):
            raise ConfigError(f"reducer must be one of {', '.join(get_args(Reducer))}, or None; got {reducer!r}")
        if kept is None:
            raise ConfigError(f"the reducer {reducer} needs retain, the tokens that stay; set it")
        if self.merge_skipped_to is not None or self.summarise or self.forget_skipped:
            raise ConfigError(
                f"with the reducer {reducer} no token is skipped, so nothing can be merged, summarised or forgotten; "
                "leave those settings off"
            )
        side = math.isqrt(kept)
        if reducer == "resize" and side * side != kept:
            nearest = min(side * side, (side + 1) ** 2, key=lambda square: abs(square - kept))
            raise ConfigError(
                f"resize makes a square grid of tokens and {kept} is no square number; use resize:{nearest}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePlan:
    """Token counts of one image under one `SkipConfig`."""

    visual_tokens: int
    """Tokens that the vision encoder and the projector make of the image at its full size."""
    retained: int
    skipped: int
    """Skipped tokens that enter the language model, after merging."""
    summaries: int
    """0 or 2."""
    dropped: int = 0
    """Visual tokens that never enter the language model, nor any other token; under `resize`, that are never made."""

    @property
    def merged(self) -> int:
        """Visual tokens that were joined into a skipped one and have no place of their own."""
        return self.visual_tokens - self.retained - self.skipped - self.dropped

    @property
    def lm_tokens(self) -> int:
        """Positions the image takes in the sequence that the decoder reads."""
        return self.retained + self.skipped + self.summaries

    @property
    def skipped_start(self) -> int:
        """Where the skipped tokens begin inside the image."""
        return self.retained + self.summaries // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipPlan:
    """Token counts of one prompt under one `SkipConfig`, the same in every layer."""

    text_tokens: int
    images: tuple[ImagePlan, ...]
    forget_skipped: bool

    @property
    def visual_tokens(self) -> int:
        """Tokens that the encoder makes of the images at full size: retained, skipped, merged and dropped ones."""
        return sum(image.visual_tokens for image in self.images)

    @property
    def retained_tokens(self) -> int:
        return sum(image.retained for image in self.images)

    @property
    def skipped_tokens(self) -> int:
        return sum(image.skipped for image in self.images)

    @property
    def merged_tokens(self) -> int:
        return sum(image.merged for image in self.images)

    @property
    def dropped_tokens(self) -> int:
        return sum(image.dropped for image in self.images)

    @property
    def summary_tokens(self) -> int:
        return sum(image.summaries for image in self.images)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that enter the language model and take part in attention."""
        return self.text_tokens + sum(image.lm_tokens for image in self.images)

    @property
    def ffn_tokens(self) -> int:
        """Tokens that also pass through the feed-forward blocks."""
        return self.prompt_tokens - self.skipped_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are still held when decoding starts."""
        return self.prompt_tokens - (self.skipped_tokens if self.forget_skipped else 0)

    def with_all_tokens(self) -> SkipPlan:
        """The plan of the same prompt with nothing skipped."""
        whole = [image.visual_tokens for image in self.images]
        return plan_prompt(SkipConfig(), text_tokens=self.text_tokens, visual_tokens=whole)

    def skipped_spans(self, image_offsets: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Find the skipped tokens in the sequence that the decoder reads.

        Args:
            image_offsets: for each image, in order, how many text tokens stand before it.

        Returns:
            [start, stop) for each image that skips any; ascending.
        """
        spans = []
        for start, image in zip(self.image_starts(image_offsets), self.images, strict=True):
            if image.skipped:
                first = start + image.skipped_start
                spans.append((first, first + image.skipped))
        return tuple(spans)

    def image_starts(self, image_offsets: Sequence[int]) -> tuple[int, ...]:
        """First position of each image in the sequence that the decoder reads; `image_offsets` as above."""
        starts, before = [], 0
        for offset, image in zip(image_offsets, self.images, strict=True):
            starts.append(offset + before)
            before += image.lm_tokens
        return tuple(starts)


def plan_image(config: SkipConfig, visual_tokens: int) -> ImagePlan:
    """Split one image's tokens as `config` wishes.

    Raises:
        ConfigError: the image has fewer tokens than are to be retained and skipped; nothing is ever clamped.
    """
    if config.retain is None:
        return ImagePlan(visual_tokens=visual_tokens, retained=visual_tokens, skipped=0, summaries=0)
    others = visual_tokens - config.retain
    if config.reducer is not None:
        if others < 0:
            raise ConfigError(
                f"{config.describe()} keeps more than the {visual_tokens} visual tokens of the image; choose at most "
                f"{visual_tokens}"
            )
        return ImagePlan(visual_tokens=visual_tokens, retained=config.retain, skipped=0, summaries=0, dropped=others)
    skipped = others if config.merge_skipped_to is None else config.merge_skipped_to
    if others < 0 or skipped > others:
        raise ConfigError(
            f"{config.retain} retained and {max(skipped, 0)} skipped tokens are more than the "
            f"{visual_tokens} visual tokens of the image; choose numbers that add up to at most {visual_tokens}"
        )
    summaries = 2 if config.summarise and skipped else 0
    return ImagePlan(visual_tokens=visual_tokens, retained=config.retain, skipped=skipped, summaries=summaries)


def _reducer(name: str) -> Reducer:
    for known in get_args(Reducer):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"a reduction must be one of {', '.join(get_args(Reducer))}, as in 'uniform:64'; got {name!r}")


def plan_prompt(config: SkipConfig, *, text_tokens: int, visual_tokens: Sequence[int]) -> SkipPlan:
    """Count the tokens of a prompt by fate.

    Args:
        config: the wish.
        text_tokens: tokens of the prompt that are not visual ones.
        visual_tokens: for each image, the tokens the encoder makes of it.

    Raises:
        ConfigError: an image is too small for the wish.
    """
    images = tuple(plan_image(config, tokens) for tokens in visual_tokens)
    return SkipPlan(text_tokens=text_tokens, images=images, forget_skipped=config.forget_skipped)
