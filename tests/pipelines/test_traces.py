"""What a collector hears of a job: each row in its parts, by its place in the job's files and nothing else."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.folder import JobFolder
from pipelines.freeze import freeze
from pipelines.inference import Inference, InferenceWorker
from pipelines.job import run
from pipelines.layout import shard_name
from pipelines.model import choose_model
from pipelines.prepare import Preparation
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig
from skipvision.engine import Sampling
from tests.collector import Seen, assert_nested, children, collector, names, undocumented
from tests.image_catalogue import CATALOGUE, write
from tests.image_files import write_good

BROKEN = ("empty.png", "cut-half.jpg", "page.png")
ROWS = 9


def images(folder: Path) -> Path:
    write_good(folder, ROWS - len(BROKEN))
    write(folder, {name: CATALOGUE[name] for name in BROKEN})
    return folder


def rows(spans: list[Seen]) -> list[Seen]:
    return [span for span in spans if span.name == "row"]


def test_every_row_of_a_job_is_a_trace_of_its_own(tmp_path: Path, tiny_model: Path, local_ray: None) -> None:
    with collector() as seen:
        began = time.time_ns()
        run(
            JobConfig(
                input=str(images(tmp_path / "private-input")), output=str(tmp_path / "captions"), model=str(tiny_model),
                skip="6/4:plain", prompt="wallaby ?", max_tokens=3, rows_per_shard=4, traces=seen.address,
                traces_share=1.0,
            )
        )  # fmt: skip
        ended = time.time_ns()
    spans, shards = seen.spans(), {span.id: span for span in seen.spans() if span.name == "shard"}
    results = {
        (shard, number): row
        for shard in range(3)
        for number, row in enumerate(pq.read_table(tmp_path / "captions" / shard_name(shard)).to_pylist())
    }

    found = {(row.attributes["skipvision.shard"], row.attributes["skipvision.row"]): row for row in rows(spans)}
    assert found.keys() == results.keys()
    assert len(rows(spans)) == len({row.trace for row in rows(spans)}) == len(results) == ROWS
    assert len(shards) == 3
    assert not undocumented(spans)
    assert sum(shard.attributes["skipvision.errors"] for shard in shards.values()) == len(BROKEN)
    for place, row in found.items():
        result, [(_, shard)] = results[place], row.links
        assert shards[shard].attributes["skipvision.shard"] == place[0]
        assert (row.parent, row.message, row.attributes["skipvision.job"]) == ("", "", "captions")
        assert row.attributes.get("error.type") == result["error_code"]
        assert row.failed == bool(result["error_code"])
        assert began <= row.began < row.ended <= ended
        assert_nested(spans, row)
        engine = [] if row.failed else ["queue", "encode", "prefill", "decode"]
        assert names(children(spans, row)) == ["read", "prepare", *engine, "write"]
        if not row.failed:
            assert row.attributes["gen_ai.usage.output_tokens"] == result["output_tokens"]
            assert row.attributes["skipvision.skipped_tokens"] == result["skipped_tokens"] == 4
            assert row.attributes["gen_ai.response.finish_reasons"] == [result["finish_reason"]]
    assert Counter(row.attributes["error.type"] for row in rows(spans) if row.failed).keys() == {
        CATALOGUE[name].code for name in BROKEN
    }

    sent = b"".join(seen.bodies)
    answers = [row["answer"] for row in results.values() if row["answer"]]
    keys = [row["row_key"] for row in results.values()]
    secrets = (*BROKEN, *answers, *keys, "wallaby", "private-input", str(tmp_path), str(tiny_model))
    assert b"captions" in sent
    assert [secret for secret in secrets if secret.encode() in sent] == []


@pytest.fixture
def shard(tmp_path: Path, tiny_model: Path) -> tuple[Preparation, Inference]:
    """A job of one shard, without Ray."""
    config = JobConfig(
        input=str(images(tmp_path / "in")), output=str(tmp_path / "out"), model=str(tiny_model), skip="off"
    )
    folder, model = JobFolder(config.output), choose_model(config)
    plan = freeze(open_table(find_source(config.input), config), config, model, folder)
    preparation = Preparation(
        output=config.output, input_id=plan.input_id, model=str(tiny_model), prompt="what ?", prompt_column=None,
        embedded_column=None, allow_networks=(),
    )  # fmt: skip
    inference = Inference(
        output=config.output, plan=plan, model=str(tiny_model), skip=model.skip, sampling=Sampling(max_tokens=2),
        device="cpu", dtype="float32", max_running=4,
    )  # fmt: skip
    return preparation, inference


def test_a_share_of_0_sends_nothing_and_off_makes_nothing(shard: tuple[Preparation, Inference]) -> None:
    preparation, inference = shard
    assert InferenceWorker(inference)._traces is None
    with collector() as seen:
        InferenceWorker(replace(inference, traces=seen.address, traces_share=0.0))(preparation.prepare(0))
        time.sleep(1.5)
    assert (Path(inference.output) / shard_name(0)).exists()
    assert seen.bodies == []


def test_a_shard_that_is_committed_already_is_no_trace_again(shard: tuple[Preparation, Inference]) -> None:
    preparation, inference = shard
    with collector() as seen:
        worker = InferenceWorker(replace(inference, traces=seen.address, traces_share=1.0))
        for _ in range(2):
            worker(preparation.prepare(0))
    assert len(rows(seen.spans())) == ROWS


def test_a_collector_that_is_away_holds_up_no_shard(shard: tuple[Preparation, Inference]) -> None:
    preparation, inference = shard
    with collector(silent=True) as silent:
        worker = InferenceWorker(replace(inference, traces=silent.address, traces_share=1.0))
        prepared = preparation.prepare(0)
        worker(prepared)
        (Path(inference.output) / shard_name(0)).unlink()
        began = time.monotonic()
        worker(prepared)
        assert time.monotonic() - began < 2
    assert len(pq.read_table(Path(inference.output) / shard_name(0))) == ROWS
