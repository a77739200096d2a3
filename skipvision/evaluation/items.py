"""Labelled questions about pictures."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from skipvision.errors import ConfigError
from skipvision.exercises import STRATA, exercise, normalised
from skipvision.images import RgbPixels, read_image
from skipvision.scenes import CAPTION_PROMPTS, Scene, named_shapes, scene
from skipvision.tuning.sources import Samples

Match = Literal["exact", "contains"]
"""How an answer is held against the true one, both without case and punctuation: the same, or with it inside."""
EVERYTHING = "all"
"""The stratum of items that name none."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one picture, and how an answer to it is graded."""

    picture: Callable[[], RgbPixels]
    """Draws or reads it, when it is needed."""
    question: str
    truth: str
    grade: Callable[[str], float]
    """How right an answer is, from 0 to 1."""
    stratum: str = EVERYTHING
    share: float | None = None
    """Height of what is asked about, as a share of the picture's side; None where nobody knows."""


def exercise_items(strata: Sequence[str], *, seeds: Sequence[int], side: int = 224) -> list[Item]:
    """Exercises, drawn at `side` pixels: one for each stratum and seed.

    Raises:
        ConfigError: there is no such stratum.
    """
    unknown = [name for name in strata if name not in STRATA]
    if unknown:
        raise ConfigError(f"there is no stratum {unknown[0]!r}; there are {', '.join(STRATA)}")
    return [_of_exercise(name, seed, side) for name in strata for seed in seeds]


def scene_items(*, seeds: Sequence[int], side: int = 224) -> list[Item]:
    """Scenes, which the shipped model knows: of each a caption, graded by the shapes that it names, and a question."""
    return [item for seed in seeds for item in _of_scene(scene(seed), seed, side)]


def file_items(path: Path, *, match: Match) -> list[Item]:
    """A file with `image` (a path), `question`, `answer`, and perhaps `stratum`: CSV, JSONL, JSON or Parquet.

    Raises:
        ConfigError: the file cannot be read, or a row lacks one of them, naming the row.
    """
    return [_of_row(row, number, path, match) for number, row in enumerate(_rows(path), start=1)]


def _of_exercise(name: str, seed: int, side: int) -> Item:
    made = exercise(name, seed)
    return Item(
        picture=lambda: np.asarray(made.picture.render(side)),
        question=made.question,
        truth=made.answer,
        grade=made.grade,
        stratum=name,
        share=made.share,
    )


def _of_scene(drawn: Scene, seed: int, side: int) -> list[Item]:
    def picture() -> RgbPixels:
        return np.asarray(drawn.render(side))

    def names_all(answer: str) -> float:
        return float(named_shapes(answer) == named_shapes(drawn.caption()))

    [(question, truth)] = drawn.questions(random.Random(f"questions {seed}"), 1)
    grade = partial(_matches, truth=normalised(truth), match="exact")
    return [
        Item(picture, CAPTION_PROMPTS[0], drawn.caption(), names_all, "scene captions"),
        Item(picture, question, truth, grade, "scene questions"),
    ]


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix.lower() != ".csv":
        samples = Samples([path])
        yield from (samples[at] for at in range(len(samples)))
        return
    try:
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _of_row(row: Any, number: int, path: Path, match: Match) -> Item:
    values = row if isinstance(row, dict) else {}
    image, question, truth = (_text(values, name, number, path) for name in ("image", "question", "answer"))
    return Item(
        picture=partial(read_image, path.parent / image),
        question=question,
        truth=truth,
        grade=partial(_matches, truth=normalised(truth), match=match),
        stratum=values.get("stratum") or EVERYTHING,
    )


def _text(values: dict[str, Any], name: str, number: int, path: Path) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"row {number} of {path} needs a text under {name!r}; got {value!r:.60}")
    return value


def _matches(answer: str, *, truth: str, match: Match) -> float:
    said = normalised(answer)
    return float(said == truth if match == "exact" else f" {truth} " in f" {said} ")
