"""The benchmark measures what it says, and the table says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.print_tables import Source, printed
from benchmarks.skipping import measure, names_what_is_there
from skipvision.scenes import scene
from tests.tiny_llava import build_tiny_llava

PAGE = "before\n<!-- table: skipping -->\nold\n<!-- end of table: skipping -->\nafter\n"
TABLE = {"skipping": Source("skipping", tables.skipping)}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The folder of a measurement of a tiny model: 3 images, 2 rounds."""
    folder = tmp_path_factory.mktemp("results")
    model = build_tiny_llava(tmp_path_factory.mktemp("model"))
    output = folder / "skipping.json"
    measure(model=str(model), skip="4/6:plain", images=3, rounds=2, prompt="what", max_tokens=4, device="cpu",
            output=output)  # fmt: skip
    return folder


def test_both_settings_are_measured_in_one_run_with_spread_and_circumstances(results):
    result = json.loads((results / "skipping.json").read_text())
    assert [setting["skip"] for setting in result["settings"]] == ["off", "4/6:plain"]
    for setting in result["settings"]:
        speed = setting["images_per_second"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
    assert {"command", "commit", "machine", "versions", "matmul_flops_per_second"} <= result.keys()


def test_skipping_is_modelled_to_cost_less_and_all_tokens_agree_with_themselves(results):
    everything, skipping = json.loads((results / "skipping.json").read_text())["settings"]
    assert skipping["prefill_flops"] < everything["prefill_flops"]
    assert skipping["kv_bytes"] < everything["kv_bytes"]
    assert everything["same_answer_as_all_tokens"] == 3


def test_the_table_replaces_the_old_one_and_nothing_else(results):
    page = printed(PAGE, TABLE, results)
    assert page.startswith("before\n<!-- table: skipping -->\n| setting |")
    assert page.endswith("<!-- end of table: skipping -->\nafter\n")
    assert "old" not in page
    assert "`4/6:plain`" in page
    assert printed(page, TABLE, results) == page


def test_a_page_without_a_place_for_the_table_is_refused(results):
    with pytest.raises(SystemExit, match="must hold <!-- table: skipping -->"):
        printed("no table here", TABLE, results)


def test_a_caption_is_right_when_it_names_every_shape_and_invents_none():
    truth = scene(0)
    assert names_what_is_there(truth.caption(), truth)
    assert not names_what_is_there(f"{truth.caption()} and a small red star", truth)
    assert not names_what_is_there("nothing", truth)
