"""The benchmark measures what it says, and the table says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import engines, random_llava
from benchmarks.print_tables import engines_table, printed, skipping_table
from benchmarks.skipping import measure, names_what_is_there
from skipvision.scenes import scene
from tests.tiny_llava import build_tiny_llava

PAGE = "before\n<!-- table: skipping -->\nold\n<!-- end of table: skipping -->\nafter\n"
TABLE = {"skipping": skipping_table}


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


@pytest.fixture(scope="module")
def beside_transformers() -> dict:
    config = random_llava.small()
    for part, sizes in (
        (config.text_config, {"hidden_size": 96, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}),
        (config.vision_config, {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}),
    ):
        for name, size in sizes.items():
            setattr(part, name, size)
    return engines.compare(config, images=3, rounds=2, new_tokens=4, batches=(1, 2))


def test_the_engine_says_what_transformers_says_when_they_are_compared(beside_transformers):
    assert beside_transformers["same_tokens_as_transformers"] == 3


def test_settings_and_batch_sizes_stand_side_by_side_with_their_prompts_and_work(beside_transformers):
    runs = {run["name"]: run for run in beside_transformers["runs"]}
    assert [*runs] == [f"skipvision {each}" for each in engines.SETTINGS] + [f"transformers, batch {n}" for n in (1, 2)]
    everything, paper = runs["skipvision off"], runs["skipvision 100/156"]
    assert everything["prompt_tokens"] - paper["prompt_tokens"] == 576 - (100 + 156 + 2)
    assert paper["prefill_flops"] < everything["prefill_flops"]
    assert all(run["output_tokens"] == 12 for name, run in runs.items() if name.startswith("skipvision"))


def test_the_engines_table_takes_the_best_batch_as_the_peer(beside_transformers):
    for run, speed in zip(beside_transformers["runs"], (8.0, 10.0, 12.0, 14.0, 2.0, 4.0), strict=True):
        run["images_per_second"] = {"median": speed, "min": 1.0, "max": 20.0}
    table = engines_table({**engines.circumstances(), **beside_transformers})
    assert [line.split(" | ")[2] for line in table.splitlines()[2:8]] == [
        "2.00",
        "2.50",
        "3.00",
        "3.50",
        "0.50",
        "1.00",
    ]
