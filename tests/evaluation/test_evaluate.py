"""Answers are graded, counted and compared as they were given, and the pages say so."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skipvision.cli import main
from skipvision.errors import ConfigError
from skipvision.evaluation import Item, Outcome, Trial, evaluate, exercise_items, file_items, scene_items, summarise
from skipvision.evaluation.intervals import paired_difference, wilson
from skipvision.evaluation.page import table
from skipvision.exercises import STRATA
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import picture


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return exercise_items(["counting", "text"], seeds=range(4))


@pytest.fixture(scope="module")
def outcomes(items: list[Item], tiny_model: Path) -> list[Outcome]:
    names = ("off", "off@blank", "off@nothing", "4/6:plain", "4/6:plain:keep", "off")
    trials = [Trial.parse(name, model=str(tiny_model)) for name in names]
    return evaluate(items, trials, max_tokens=5, device="cpu", dtype="float32")


def test_what_is_shown_and_skipped_is_what_the_trial_says(outcomes: list[Outcome]) -> None:
    off, blank, nothing, skipping, keeping, again = outcomes
    assert set(off.kept_tokens) == set(off.visual_tokens) == {16}
    assert set(nothing.kept_tokens) == set(nothing.visual_tokens) == {0}
    assert set(skipping.kept_tokens) == set(keeping.kept_tokens) == {10}
    assert skipping.skip.forget_skipped
    assert not keeping.skip.forget_skipped
    assert off.answers == again.answers
    assert blank.answers[:4] != off.answers[:4]
    assert all(spent == full for spent, full in off.paper_flops)
    assert all(spent < full for spent, full in (*skipping.paper_flops, *skipping.causal_flops))


def test_a_summary_says_what_was_answered(items: list[Item], outcomes: list[Outcome]) -> None:
    right = replace(outcomes[0], grades=(1.0,) * 4 + (0.5,) * 4)
    wrong = replace(outcomes[3], grades=(1.0, 0.0, 0.0, 0.0) + (0.0,) * 4, answers=right.answers[:2] + ("?",) * 6)
    first, second = summarise(items, [right, wrong])["trials"]
    assert (first["accuracy"]["counting"]["mean"], first["accuracy"]["text"]["mean"]) == (1.0, 0.5)
    assert first["accuracy"]["average"] == 0.75
    assert first["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert second["accuracy"]["all"]["mean"] == 1 / 8
    assert second["difference"]["mean"] == pytest.approx(1 / 8 - 0.75)
    assert second["same_answer"] == 2 / 8
    assert second["latency_seconds"] == outcomes[3].latency_seconds > 0
    assert second["kept_tokens"] == 10
    assert 0 < second["paper_flops_share"] < second["causal_flops_share"] < 1
    assert sum(each["items"] for each in first["by_size"]) == 8


def test_a_table_has_a_row_for_each_trial_and_no_flops_without_pictures(
    items: list[Item], outcomes: list[Outcome]
) -> None:
    rows = table(summarise(items, outcomes)).splitlines()
    assert [row.split("|")[1].strip().strip("`").rpartition("=")[2] for row in rows[2:8]] == [
        "off", "off@blank", "off@nothing", "4/6:plain", "4/6:plain:keep", "off",
    ]  # fmt: skip
    assert " 10 of 16 " in rows[5]
    assert rows[5].split("|")[-3].strip() == f"{1000 * outcomes[3].latency_seconds:.1f} ms"
    assert rows[4].split("|")[-4].strip() == "–"


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    for truth in (0.02, 0.3, 0.9):
        intervals = [wilson((rng.random(150) < truth).astype(float)) for _ in range(800)]
        assert np.mean([low <= truth <= high for low, high in intervals]) > 0.92
    assert wilson([1.0] * 20)[1] == 1.0
    assert wilson([1.0] * 20)[0] > 0.8


def test_a_difference_is_taken_item_by_item() -> None:
    rng = np.random.default_rng(2)
    hard = (rng.random(400) < 0.5).astype(float)
    better = np.where(rng.random(400) < 0.1, 1.0, hard)
    mean, low, high = paired_difference(better, hard)
    assert mean == pytest.approx(better.mean() - hard.mean())
    assert 0 < low < mean < high
    unpaired = 2 * 1.96 * np.sqrt(0.25 / 400 * 2)
    assert high - low < 0.6 * unpaired
    assert paired_difference(hard, hard) == (0.0, 0.0, 0.0)


ROWS = [
    {"image": "a.png", "question": "what is there ?", "answer": "A red Star.", "stratum": "shapes"},
    {"image": "b.png", "question": "how many ?", "answer": "two"},
]


@pytest.fixture
def labelled(tmp_path: Path) -> dict[str, Path]:
    for name in "ab":
        Image.fromarray(picture(ord(name))).save(tmp_path / f"{name}.png")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "question", "answer", "stratum"])
        writer.writeheader()
        writer.writerows(ROWS)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return {kind: tmp_path / f"rows.{kind}" for kind in ("csv", "jsonl")}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_users_own_questions_are_graded_by_match(labelled: dict[str, Path], kind: str) -> None:
    first, second = file_items(labelled[kind], match="exact")
    assert (first.stratum, second.stratum) == ("shapes", "all")
    assert np.array_equal(first.picture(), picture(ord("a")))
    assert [first.grade(said) for said in ("red star", "The red star!", "a red stars", "")] == [1, 1, 0, 0]
    loose, _ = file_items(labelled[kind], match="contains")
    assert [loose.grade(said) for said in ("I see a red star there", "a red starfish")] == [1, 0]


@pytest.mark.parametrize(
    ("row", "words"), [({"image": "a.png", "question": "?"}, "row 1 .*'answer'"), ([1], "row 1 .*'image'")]
)
def test_a_row_that_lacks_something_is_named(tmp_path: Path, row: Any, words: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(ConfigError, match=words):
        file_items(tmp_path / "rows.jsonl", match="exact")


def test_captions_of_scenes_are_graded_by_their_shapes() -> None:
    caption, question = scene_items(seeds=[3])
    assert caption.grade(caption.truth) == 1
    assert caption.grade("a red circle") == 0
    assert question.grade(question.truth) == 1


@pytest.mark.parametrize(
    ("text", "trial"),
    [
        ("off", Trial(model="m", skip="off")),
        ("runs/a=b/model=100/156:keep@blank", Trial(model="runs/a=b/model", skip="100/156:keep", shown="blank")),
        ("auto@nothing", Trial(model="m", skip="auto", shown="nothing")),
    ],
)
def test_a_trial_reads_as_it_is_written(text: str, trial: Trial) -> None:
    assert Trial.parse(text, model="m") == trial
    assert Trial.parse(trial.name, model=None) == trial


def test_the_command_writes_what_it_found(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--model", str(tiny_model), "--items", "2", "--max-tokens", "3", "--side", "64"]
    trials = ["--trial", "off", "--trial", "4/6:plain", "--output", str(tmp_path / "out"), "--json"]
    assert main([*command, *trials]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["strata"] == dict.fromkeys(STRATA, 2)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert (tmp_path / "out" / "table.md").read_text() == table(summary) + "\n"
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 16
    assert len(lines[0]["trials"]) == 2
    for name in ("accuracy-by-flops.png", "accuracy-by-size.png"):
        with Image.open(tmp_path / "out" / name) as plot:
            assert np.asarray(plot.convert("L")).std() > 5


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trial", "off@dark"], "'blank'"),
        (["--trial", "lots"], "skip must be"),
        (["--trial", "no-such-model=off"], "no-such-model"),
        (["--strata", "poetry"], "there is no stratum 'poetry'"),
        (["--match", "roughly"], "'exact' or 'contains'"),
        (["--data", "missing.csv"], "cannot be read"),
        (["--data", "x.jsonl", "--strata", "text"], "drop one of them"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--items", "1", *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_setting_that_does_not_fit_is_refused_before_anything_is_answered(
    tiny_model: Path, items: list[Item]
) -> None:
    told: list[int] = []
    trials = [Trial(model=str(tiny_model), skip=skip) for skip in ("off", "12/12:plain")]
    with pytest.raises(ConfigError, match="at most 16"):
        evaluate(items, trials, max_tokens=2, listener=lambda trial, done: told.append(done))
    assert told == []


def test_every_way_to_write_a_setting_reads_back() -> None:
    for text in ("100/156", "100/rest", "100/156:plain", "100/156:keep", "100/rest:plain:keep"):
        assert SkipConfig.parse(text).describe() == text
