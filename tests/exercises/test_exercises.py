"""Exercises: pictures whose answers are checked again here, from the picture's facts, by other means."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from skipvision.exercises import HELD_OUT_SEEDS, STRATA, TRAINING_SEEDS, Exercise, exercise, exercises, mixed
from skipvision.exercises.drawing import Sheet, Thing
from skipvision.exercises.exercise import named_objects
from skipvision.exercises.words import BACKGROUNDS, CELLS, COLOURS, NUMBERS, SHAPES, SIZES

SEEDS = range(400)


def sheet_of(asked: Exercise) -> Sheet:
    assert isinstance(asked.picture, Sheet)
    return asked.picture


def named(sheet: Sheet, name: str) -> Thing:
    [found] = [thing for thing in sheet.things if f"{thing.colour} {thing.shape}" == name]
    return found


def cell(thing: Thing) -> tuple[int, int]:
    return math.floor(thing.y * 3), math.floor(thing.x * 3)


@pytest.mark.parametrize("stratum", STRATA)
def test_stratum_and_seed_name_one_exercise(stratum: str) -> None:
    one, again, other = exercise(stratum, 5), exercise(stratum, 5), exercise(stratum, 6)
    assert (one.question, one.answer, one.picture) == (again.question, again.answer, again.picture)
    assert one.picture != other.picture
    assert np.array_equal(one.picture.render(64), again.picture.render(64))
    assert one.picture.render(224).size == (224, 224)


@pytest.mark.parametrize("stratum", STRATA)
def test_questions_about_one_picture_differ_and_begin_with_the_exercise(stratum: str) -> None:
    for seed in range(50):
        several = exercises(stratum, seed, questions=3)
        assert several[0] == exercise(stratum, seed)
        assert len({each.question for each in several}) == len(several)
        assert len({id(each.picture) for each in several}) == 1


@pytest.mark.parametrize("stratum", STRATA)
def test_nearly_every_picture_has_three_questions(stratum: str) -> None:
    asked = [len(exercises(stratum, seed, questions=3)) for seed in SEEDS]
    assert max(asked) == 3
    assert asked.count(3) >= 0.98 * len(asked)


@pytest.mark.parametrize("stratum", STRATA)
def test_the_true_answer_is_graded_as_right_and_another_as_wrong(stratum: str) -> None:
    for seed in range(50):
        asked = exercise(stratum, seed)
        assert asked.grade(asked.answer) == 1.0
        assert asked.grade(f" {asked.answer.upper()}. ") == 1.0
        assert asked.grade("nothing of the kind") == 0.0
        assert 0 < asked.share <= 1


def test_lists_are_graded_by_what_they_name_and_what_they_leave_out() -> None:
    asked = exercise("list", 0)
    first, *others = asked.answer.split(", ")
    count = len(others) + 1
    assert asked.grade(", ".join(others)) == pytest.approx(2 * (count - 1) / (2 * count - 1))
    assert asked.grade(", ".join([first] * count)) == pytest.approx(1 / count)
    assert asked.grade(", ".join(reversed([first, *others]))) == 1.0


def check_global(asked: Exercise, sheet: Sheet) -> None:
    shapes, colours = (Counter(getattr(thing, part) for thing in sheet.things) for part in ("shape", "colour"))
    if "background plain" in asked.question:
        assert asked.answer == sheet.texture
    elif "background" in asked.question:
        assert BACKGROUNDS[asked.answer] == sheet.background
    elif "any" in asked.question:
        found = [t.half_width for t in sheet.things if asked.question.endswith(f" {t.shape}?")]
        assert asked.answer == ("yes" if found else "no")
        assert asked.share == 2 * (max(found) if found else min(t.half_width for t in sheet.things))
    else:
        (most, count), *rest = (shapes if "shape" in asked.question else colours).most_common()
        assert asked.answer == most
        assert all(count > other for _, other in rest)


def check_counting(asked: Exercise, sheet: Sheet) -> None:
    [what] = re.findall(r"How many (\w+)", asked.question)
    hits = [t for t in sheet.things if what in ("shapes", t.colour, f"{t.shape}s", f"{t.shape}es")]
    assert asked.answer == NUMBERS[len(hits)]
    assert asked.share == 2 * min(t.half_width for t in hits or sheet.things)


def check_spatial(asked: Exercise, sheet: Sheet) -> None:
    names = re.findall(r"the (\w+ \w+)", asked.question.replace("the picture", ""))
    one, *others = (named(sheet, name) for name in names)
    if others:
        dx, dy = one.x - others[0].x, one.y - others[0].y
        angle = math.degrees(math.atan2(-dy, dx))  # counter-clockwise from the right
        sides = {"right": 0, "above": 90, "left": 180, "below": -90}
        away = {side: abs((angle - middle + 180) % 360 - 180) for side, middle in sides.items()}
        assert asked.answer == min(away, key=away.__getitem__)
        assert away[asked.answer] < 30
    elif "nearest" in asked.question:
        away = {f"{t.colour} {t.shape}": math.dist((t.x, t.y), (one.x, one.y)) for t in sheet.things if t != one}
        assert asked.answer == min(away, key=away.__getitem__)
    else:
        row, column = cell(one)
        assert asked.answer == CELLS[row][column]


def check_list(asked: Exercise, sheet: Sheet) -> None:
    [what] = re.findall(r"List all (\w+)", asked.question)
    everything = [
        ("small" if t.half_width < sum(SIZES.values()) / 2 else "large", t.colour, t.shape) for t in sheet.things
    ]
    true = [each for each in everything if what in ("objects", *each, f"{each[2]}s", f"{each[2]}es")]
    assert named_objects(asked.answer) == true
    assert [cell(thing) for thing in sheet.things] == sorted(map(cell, sheet.things))


def check_composition(asked: Exercise, sheet: Sheet) -> None:
    if "larger" in asked.question:
        one, other = (named(sheet, name) for name in re.findall(r"the (\w+ \w+)", asked.question))
        assert asked.answer == max(one, other, key=lambda thing: thing.half_width).name
        assert one.half_width != other.half_width
    elif "same colour" in asked.question:
        colours = []
        for shape in re.findall(r"the (\w+) (?:and|have)", asked.question):
            [thing] = [thing for thing in sheet.things if thing.shape == shape]
            colours.append(thing.colour)
        assert (asked.answer == "yes") == (len(set(colours)) == 1)
    else:
        [(where, name)] = re.findall(r"just (left|right|above|below)(?: of)? the (\w+ \w+)", asked.question)
        row, column = cell(named(sheet, name))
        down, right = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}[where]
        [beside] = [thing for thing in sheet.things if cell(thing) == (row + down, column + right)]
        assert asked.answer == (beside.colour if "colour" in asked.question else beside.shape)


def check_text(asked: Exercise, sheet: Sheet) -> None:
    [label] = [label for label in sheet.labels if label.text == asked.answer]
    if "at the" in asked.question:
        place = asked.question.removeprefix("What is written at the ").removesuffix("?")
        assert place == CELLS[math.floor(label.y * 3)][2 * math.floor(label.x * 2)]


def check_needle(asked: Exercise, sheet: Sheet) -> None:
    tops, lefts = (sorted({round(getattr(label, at), 6) for label in sheet.labels}) for at in ("y", "x"))
    where, what = (asked.answer, asked.question) if "Where" in asked.question else (asked.question, asked.answer)
    row, column = (int(number) - 1 for number in re.findall(r"(?:row|column) (\d)", where))
    there = [
        label.text for label in sheet.labels if (round(label.y, 6), round(label.x, 6)) == (tops[row], lefts[column])
    ]
    if where is asked.answer:
        what = re.findall(r"the (\w)\?", what)[0]
        assert [label.text for label in sheet.labels].count(what) == 1
    assert there == [what]


def check_duplicates(asked: Exercise, sheet: Sheet) -> None:
    field = asked.question.removeprefix("What number stands beside ").removesuffix("?").upper()
    [name] = [label for label in sheet.labels if label.text == field]
    [number] = [label for label in sheet.labels if label.y == name.y and label is not name]
    assert number.text == asked.answer


CHECKS = {
    "global": check_global, "counting": check_counting, "spatial": check_spatial, "list": check_list,
    "composition": check_composition, "text": check_text, "needle": check_needle, "duplicates": check_duplicates,
}  # fmt: skip


@pytest.mark.parametrize("stratum", STRATA)
def test_every_answer_follows_from_the_picture(stratum: str) -> None:
    for seed in SEEDS:
        for asked in exercises(stratum, seed, questions=3):
            CHECKS[stratum](asked, sheet_of(asked))


@pytest.mark.parametrize("stratum", STRATA)
def test_nothing_touches_the_border_or_anything_else(stratum: str) -> None:
    for seed in SEEDS:
        sheet = sheet_of(exercise(stratum, seed))
        for thing in sheet.things:
            assert thing.half_width <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y)
        for at, thing in enumerate(sheet.things):
            for other in sheet.things[at + 1 :]:
                apart = max(abs(thing.x - other.x), abs(thing.y - other.y))
                assert apart > 0.9 * max(thing.half_width, other.half_width)
        if sheet.labels:
            ink = np.asarray(Sheet((255, 255, 255), labels=sheet.labels).render(224)) < 128
            assert not ink[0].any()
            assert not ink[-1].any()
            assert not ink[:, 0].any()
            assert not ink[:, -1].any()


@pytest.mark.parametrize("stratum", STRATA)
def test_who_does_not_look_answers_badly(stratum: str) -> None:
    """The best constant answer, and the best answer to each question's wording, learnt from others of its kind."""
    asked = [exercise(stratum, seed) for seed in range(1500)]
    learnt, held_out = asked[:1000], asked[1000:]
    most = Counter(each.answer for each in learnt).most_common(1)[0][0]
    assert np.mean([each.grade(most) for each in held_out]) < 0.4
    by_words: dict[str, Counter[str]] = {}
    for each in learnt:
        by_words.setdefault(each.question, Counter())[each.answer] += 1
    guesses = [by_words[each.question].most_common(1)[0][0] if each.question in by_words else most for each in held_out]
    right = np.mean([each.grade(guess) for each, guess in zip(held_out, guesses, strict=True)])
    assert right < 0.45


def kind_of(question: str) -> str:
    """A question without the names in it."""
    names = "|".join([*COLOURS, *(f"{shape}(?:e?s)?" for shape in SHAPES)])
    return re.sub(rf"\b(?:{names})\b|\d|\b[A-Z]\?", "_", question)


@pytest.mark.parametrize("stratum", STRATA)
def test_no_kind_of_question_has_a_habitual_answer(stratum: str) -> None:
    by_kind: dict[str, Counter[str]] = {}
    for seed in range(1000):
        asked = exercise(stratum, seed)
        by_kind.setdefault(kind_of(asked.question), Counter())[asked.answer] += 1
    for kind, answers in by_kind.items():
        asked_about, chance = answers.total(), max(1 / len(answers), 0.15)  # sums are not even
        if asked_about >= 50:
            slack = 3.5 * math.sqrt(chance * (1 - chance) / asked_about)  # of a sample
            assert answers.most_common(1)[0][1] / asked_about <= chance + slack, (kind, answers)


def test_the_number_of_things_asked_beside_an_exercise_is_no_habit_either() -> None:
    answers = Counter(asked.answer for seed in range(1000) for asked in exercises("counting", seed, questions=3))
    assert answers.most_common(1)[0][1] < 0.3 * answers.total()


def test_held_out_and_training_seeds_never_meet() -> None:
    assert not any(seed in TRAINING_SEEDS for seed in (HELD_OUT_SEEDS[0], HELD_OUT_SEEDS[-1]))
    assert HELD_OUT_SEEDS.stop == TRAINING_SEEDS.start


def test_no_picture_comes_twice() -> None:
    seeds = chain(range(500), range(TRAINING_SEEDS.start, TRAINING_SEEDS.start + 2000))
    pictures = [each.picture.render(48).tobytes() for each in mixed(seeds)]
    assert len(set(pictures)) == len(pictures)


def test_questions_and_answers_keep_to_few_words() -> None:
    words: set[str] = set()
    for stratum in STRATA:
        for seed in SEEDS:
            asked = exercise(stratum, seed)
            spelt = stratum in ("text", "needle", "duplicates")
            words |= set(re.findall(r"[a-z]+", asked.question.lower() + ("" if spelt else f" {asked.answer}")))
    assert len(words) < 130


def test_a_question_never_hangs_on_what_is_asked_next_to_it() -> None:
    rng_state = random.getstate()
    exercise("spatial", 1)
    assert random.getstate() == rng_state, "the module's own generator is left alone"
