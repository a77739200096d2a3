"""The evidence: who is compared with whom, and what it is told with."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from benchmarks import tables
from benchmarks.quality import SETTINGS, _trials, equal_flops_tokens, measure
from skipvision.evaluation import Trial
from skipvision.exercises import STRATA
from skipvision.families.checkpoint import read_config
from skipvision.method.flops import DecoderShape, prefill_flops
from skipvision.method.plan import SkipConfig, plan_prompt


@pytest.mark.parametrize("setting", SETTINGS)
def test_reduction_is_given_as_many_flops_as_skipping(setting):
    shape = DecoderShape.from_config(read_config("zoo").text_config.to_dict())
    skipping, reduced = (
        prefill_flops(
            shape, plan_prompt(SkipConfig.parse(each), text_tokens=0, visual_tokens=[256]), convention="paper"
        )
        for each in (setting, f"uniform:{equal_flops_tokens(setting)}")
    )
    assert reduced == pytest.approx(skipping, rel=0.02)


def test_every_comparison_that_the_table_needs_is_made():
    trials = [Trial.parse(text, model=None) for text in _trials()]
    assert trials[0] == Trial(model="zoo-plain", skip="off")
    names = {trial.name for trial in trials}
    assert {f"zoo={setting}{kept}" for setting in SETTINGS for kept in ("", ":keep")} < names
    assert {"zoo=44/69:plain", "zoo-plain=44/69:plain", "zoo-plain=off@blank", "zoo-plain=off@nothing"} < names
    reducers = {trial.skip.partition(":")[0] for trial in trials if trial.model == "zoo-plain"}
    assert {"uniform", "random", "saliency", "resize"} < reducers


@pytest.mark.slow
def test_the_whole_run_in_small(tmp_path):
    measure(items=1, rounds=1, output=tmp_path / "quality.json", plots=tmp_path)
    result = json.loads((tmp_path / "quality.json").read_text())
    assert result["strata"] == dict.fromkeys(STRATA, 1)
    timed = {trial["name"] for trial in result["trials"] if trial["step_seconds"] is not None}
    assert timed == {"zoo-plain=off", *(f"zoo={setting}{kept}" for setting in SETTINGS for kept in ("", ":keep"))}
    rows = [row for row in tables.quality(result).splitlines() if row.startswith("| `")]
    assert len(rows) == len(_trials())
    for name in ("accuracy-by-flops.png", "accuracy-by-size.png"):
        with Image.open(tmp_path / name) as plot:
            assert plot.width > 400
