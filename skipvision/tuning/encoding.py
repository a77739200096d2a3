"""Samples -> what the model reads: token ids, which of them are answers, prepared pixels. Without any weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from skipvision.conversation import ImagePart, as_templates_read, images_of
from skipvision.errors import ImageError, InputError, SampleError
from skipvision.families import ImagePreparer, PromptTokenizer, load_preparer, load_prompts
from skipvision.fetch import Fetcher, FetchPolicy, is_address
from skipvision.images import RgbPixels, decode_image, read_image
from skipvision.method.plan import SkipConfig, SkipPlan, plan_prompt
from skipvision.tuning.conversation import read_conversation
from skipvision.tuning.sources import Samples


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One conversation as the decoder will read it."""

    text_ids: np.ndarray
    """(text tokens,) int64"""
    is_answer: np.ndarray
    """(text tokens,) bool: the tokens that the model has to say."""
    image_offsets: tuple[int, ...]
    """For each image, how many text tokens stand before it."""
    pixels: tuple[np.ndarray, ...]
    """Of each image (3, height, width) uint8, prepared."""
    plan: SkipPlan


@dataclass(frozen=True, slots=True)
class SetAside:
    """A sample that cannot be learnt from, and why."""

    sample: int
    code: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleEncoder:
    """Reads and encodes samples by their number. It travels to processes that read ahead; each loads what it needs."""

    samples: Samples
    model: str
    skip: SkipConfig
    max_tokens: int
    images: Path | None
    """Folder that relative image paths start from. None: the folder of the data file."""
    allow_networks: tuple[str, ...] = ()

    def __call__(self, sample: int) -> EncodedSample | SetAside:
        """One sample, or why it is set aside; no sample ends a run."""
        try:
            return self._encode(sample)
        except InputError as error:
            return SetAside(sample, error.code, str(error))

    def _encode(self, sample: int) -> EncodedSample:
        prompts, preparer = _loaded(self.model)
        conversation = read_conversation(self.samples[sample])
        tokens = prompts.tokenize_conversation([*map(as_templates_read, conversation)])
        images = images_of(conversation)
        if len(tokens.image_offsets) != len(images):
            raise SampleError("the chat template leaves out images of this conversation", code="sample_images")
        pixels = tuple(map(preparer.prepare, self._pictures(images, self.images or self.samples.folder(sample))))
        visual_tokens = [preparer.visual_tokens(each) for each in pixels]
        plan = plan_prompt(self.skip, text_tokens=len(tokens.text_ids), visual_tokens=visual_tokens)
        if plan.prompt_tokens > self.max_tokens:
            raise SampleError(
                f"the conversation takes {plan.prompt_tokens} tokens and max_tokens is {self.max_tokens}; shorten it",
                code="sample_too_long",
            )
        is_answer = np.zeros(len(tokens.text_ids), dtype=bool)
        for start, stop in tokens.answers:
            is_answer[start:stop] = True
        return EncodedSample(np.array(tokens.text_ids), is_answer, tokens.image_offsets, pixels, plan)

    def _pictures(self, images: Sequence[ImagePart], folder: Path) -> Iterator[RgbPixels]:
        """The images, decoded; addresses are fetched together."""
        addresses = [image.source for image in images if isinstance(image.source, str) and is_address(image.source)]
        fetched = iter(_fetcher(self.allow_networks).fetch_many(addresses) if addresses else ())
        for image in images:
            assert image.source is not None, "a sample's images are placed when it is read"
            if isinstance(image.source, bytes):
                yield decode_image(image.source)
            elif is_address(image.source):
                answer = next(fetched)
                if isinstance(answer, InputError):
                    raise answer
                yield decode_image(answer)
            else:
                yield _read(folder / image.source)


@cache
def _loaded(model: str) -> tuple[PromptTokenizer, ImagePreparer]:
    """Once in each process; it takes seconds."""
    return load_prompts(model), load_preparer(model)


@cache
def _fetcher(allow_networks: tuple[str, ...]) -> Fetcher:
    return Fetcher(FetchPolicy(allow_networks=allow_networks))


def _read(path: Path) -> RgbPixels:
    """An image file; the message names it, since it is the user's own."""
    try:
        return read_image(path)
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}", code=error.code) from error
