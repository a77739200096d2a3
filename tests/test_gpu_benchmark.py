"""The unattended GPU script, tried on a CPU with a tiny shape: all it would write, and that its two engines agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engines import SETTINGS
from benchmarks.gpu import measure

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("results") / "gpu.json"
    measure(
        shape=["tiny", "tiny-hd"], device="cpu", images=3, rounds=2, new_tokens=4, running=4, batch=[1, 2], checked=2,
        output=output,
    )  # fmt: skip
    return json.loads(Path(output).read_text())


def test_answers_are_compared_with_those_of_a_cpu(result: dict[str, Any]) -> None:
    assert [(part["model"], part["skip"]) for part in result["agreement_with_cpu"]] == [
        ("random", "off"), ("random", "auto"), ("zoo", "off"), ("zoo", "auto"),
    ]  # fmt: skip
    for part in result["agreement_with_cpu"]:
        assert part["same_answers_in_float32"] == part["images"]
        assert part["gaps_where_they_part"] == []
        assert part["same_choices_when_taught"] == 1.0


def test_settings_and_batches_stand_side_by_side_and_say_the_same(result: dict[str, Any]) -> None:
    tiny = result["tiny"]
    names = [f"skipvision {setting}" for setting in SETTINGS] + ["transformers, batch 1", "transformers, batch 2"]
    assert [run["name"] for run in tiny["runs"]] == names
    assert tiny["same_tokens_as_transformers"] == 3
    assert tiny["absent"] == {}


def test_every_setting_stands_beside_what_the_ceilings_allow(result: dict[str, Any]) -> None:
    everything, *_, fewest = result["tiny"]["runs"][: len(SETTINGS)]
    assert fewest["work"]["executed_flops"]["prefill"] < everything["work"]["executed_flops"]["prefill"]
    assert fewest["decode_bytes"] < everything["decode_bytes"]
    assert fewest["limit_images_per_second"] > everything["limit_images_per_second"] > 0


def test_one_image_alone_and_decoding_without_graphs_are_measured_too(result: dict[str, Any]) -> None:
    tiny = result["tiny"]
    assert tiny["without_graphs_after_the_rounds"].keys() == set(SETTINGS)
    for setting in SETTINGS:
        alone = tiny["alone_after_the_rounds"][f"skipvision {setting}"]
        assert 0 < alone["first_token_seconds"]["min"] <= alone["seconds"]["max"]


def test_kernels_that_do_not_work_here_are_absent_by_name(result: dict[str, Any]) -> None:
    for part in result["attention_errors"]:
        assert part["torch"] < 1e-4
        assert "paged_decode" not in part
        assert any("decoding gathers the cache" in note for note in part["notes"])


def test_pictures_in_tiles_are_read_whole_and_at_the_setting_of_their_own(result: dict[str, Any]) -> None:
    tiles = result["tiny-hd"]
    everything, skipping, *_ = tiles["runs"]
    assert [everything["name"], skipping["name"]] == ["skipvision off", "skipvision 576/576"]
    assert everything["prompt_tokens"] - skipping["prompt_tokens"] == 5 * 576 + 48 - (2 * 576 + 2)
    assert (
        everything["work"]["executed_flops"]["encoder"]
        == 5 * result["tiny"]["runs"][0]["work"]["executed_flops"]["encoder"]
    )
    assert tiles["same_tokens_as_transformers"] == 3


def test_it_says_what_the_device_was_found_to_take(result: dict[str, Any]) -> None:
    assert result["tiny"]["attention"] == result["tiny"]["attention_without_graphs"] == "plain torch"
