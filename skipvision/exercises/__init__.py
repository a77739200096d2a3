"""Rendered pictures with questions whose answers are known exactly, in strata that skipping may treat differently.

An exercise is a pure function of its stratum and its seed, so that training and held-out sets are named by numbers.
Nothing here knows a model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from skipvision.exercises.exercise import Drawn, Exercise, Picture, Question, Stratum, normalised
from skipvision.exercises.objects import composition, counting, global_, listing, spatial
from skipvision.exercises.writing import duplicates, needle, text

__all__ = ["HELD_OUT_SEEDS", "STRATA", "TRAINING_SEEDS", "Exercise", "Picture", "exercise", "exercises", "normalised"]

HELD_OUT_SEEDS = range(10_000_000)
"""Nothing that is trained on comes from these."""
TRAINING_SEEDS = range(10_000_000, 1_000_000_000)

STRATA: Mapping[str, Stratum] = {
    stratum.name: stratum
    for stratum in (
        Stratum("global", "the picture as a whole: background, majorities, what there is any of", global_),
        Stratum("counting", "how many there are of one kind", counting),
        Stratum("spatial", "where things are, to each other and in the picture", spatial),
        Stratum("text", "strings one to two patches high", text),
        Stratum("needle", "one cell of a grid of characters", needle),
        Stratum("list", "all objects by size and colour", listing),
        Stratum("composition", "what follows from two things, or from one by way of another", composition),
        Stratum("duplicates", "fields of pages that are nearly the same", duplicates),
    )
}
"""By name; what each of them is there to tell apart stands in `about`."""


def exercise(stratum: str, seed: int) -> Exercise:
    """The exercise that stratum and seed name."""
    return exercises(stratum, seed, questions=1)[0]


def exercises(stratum: str, seed: int, *, questions: int) -> tuple[Exercise, ...]:
    """Several questions about the picture that stratum and seed name, as many as differ; the first is `exercise`'s."""
    rng = random.Random(f"{stratum} {seed}")
    drawn = STRATA[stratum].draw(rng)
    asked: dict[str, Question] = {}
    for question in _candidates(drawn, rng, tries=4 * questions):
        asked.setdefault(question.text, question)
        if len(asked) == questions:
            break
    return tuple(
        Exercise(stratum, seed, drawn.picture, question.text, question.answer, question.share, question.grading,
                 question.looks)
        for question in asked.values()
    )  # fmt: skip


def _candidates(drawn: Drawn, rng: random.Random, *, tries: int) -> Iterator[Question]:
    for _ in range(tries):
        yield drawn.ask(rng)
    shuffled = rng.sample(drawn.also, len(drawn.also))
    yield from {question.answer: question for question in shuffled}.values()  # else most of them count up to one


def mixed(seeds: Iterator[int] | range) -> Iterator[Exercise]:
    """One exercise for each seed, the strata in turn."""
    names = [*STRATA]
    for at, seed in enumerate(seeds):
        yield exercise(names[at % len(names)], seed)
