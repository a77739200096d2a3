"""The examples and the demo: real files whose truth is known, and a page that shows what the engine did."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from examples import demo, make_images
from pipelines.comparison import Comparison, Pair
from pipelines.comparison_page import SHOWN, differing_words, write_comparison
from skipvision import Engine, SkipConfig
from skipvision.engine.token_map import TokenMap, map_tokens
from skipvision.errors import ImageError
from skipvision.images import read_image
from skipvision.method.split import split_visual_tokens
from tests.tiny_llava import build_tiny_llava

EXAMPLES = Path(make_images.__file__).parent
SKIP = "20/30:plain"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A random checkpoint with 64 visual tokens per image."""
    return build_tiny_llava(tmp_path_factory.mktemp("model"), image_size=64, patch_size=8)


@pytest.fixture(scope="module")
def comparison(model) -> Iterator[Comparison]:
    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "MAX_TOKENS", 8)
    patch.setattr(demo, "ROUNDS", 2)
    yield demo.compare_examples(model=str(model), skip=SKIP)
    patch.undo()


def test_the_example_files_are_those_that_the_script_makes(tmp_path):
    make_images.make(tmp_path)
    assert (tmp_path / "images.jsonl").read_text() == (EXAMPLES / "images.jsonl").read_text()
    names = sorted(path.name for path in (EXAMPLES / "images").iterdir())
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == names
    for example in make_images.EXAMPLES:
        # Encoders differ in their last bits from version to version; the picture does not.
        ours, shipped = (read_image(folder / "images" / example.name) for folder in (tmp_path, EXAMPLES))
        assert np.abs(ours.astype(int) - shipped).mean() < 1


def test_every_good_example_decodes_to_the_upright_picture():
    for example in make_images.EXAMPLES:
        shown = np.asarray(example.picture())
        decoded = read_image(EXAMPLES / "images" / example.name)
        assert decoded.shape == shown.shape
        # JPEG and palettes change colours a little, a turned or transparent picture would change them a lot.
        assert np.abs(decoded.astype(int) - shown).mean() < 6, example.name


def test_cropping_an_example_cuts_no_object_off():
    for example in make_images.EXAMPLES:
        width, height = example.picture().size
        margins = ((1 - width / example.side) / 2, (1 - height / example.side) / 2)
        for shape in example.truth.shapes:
            for at, margin in zip((shape.x, shape.y), margins, strict=True):
                assert margin <= at - shape.half_width, example.name
                assert at + shape.half_width <= 1 - margin, example.name


def test_the_broken_examples_say_what_they_are():
    for name, code in ((make_images.CUT_OFF.name, "image_truncated"), (make_images.SAVED_PAGE, "image_is_html")):
        with pytest.raises(ImageError) as caught:
            read_image(EXAMPLES / "images" / name)
        assert caught.value.code == code


def test_the_three_inputs_hold_the_same_images():
    table = pq.read_table(EXAMPLES / "images.parquet")
    rows = [json.loads(line) for line in (EXAMPLES / "images.jsonl").read_text().splitlines()]
    assert [f"images/{name}" for name in table["name"].to_pylist()] == [row["image"] for row in rows]
    assert table["truth"].to_pylist() == [row["truth"] for row in rows]
    for row, content in zip(rows, table["image"].to_pylist(), strict=True):
        assert (EXAMPLES / row["image"]).read_bytes() == content


def test_the_comparison_covers_every_image_that_can_be_read(comparison):
    assert sorted(pair.name for pair in comparison.pairs) == sorted(example.name for example in make_images.EXAMPLES)
    for pair in comparison.pairs:
        assert pair.all_tokens.plan.retained_tokens == pair.all_tokens.plan.visual_tokens == 64
        assert (pair.skipping.plan.retained_tokens, pair.skipping.plan.skipped_tokens) == (20, 30)
        assert pair.truth


def test_the_bill_counts_the_same_answers(comparison):
    same = sum(pair.all_tokens.text == pair.skipping.text for pair in comparison.pairs)
    line = comparison.bill.line()
    assert re.fullmatch(rf"all tokens \d+\.\d\d s, skipping \d+\.\d\d s, same answer {same} of 12", line)
    assert comparison.bill.skipping_flops < comparison.bill.all_tokens_flops
    assert comparison.bill.skipping_kv_bytes < comparison.bill.all_tokens_kv_bytes


def test_an_answer_is_right_when_it_names_every_shape_and_invents_none(comparison):
    def answering(text: Callable[[Pair], str]) -> Comparison:
        pairs = [replace(p, all_tokens=replace(p.all_tokens, text=text(p))) for p in comparison.pairs]
        return replace(comparison, pairs=tuple(pairs))

    assert "all tokens 12, skipping 0 of 12" in demo.shapes_right(answering(lambda pair: pair.truth))
    assert "all tokens 0," in demo.shapes_right(answering(lambda pair: f"{pair.truth} and a small red star"))


def test_the_page_shows_six_images_both_answers_and_the_bill(comparison, tmp_path):
    links = {"folder": "folder/report.html"}
    write_comparison(tmp_path / "index.html", comparison, model="tiny", links=links, note="a < b")
    page = (tmp_path / "index.html").read_text()
    assert page.count("<article") == SHOWN == 6
    assert page.count('src="data:image/') == 2 * SHOWN
    assert page.count("src=") == 2 * SHOWN
    assert not re.search(r"https?://", page)
    assert "<script" not in page
    assert comparison.bill.line() in page
    assert "a &lt; b" in page
    assert 'href="folder/report.html"' in page
    for pair in comparison.pairs[:SHOWN]:
        assert pair.tokens.border("retained") in page
        assert pair.truth in page


def test_the_table_shows_answers_as_they_are(comparison):
    printed = io.StringIO()
    Console(width=200, file=printed).print(demo.table(comparison))
    assert "20 + 30 of 64" in printed.getvalue()
    assert all(pair.name in printed.getvalue() for pair in comparison.pairs)


def test_the_tokens_drawn_are_those_that_the_engine_retains(model):
    engine = Engine.load(str(model), skip=SKIP)
    pixels = engine.prepare(read_image(EXAMPLES / "images" / "square.png"))
    drawn = map_tokens(engine.family, pixels, engine.skip)
    encoded = engine.family.encode(torch.from_numpy(pixels)[None])
    split = split_visual_tokens(torch.stack([*encoded.features]), torch.stack([*encoded.saliency]), engine.skip, None)
    assert [index for index, fate in enumerate(drawn.fates) if fate == "retained"] == split.retained_index[0].tolist()
    assert drawn.count("skipped") < split.skipped.shape[1], "some skipped tokens are averages"
    assert drawn.count("retained") + drawn.count("skipped") + drawn.count("merged") == 64
    assert map_tokens(engine.family, pixels, SkipConfig()).count("retained") == 64


@pytest.mark.parametrize(("skip", "tokens"), [("uniform:9", 64), ("random:9", 64), ("resize:9", 9)])
def test_the_tokens_drawn_are_those_that_a_reduction_keeps(model, skip, tokens):
    engine = Engine.load(str(model), skip=skip)
    pixels = engine.prepare(read_image(EXAMPLES / "images" / "square.png"))
    drawn = map_tokens(engine.family, pixels, engine.skip)
    assert (drawn.count("retained"), drawn.count("dropped")) == (9, tokens - 9)
    assert drawn.rows * drawn.columns == tokens


def test_the_outlines_cover_every_token_once():
    drawn = TokenMap(2, 3, ("retained", "retained", "merged", "merged", "skipped", "retained"))
    assert drawn.outline("retained") == "M0 0h2v1h-2zM2 1h1v1h-1z"
    assert drawn.outline("merged") == "M2 0h1v1h-1zM0 1h1v1h-1z"
    assert drawn.outline("skipped") == "M1 1h1v1h-1z"
    assert sorted(re.findall(r"M\d \d[hv]1", drawn.border("skipped"))) == ["M1 1h1", "M1 1v1", "M1 2h1", "M2 1v1"]


def test_words_that_only_one_answer_has_are_marked():
    one, other = differing_words("a small red star", "a large red star at the top")
    assert [word.text for word in one if word.differs] == ["small"]
    assert [word.text for word in other if word.differs] == ["large", "at", "the", "top"]
    assert differing_words("the same", "the same")[0] == differing_words("the same", "the same")[1]


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "MAX_TOKENS", 8)
    monkeypatch.setattr(demo, "ROUNDS", 1)
    done = demo.main(tmp_path, model=str(model), skip=SKIP)
    assert done.bill.line() in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text()
    for name in demo.INPUTS:
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert (report["rows"], report["ok"]) == (14, 12)
        assert sorted(report["errors_by_code"]) == ["image_is_html", "image_truncated"]
        assert (tmp_path / name / "report.html").is_file()
        assert f"{name}/report.html" in page
