"""The engine stands beside its peers on the same work, and a peer that did not run stands there as absent."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import engines, lineup, tables
from benchmarks.machine import circumstances


@pytest.fixture(scope="module")
def measured(tiny_config) -> tuple[dict, dict]:
    """Throughput and latency of a tiny model: 3 images, 2 rounds; and two peers that cannot run."""
    ours, stock = lineup.ours(engines.SETTINGS), lineup.transformers((2,))
    no_environment = replace(lineup.vllm(), python=Path("/nowhere/python"))
    broken = replace(lineup.vllm(), name="broken", python=Path(sys.executable), settings={"broken": {}})
    contestants = (
        replace(ours, layouts=ours.layouts[:1]),
        replace(stock, layouts=stock.layouts[:1]),
        no_environment,
        replace(broken, layouts=broken.layouts[:1]),
    )
    throughput, latency = engines.compare(tiny_config, contestants, images=3, rounds=2, new_tokens=4)
    return {**circumstances(), **throughput}, {**circumstances(), **latency}


def test_the_engine_says_what_transformers_says_when_they_are_compared(measured):
    runs = {run["name"]: run for run in measured[0]["runs"]}
    assert [*runs] == [*(f"skipvision {each}" for each in engines.SETTINGS), "transformers"]
    assert runs["skipvision off"]["same_answers_as_transformers"] == 3


def test_every_row_has_its_speed_with_spread_and_ours_its_stages_and_work(measured):
    runs = {run["name"]: run for run in measured[0]["runs"]}
    for run in runs.values():
        speed = run["images_per_second"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
    everything, paper = runs["skipvision off"], runs["skipvision 100/156"]
    assert everything["prompt_tokens"] - paper["prompt_tokens"] == 576 - (100 + 156 + 2)
    assert {"preprocess", "encode", "prefill", "decode"} <= everything["stage_seconds"].keys()
    for kind in ("stock_flops", "executed_flops"):
        assert paper["work"][kind]["prefill"] < everything["work"][kind]["prefill"]
    assert everything["work"]["executed_flops"]["encoder"] < everything["work"]["stock_flops"]["encoder"]
    assert paper["decode_bytes"] < everything["decode_bytes"]


def test_a_first_token_comes_before_the_last(measured):
    runs = measured[1]["runs"]
    assert [run["name"] for run in runs] == [*(f"skipvision {each}" for each in engines.SETTINGS), "transformers"]
    for run in runs:
        assert 0 < run["first_token_seconds"]["median"] < run["seconds"]["median"]


def test_absent_peers_stand_in_the_tables_by_name_with_their_reason(measured):
    for table in (tables.engines(measured[0]), tables.latency(measured[1])):
        assert "| vllm | absent: its environment is not there: make bench-peers |" in table
        assert "| broken | absent: ModuleNotFoundError: No module named 'vllm' |" in table


def test_the_last_line_says_who_is_absent(measured):
    assert tables.absent_peers(measured[0]) == (
        "absent: vllm (its environment is not there: make bench-peers), "
        "broken (ModuleNotFoundError: No module named 'vllm')"
    )
    everyone = {"engines": [each for each in measured[0]["engines"] if each["absent"] is None]}
    assert tables.absent_peers(everyone) == "every peer ran"


def test_ratios_are_to_the_peer_of_their_column(measured):
    result = {**measured[0], "runs": [dict(run) for run in measured[0]["runs"]]}
    for run, speed in zip(result["runs"], (8.0, 10.0, 12.0, 14.0, 4.0), strict=True):
        run["images_per_second"] = {"median": speed, "min": 1.0, "max": 20.0}
    rows = [line.strip("| ").split(" | ") for line in tables.engines(result).splitlines()[2:7]]
    assert [row[2] for row in rows] == ["2.00", "2.50", "3.00", "3.50", "1.00"]
    assert {row[3] for row in rows} == {"absent"}


def test_reached_is_the_share_of_the_limit_that_stands_beside_it(measured):
    rows = [line.strip("| ").split(" | ") for line in tables.limits(measured[0]).splitlines()[2:6]]
    for row, run in zip(rows, measured[0]["runs"], strict=False):
        for limit, reached in ((row[2], row[3]), (row[5], row[6])):
            share = run["images_per_second"]["median"] / float(limit)
            assert float(reached.strip("%")) / 100 == pytest.approx(share, abs=0.006)


def test_stages_are_printed_as_the_engine_names_them(measured):
    heads = tables.stages(measured[0]).splitlines()[0]
    assert all(f"{stage} s" in heads for stage in measured[0]["runs"][0]["stage_seconds"])
