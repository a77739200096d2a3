"""The page of a comparison: images side by side with both answers, the tokens drawn over them, and the bill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.comparison import Comparison, Pair
from pipelines.pages import picture_uri, render, write_whole
from pipelines.plots import Part, part_bar
from skipvision.engine.token_map import TokenMap

SHOWN = 6


@dataclass(frozen=True, slots=True)
class Word:
    """A word of an answer, and whether the other answer lacks it there."""

    text: str
    differs: bool


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One image as the page shows it."""

    name: str
    width: int
    height: int
    truth: str | None
    picture: str
    """`data:` URI of the file's picture."""
    seen: str
    """`data:` URI of what the model sees."""
    tokens: TokenMap
    same: bool
    all_tokens: tuple[Word, ...]
    skipping: tuple[Word, ...]


def write_comparison(
    path: Path, comparison: Comparison, *, model: str, links: Mapping[str, str], note: str = ""
) -> None:
    """Write the page, with at most `SHOWN` of the images.

    Args:
        note: what else is known of the answers; stands under the bill.
        links: what it says -> relative address of another page.
    """
    bill = comparison.bill
    slowest = max(bill.all_tokens_seconds, bill.skipping_seconds)
    plan = comparison.pairs[0].skipping.plan
    page = render(
        "comparison.html.j2",
        bill=bill,
        prompt=comparison.prompt,
        setting=comparison.skip.describe(),
        model=model,
        plan=plan,
        links=links,
        note=note,
        all_bar=part_bar([Part("all", bill.all_tokens_seconds)], label="seconds, all tokens", most=slowest),
        skip_bar=part_bar([Part("job", bill.skipping_seconds)], label="seconds, skipping", most=slowest),
        exhibits=[_exhibit(pair) for pair in comparison.pairs[:SHOWN]],
    )
    write_whole(path, page)


def differing_words(one: str, other: str) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """Split two answers into words and mark those that the other has not in that place."""
    left, right = one.split(), other.split()
    kept_left, kept_right = set[int](), set[int]()
    for block in SequenceMatcher(a=left, b=right, autojunk=False).get_matching_blocks():
        kept_left |= set(range(block.a, block.a + block.size))
        kept_right |= set(range(block.b, block.b + block.size))
    return (
        tuple(Word(text, place not in kept_left) for place, text in enumerate(left)),
        tuple(Word(text, place not in kept_right) for place, text in enumerate(right)),
    )


def _exhibit(pair: Pair) -> Exhibit:
    all_tokens, skipping = differing_words(pair.all_tokens.text, pair.skipping.text)
    seen = Image.fromarray(np.ascontiguousarray(pair.pixels.transpose(1, 2, 0)))
    return Exhibit(
        name=pair.name,
        width=pair.rgb.shape[1],
        height=pair.rgb.shape[0],
        truth=pair.truth,
        picture=picture_uri(Image.fromarray(pair.rgb), side=480),
        seen=picture_uri(seen.resize((seen.width * 3, seen.height * 3), Image.Resampling.LANCZOS), side=480),
        tokens=pair.tokens,
        same=pair.same,
        all_tokens=all_tokens,
        skipping=skipping,
    )
