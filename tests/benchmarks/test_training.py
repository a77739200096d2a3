"""Fine-tuning steps are measured with skipping on against off, on the same batch."""

from __future__ import annotations

import pytest

from benchmarks import tables
from benchmarks.machine import circumstances
from benchmarks.training import compare

BATCH = {"samples": 2, "text_tokens": 20, "tokens_per_pass": 700}


@pytest.fixture(scope="module")
def compared(tiny_config) -> dict:
    options = {**BATCH, "device": "cpu", "lora": False}
    shape = {"shape": "tiny", **compare(tiny_config, "100/156", rounds=1, options=options)}
    rates = {"rounds": 1, "lora": False, "matmul_flops_per_second": 1e9}
    return {**circumstances(), **BATCH, **rates, "shapes": [shape]}


def test_both_learn_from_the_same_batch_and_skipping_reads_less(compared):
    everything, skipping = compared["shapes"][0]["settings"]
    assert (everything["decoder_tokens"], everything["ffn_tokens"], everything["passes"]) == (596, 596, 2)
    assert (skipping["decoder_tokens"], skipping["ffn_tokens"], skipping["passes"]) == (278, 122, 1)
    assert everything["visual_tokens"] == skipping["visual_tokens"] == 576
    assert skipping["learnable_parameters"] > everything["learnable_parameters"], "the summary pooling learns too"


def test_a_step_is_the_sum_of_its_parts(compared):
    for setting in compared["shapes"][0]["settings"]:
        parts = sum(setting[f"{part}_seconds"]["median"] for part in ("forward", "backward", "optimizer"))
        assert setting["step_seconds"]["median"] == pytest.approx(parts)
        assert setting["peak_bytes"] > 0


def test_the_table_has_a_row_for_each_setting(compared):
    rows = tables.training(compared).splitlines()[2:4]
    assert [row.split(" | ")[:2] for row in rows] == [["| tiny", "off"], ["| tiny", "100/156"]]
