"""The engine worker: callers share one engine, a wrong row fails alone, and shards are committed with their numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.account import ShardWork
from pipelines.commit import FOOTER, committed_shard, committed_shards
from pipelines.engine_thread import EngineThread
from pipelines.folder import JobFolder
from pipelines.freeze import freeze
from pipelines.inference import Inference, InferenceWorker
from pipelines.layout import shard_name
from pipelines.model import choose_model
from pipelines.observed import OBSERVED, record
from pipelines.plan import JobPlan
from pipelines.prepare import SHARD, Preparation
from pipelines.requests import row_seed
from pipelines.result_rows import result_schema
from pipelines.sources import find_source
from pipelines.statistics import ShardStatistics, add_up
from pipelines.tables import open_table
from pipelines.windows import Measured
from skipvision.config import JobConfig
from skipvision.engine import Answer, Engine, EngineCounts, Request, Sampling
from skipvision.engine.driver import EngineWork
from skipvision.errors import ConfigError, InputError
from skipvision.method.flops import decode_flops, kv_bytes, prefill_flops
from skipvision.metrics import Registry
from tests.image_files import write_good

SKIP = "6/4:plain"


@pytest.fixture(scope="module")
def load(tiny_model) -> Callable[[], Engine]:
    return lambda: Engine.load(tiny_model, skip=SKIP, device="cpu", dtype="float32", max_running=4)


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    pictures = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    return [
        Request(prompt=f"what is {n} ?", images=(image,), sampling=Sampling(max_tokens=3 + n % 5))
        for n, image in enumerate(pictures)
    ]


def texts(outcomes: list[Answer | InputError]) -> list[str]:
    return [outcome.text for outcome in outcomes if isinstance(outcome, Answer)]


def test_callers_that_share_an_engine_get_what_they_would_alone(load, requests):
    alone = [answer.text for answer in load().answer([replace(r, request_id=f"{i}") for i, r in enumerate(requests)])]
    thread = EngineThread(load())
    with ThreadPoolExecutor(3) as callers:
        together = list(callers.map(thread.answer, (requests[0:4], requests[4:8], requests[8:12])))
    assert [text for outcomes in together for text in texts(outcomes)] == alone
    work = thread.take_work()
    assert min(work.stage_seconds[stage] for stage in ("encode", "merge", "prefill", "decode")) > 0
    assert work.counts.slots == 4 * work.counts.steps > work.counts.slots_used > 0
    assert work.counts.vision_cache_misses == 12
    assert work.held_seconds > work.busy_seconds > 0
    since = thread.take_work()
    assert (since.counts, since.busy_seconds) == (EngineCounts(), 0)


def test_a_wrong_request_fails_alone(load, requests):
    wrong = Request(prompt="what " * 600, images=requests[0].images)
    outcomes = EngineThread(load()).answer([requests[0], wrong, requests[1]])
    assert [getattr(outcome, "code", "answered") for outcome in outcomes] == ["answered", "prompt_too_long", "answered"]


def test_a_request_that_turns_out_to_be_wrong_is_an_error_and_the_others_are_answered(load, requests):
    def gives_up(output_ids, logits):
        return logits if len(output_ids) < 2 else None

    failing = replace(requests[1], logits_hook=gives_up)
    outcomes = EngineThread(load()).answer([requests[0], failing, requests[2]])
    assert [getattr(outcome, "code", "answered") for outcome in outcomes] == [
        "answered",
        "logits_hook_failed",
        "answered",
    ]


def test_nobody_asks_nothing(load):
    assert EngineThread(load()).answer([]) == []


@pytest.fixture
def job(tmp_path, tiny_model):
    """A planned job of 7 rows in 3 shards: its folder, a way to prepare shards, and what a worker needs."""
    names = write_good(tmp_path / "in", 6)
    rows = [{"image": f"in/{name}", "note": None, "q": "what ?"} for name in names]
    rows.insert(4, {"image": "in/gone.png", "note": None, "q": "what ?"})
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = JobConfig(
        input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out"), model=str(tiny_model), skip=SKIP,
        prompt_column="q", rows_per_shard=3,
    )  # fmt: skip
    folder, model = JobFolder(config.output), choose_model(config)
    plan = freeze(open_table(find_source(config.input), config), config, model, folder)
    preparation = Preparation(
        output=config.output, input_id=plan.input_id, model=str(tiny_model), prompt="", prompt_column="q",
        embedded_column=None, allow_networks=(),
    )  # fmt: skip
    inference = Inference(
        output=config.output, plan=plan, model=str(tiny_model), skip=model.skip, sampling=Sampling(max_tokens=4),
        device="cpu", dtype="float32", max_running=4,
    )  # fmt: skip
    return folder, plan, preparation, inference


def told(block) -> ShardStatistics:
    return ShardStatistics.from_json(block.to_pylist()[0]["statistics"])


def test_a_shard_is_answered_and_committed_with_its_numbers(job):
    folder, plan, preparation, inference = job
    statistics = told(InferenceWorker(inference)(preparation.prepare(1)))
    file = pq.ParquetFile(folder.path / shard_name(1))
    rows = file.read().to_pylist()

    assert file.schema_arrow.remove_metadata().equals(result_schema(plan.schema)), "columns without a value keep types"
    assert [row["error_code"] for row in rows] == [None, "image_missing", None]
    assert [row["answer"] is None for row in rows] == [False, True, False]
    assert (statistics.rows, statistics.ok, statistics.errors_by_code) == (3, 2, {"image_missing": 1})
    assert statistics.tokens.visual == 2 * 16 == sum(row["visual_tokens"] or 0 for row in rows)
    assert (statistics.tokens.retained, statistics.tokens.skipped, statistics.tokens.merged) == (12, 8, 12)
    footer = json.loads(file.metadata.metadata[FOOTER])
    assert (footer["rows"], footer["ok"], footer["errors"]) == (3, 2, 1)
    assert committed_shard(folder, 1).tokens == statistics.tokens


def test_a_shard_that_is_committed_is_not_answered_again(job):
    folder, _, preparation, inference = job
    worker, prepared = InferenceWorker(inference), preparation.prepare(0)
    first = told(worker(prepared))
    before = (folder.path / shard_name(0)).read_bytes()
    again = told(worker(prepared))
    assert again.tokens == first.tokens
    assert worker._engine.take_work().counts == EngineCounts(), "the engine did nothing"
    assert (folder.path / shard_name(0)).read_bytes() == before


def test_the_loser_of_a_race_takes_the_winners_numbers(job):
    folder, _, preparation, inference = job
    prepared = preparation.prepare(0)
    winner, loser = InferenceWorker(inference), InferenceWorker(replace(inference, sampling=Sampling(max_tokens=2)))
    outcomes = loser._answer(prepared)
    won = told(winner(prepared))
    lost = loser._commit(folder, 0, prepared, outcomes, Measured())
    assert lost.tokens.output == won.tokens.output != sum(len(outcome.output_ids) for outcome in outcomes)


def test_a_shard_that_is_not_whole_is_never_committed(job):
    folder, _, preparation, inference = job
    worker, prepared = InferenceWorker(inference), preparation.prepare(0)
    with pytest.raises(AssertionError, match="2 rows of 3"):
        worker(prepared.slice(0, 2))
    mixed = prepared.set_column(prepared.column_names.index(SHARD), SHARD, [[0, 0, 1]])
    with pytest.raises(AssertionError, match="rows of another shard"):
        worker(mixed)
    assert folder.names("data") == []


def test_all_tokens_cost_what_the_formulas_say(job, load):
    _, _, preparation, inference = job
    worker = InferenceWorker(inference)
    answers = worker._answer(preparation.prepare(0))
    nothing = ShardWork(preparing=EngineWork(), engine=EngineWork())
    statistics = worker._account.of_shard(0, answers, nothing)
    shape = load().family.shape
    full = [answer.plan.with_all_tokens() for answer in answers]
    assert statistics.actual.prefill_flops == sum(prefill_flops(shape, answer.plan) for answer in answers)
    assert statistics.all_tokens.prefill_flops == sum(prefill_flops(shape, plan) for plan in full)
    assert statistics.all_tokens.decode_flops == sum(
        decode_flops(shape, cached_tokens=plan.cached_tokens, output_tokens=len(answer.output_ids))
        for plan, answer in zip(full, answers, strict=True)
    )
    assert statistics.actual.kv_bytes == 3 * kv_bytes(shape, answers[0].plan.cached_tokens, bytes_per_value=4)
    assert statistics.actual.flops < statistics.all_tokens.flops


def test_numbers_survive_the_way_through_json_and_add_up(job):
    folder, plan, preparation, inference = job
    worker = InferenceWorker(inference)
    shards = [told(worker(preparation.prepare(shard))) for shard in range(plan.shards)]
    assert all(ShardStatistics.from_json(shard.to_json()) == shard for shard in shards)
    total = add_up(shards)
    assert (total.rows, total.ok, total.errors) == (7, 6, 1)
    assert total.tokens == add_up(committed_shards(folder, plan).values()).tokens
    assert total.finish_reasons == {"length": 6}
    assert total.engine.vision_cache_misses == 6
    assert total.row_seconds.total > total.row_seconds.first_token > total.row_seconds.queue > 0


def test_every_answered_row_is_observed_in_every_histogram(job):
    _, _, preparation, inference = job
    [row] = InferenceWorker(inference)(preparation.prepare(1)).to_pylist()
    assert {name: len(row[name]) for name in OBSERVED} == dict.fromkeys(OBSERVED, 2) | {"gap_seconds": 2 * (4 - 1)}
    registry, work = Registry(), {"workload": "batch", "model": "m", "skip": "off"}
    record(row, registry.within(**work))
    for each in OBSERVED.values():
        assert registry.value(each.metric, **work, **each.labels) > 0


@pytest.mark.parametrize("damage", ["empty", "foreign", "short"])
def test_a_damaged_file_among_the_results_is_named(job, damage):
    folder, plan, preparation, inference = job
    InferenceWorker(inference)(preparation.prepare(0))
    path = folder.path / shard_name(0)
    content = {"empty": b"", "foreign": Path(__file__).read_bytes(), "short": path.read_bytes()[:-9]}[damage]
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"shard-00000\.parquet .* is damaged"):
        committed_shards(folder, plan)


def test_results_of_another_job_are_not_taken_over(job):
    folder, plan, preparation, inference = job
    InferenceWorker(inference)(preparation.prepare(0))
    shorter: JobPlan = replace(plan, rows_per_shard=2)
    with pytest.raises(ConfigError, match="not of this job"):
        committed_shards(folder, shorter)


def test_every_row_draws_with_a_seed_of_its_own():
    seeds = {row_seed(seed, key) for seed in (0, 1) for key in ("a", "b", "c")}
    assert len(seeds) == 6
    assert row_seed(0, "a") == row_seed(0, "a")
    assert all(Sampling(seed=seed) for seed in seeds)
