"""The whole job on a real, local Ray: one row out for every row in, whatever the input holds."""

from __future__ import annotations

import json
import shutil
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

import pipelines.job
from pipelines.job import run
from pipelines.statistics import JobReport
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.metrics import error_stage
from tests.image_catalogue import CATALOGUE, write
from tests.image_files import picture, saved, write_good

PRICES = Path(__file__).parents[2] / "examples" / "prices.yaml"

BROKEN_WAYS = (
    "empty.png", "cut-half.jpg", "cut-half.png", "text.png", "zeros.jpg", "noise.jpg", "page.png", "drawing.png",
    "archive.png", "compressed.png", "bomb.png", "bomb.webp", "too-many-pixels.png", "too-long.png", "sliver.png",
    "too-many-scans.jpg", "wrong-checksum.png", "phone.heic", "float.tiff", "cut-half.webp",
)  # fmt: skip


def mixed_images(folder: Path, *, good: int) -> dict[str, str | None]:
    """Good images and twenty broken ones in one folder; file name -> expected error code."""
    return dict.fromkeys(write_good(folder, good)) | write(folder, {name: CATALOGUE[name] for name in BROKEN_WAYS})


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder: its time and its bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


NAMED = {"workload", "model", "skip", "basis", "job_name"}


def scraped(port: int) -> dict[tuple[str, ...], float]:
    """(name, label values …) -> value of everything a job publishes; labels that one job has one value of left out."""
    for _ in range(2):  # what is new is told as 0 the first time
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name not in NAMED or value == "measured")):
        sample.value for family in families for sample in family.samples
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, local_ray):
    """A job over 200 mixed images: its settings, what was expected, its report, and its metrics before the end."""
    place = tmp_path_factory.mktemp("job")
    expected = mixed_images(place / "in", good=180)
    (place / "in" / "notes.txt").write_text("no image")
    config = JobConfig(
        input=str(place / "in"), output=str(place / "out"), model=str(tiny_model), skip="6/4:plain", max_tokens=4,
        rows_per_shard=32, metrics_port=0, prices=str(PRICES), compared_share=0.4,
    )  # fmt: skip
    published: dict[tuple[str, ...], float] = {}
    said: list[str] = []
    write_report = pipelines.job.write_report

    def look_first(*arguments) -> None:
        port = int(next(line for line in said if "metrics on" in line).split(":")[-1].split("/")[0])
        published.update(scraped(port))
        write_report(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.job, "say", said.append)
        patch.setattr(pipelines.job, "write_report", look_first)
        report = run(config)
    return config, expected, report, published


def test_every_row_is_answered_or_has_its_coded_error(finished):
    config, expected, report, _ = finished
    table = pd.read_parquet(Path(config.output) / "data").set_index("path")
    assert len(table) == len(expected) == 200
    found = {path: None if pd.isna(code) else code for path, code in table["error_code"].items()}
    assert found == expected
    assert table.loc[table["error_code"].isna(), "answer"].notna().all()
    assert table.loc[table["error_code"].notna(), "answer"].isna().all()
    assert table["row_key"].is_unique
    assert (report.rows, report.ok, report.errors, report.other_files) == (200, 180, 20, 1)


def test_the_results_are_one_table_to_anybody(finished):
    config, *_ = finished
    counts = duckdb.sql(
        f"select count(*), count(distinct row_key), count(error_code), sum(visual_tokens) "
        f"from '{config.output}/data/*.parquet'"
    ).fetchall()
    assert counts == [(200, 200, 20, 180 * 16)]
    schemas = {str(pq.read_schema(path).remove_metadata()) for path in Path(config.output, "data").iterdir()}
    assert len(schemas) == 1


def test_the_manifest_names_the_files_and_their_rows(finished):
    config, *_ = finished
    manifest = json.loads(Path(config.output, "_MANIFEST.json").read_text())
    assert (manifest["rows"], manifest["ok"], manifest["errors"]) == (200, 180, 20)
    files = {str(path.relative_to(config.output)): pq.read_metadata(path).num_rows
             for path in Path(config.output, "data").iterdir()}  # fmt: skip
    assert {file["path"]: file["rows"] for file in manifest["files"]} == files


def test_what_is_scraped_is_what_is_reported(finished):
    _, _, report, published = finished
    assert published["skipvision_rows_total", "ok"] == report.ok
    assert published["skipvision_rows_total", "error"] == report.errors
    assert published["skipvision_visual_tokens_total", "skipped"] == report.tokens.skipped == 180 * 4
    assert published["skipvision_flops_total", "prefill"] == report.actual.prefill_flops
    assert published["skipvision_baseline_flops_total", "prefill"] == report.all_tokens.prefill_flops
    assert published["skipvision_stage_seconds_total", "prefill"] == pytest.approx(report.stage_seconds["prefill"])
    assert published["skipvision_job_rows", "waiting"] == 0
    ended = {reason: published["skipvision_answers_total", reason] for reason in ("stop", "length")}
    assert ended == {"stop": 0, "length": 0} | report.finish_reasons
    assert sum(ended.values()) == report.ok
    for name in ("row", "queue", "first_token"):
        assert published[f"skipvision_{name}_seconds_count",] == report.ok
    assert published["skipvision_token_gap_seconds_count",] == report.tokens.output - report.ok
    assert published["skipvision_first_token_seconds_sum",] == pytest.approx(report.row_seconds.first_token)
    assert published["skipvision_row_work_seconds_sum", "decode"] == pytest.approx(report.row_seconds.decode)
    engine = report.engine
    assert published["skipvision_engine_steps_total",] == engine.steps > 0
    assert published["skipvision_batch_slots_total", "used"] == engine.slots_used > 0
    assert published["skipvision_cache_pages_total", "held"] == engine.pages_held > 0
    assert published["skipvision_vision_cache_lookups_total", "miss"] == engine.vision_cache_misses > 0
    for code, rows in report.errors_by_code.items():
        assert published["skipvision_errors_total", code, error_stage(code)] == rows


def test_money_is_what_the_devices_were_held_for_at_the_prices_that_are_named(finished):
    _, _, report, published = finished
    [cores] = report.devices
    held = cores.engine + cores.prepare + cores.compare + cores.idle + cores.lost
    assert (cores.device, cores.capacity) == ("cpu", "on_demand")
    assert min(cores.engine, cores.prepare, cores.compare, cores.idle) > 0
    assert report.money["prices"] == "example of 2026-11-01"
    assert report.money["usd"]["spent"] == pytest.approx(held * 0.04 / 3600)
    spent = published["skipvision_cost_usd_total", "measured", "on_demand", "cpu"]
    assert spent == pytest.approx(report.money["usd"]["spent"], rel=1e-9)
    assert published["skipvision_cost_usd_total", "measured", "spot", "h200"] == 0
    busy = published["skipvision_device_seconds_total", "measured", "on_demand", "cpu", "busy"]
    assert busy == pytest.approx(cores.engine + cores.prepare + cores.compare)
    assert published["skipvision_price_usd_per_hour", "spot", "h100"] == 1.2
    assert (
        published["skipvision_price_list_timestamp_seconds", "example"] == datetime(2026, 11, 1, tzinfo=UTC).timestamp()
    )


def test_a_share_of_the_rows_is_answered_both_ways_to_measure_what_is_saved(finished):
    config, _, report, published = finished
    compared, usd = report.comparison, report.money["usd"]
    assert 2 * 25 < compared.rows <= 2 * 32, "two windows of a shard each, less the rows that are errors"
    assert compared.same < compared.rows, "random weights say something else when they see more"
    assert published["skipvision_compared_rows_total", "same"] == compared.same
    assert published["skipvision_compared_seconds_total", "all_tokens"] == compared.seconds_all_tokens > 0
    [cores] = report.devices
    rest = cores.idle + cores.lost + cores.prepare
    assert usd["measured"] == pytest.approx((rest + cores.engine * compared.ratio) * 0.04 / 3600)
    assert usd["modelled"] == pytest.approx((rest + cores.engine + cores.extra) * 0.04 / 3600)
    baseline = published["skipvision_baseline_cost_usd_total", "measured", "on_demand", "cpu"]
    assert baseline > 0, "shards are entered with what was measured by then"
    assert report.tokens.visual == 180 * 16, "what is answered to measure is no row"
    for notes in ("windows", "held", "attempts"):
        assert not any(path.is_file() for path in Path(config.output, notes).rglob("*"))


def test_a_finished_job_is_left_as_it_is(finished):
    config, _, report, _ = finished
    before = contents(Path(config.output))
    again = run(config)
    assert again.already_done
    assert (again.rows, again.tokens) == (report.rows, report.tokens)
    assert contents(Path(config.output)) == before


def test_other_settings_are_refused_on_the_same_output(finished):
    config, *_ = finished
    before = contents(Path(config.output))
    with pytest.raises(ConfigError, match="max_tokens is 5 and was 4"):
        run(JobConfig(**{**settings_of(config), "max_tokens": 5}))
    assert contents(Path(config.output)) == before


def test_an_interrupted_job_answers_only_what_is_missing(finished, tmp_path):
    config, _, report, _ = finished
    shutil.copytree(config.output, tmp_path / "out")
    for name in ("_SUCCESS", "_MANIFEST.json", "data/shard-00002.parquet", "data/shard-00005.parquet"):
        (tmp_path / "out" / name).unlink()
    kept = contents(tmp_path / "out" / "data")

    resumed = run(JobConfig(**{**settings_of(config), "output": str(tmp_path / "out"), "metrics_port": None}))

    assert resumed.resumed_shards == 5
    assert resumed.timeline[0][1] == 200 - 2 * 32
    assert (resumed.rows, resumed.ok, resumed.tokens) == (report.rows, report.ok, report.tokens)
    now = contents(tmp_path / "out" / "data")
    assert {name: now[name] for name in kept} == kept
    before, after = (
        pq.read_table(Path(output) / "data").sort_by("path") for output in (config.output, tmp_path / "out")
    )
    assert after.column("answer").equals(before.column("answer")), "greedy answers do not depend on the attempt"


def test_embedded_images_with_their_own_prompts(tmp_path, tiny_model, local_ray):
    images = [saved(picture(seed), "PNG") for seed in range(5)] + [b"", None]
    prompts = ["what ?", "who ?", None, "why ?", "where ?", "how ?", "when ?"]
    table = pa.table({"id": [f"k{n}" for n in range(7)], "image": images, "q": prompts, "empty": pa.nulls(7)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    report: JobReport = run(
        JobConfig(
            input=str(tmp_path / "in.parquet"), output=str(tmp_path / "out"), model=str(tiny_model), skip="off",
            prompt_column="q", key_column="id", rows_per_shard=3, max_tokens=3, temperature=1.0,
        )
    )  # fmt: skip
    rows = pq.read_table(tmp_path / "out" / "data").sort_by("row_key").to_pylist()
    assert [row["row_key"] for row in rows] == [f"k{n}" for n in range(7)]
    assert [row["error_code"] for row in rows] == [
        None, None, "prompt_missing", None, None, "image_empty", "image_missing",
    ]  # fmt: skip
    assert list(rows[0])[:3] == ["id", "q", "empty"], "the user's columns come first, the image's bytes do not come"
    assert report.actual == report.all_tokens


def test_rows_with_several_images_with_none_and_with_errors_share_a_shard(tmp_path, tiny_model, local_ray):
    write_good(tmp_path, 1)
    image, gone = ({"type": "image", "image": name} for name in (f"{next(tmp_path.iterdir()).name}", "gone.png"))
    contents = [
        "hello",
        [image, image, text("compare")],
        [image, text("what?")],
        [gone, image, text("what?")],
        [image, text("half a character: \ud800")],
        [image, text("and now?")],
    ]
    lines = [{"messages": [{"role": "user", "content": content}], "n": n} for n, content in enumerate(contents)]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run(
        JobConfig(
            input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out"), model=str(tiny_model), skip="6/4:plain",
            max_tokens=3,
        )
    )  # fmt: skip
    rows = pq.read_table(tmp_path / "out" / "data").sort_by("n").to_pylist()
    assert [row["error_code"] for row in rows] == [None, None, None, "image_missing", "messages_invalid", None]
    of_one_image = rows[2]["visual_tokens"]
    assert [row["visual_tokens"] or 0 for row in rows] == [0, 2 * of_one_image, of_one_image, 0, 0, of_one_image]
    assert all(row["answer"] for row in rows if row["error_code"] is None)


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def test_more_workers_than_the_ray_of_this_process_can_hold_are_refused(finished, tmp_path):
    config, *_ = finished
    crowded = JobConfig(**{**settings_of(config), "output": str(tmp_path / "out"), "workers": 6, "metrics_port": None})
    with pytest.raises(ConfigError, match="has 6 CPUs; 6 workers and a task that feeds them need 7"):
        run(crowded)


def test_a_finished_job_is_done_even_when_its_input_is_gone(finished, tmp_path):
    config, _, report, _ = finished
    source = Path(config.input).rename(tmp_path / "moved")
    try:
        assert run(config).rows == report.rows
    finally:
        source.rename(config.input)


def test_a_finished_job_does_not_pass_over_new_images_in_silence(finished):
    config, *_ = finished
    added = Path(config.input) / "new.png"
    added.write_bytes(saved(picture(), "PNG"))
    try:
        with pytest.raises(ConfigError, match=r"1 new \(.*new\.png\)"):
            run(config)
    finally:
        added.unlink()


def settings_of(config: JobConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in JobConfig.__slots__}


@pytest.fixture
def no_ray(monkeypatch):
    def started(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(pipelines.job, "cluster", started)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"input": "{tmp}/none"}, "input .*none does not exist"),
        ({"input": "{tmp}/empty"}, "is empty"),
        ({"prompt_column": "question"}, "no column 'question'"),
        ({"model": "{tmp}/no-model"}, "no-model"),
        ({"skip": "14/4:plain"}, "14 retained and 4 skipped .* 16 visual tokens"),
        ({"skip": "6/4"}, "no summary module; use 6/4:plain"),
        ({"skip": "lots"}, "skip must be"),
        ({"max_tokens": 600}, "max_tokens is 600"),
        ({"output": "{tmp}/in"}, "exists and is no job"),
        ({"output": "{tmp}/in/0.png/out"}, "cannot be written"),
        ({"prompt": "a", "prompt_column": "path"}, "contradict"),
        ({"temperature": -1.0}, "temperature"),
        ({"allow_networks": ("10.0.0.1/8",)}, "'10.0.0.1/8' is not a network"),
        ({"deny_networks": ("mine",)}, "'mine' is not a network"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tmp_path, tiny_model, no_ray, settings, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(saved(picture(), "PNG"))
    plain = {"input": "{tmp}/in", "output": "{tmp}/out", "model": str(tiny_model)} | settings
    with pytest.raises(ConfigError, match=says):
        run(JobConfig(**{k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in plain.items()}))
    assert not (tmp_path / "out").exists()
