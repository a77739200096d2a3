"""The frozen input: shards of fixed content, keys that name each row once, and a plan that the first one makes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import obstore
import pyarrow as pa
import pytest
from obstore.store import from_url

from pipelines.folder import JobFolder
from pipelines.freeze import check_same_input, freeze
from pipelines.frozen import ROW, frozen_name, read_table
from pipelines.layout import sweep
from pipelines.model import ChosenModel
from pipelines.plan import JobPlan, check_same_job, read_plan
from pipelines.result_rows import ROW_KEY
from pipelines.sources import find_source
from pipelines.tables import open_table
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.method.plan import SkipConfig

MODEL = ChosenModel(location="m", name="m", skip=SkipConfig(), identity={"revision": "1"})


def config_of(tmp_path: Path, *rows: dict, **settings: object) -> JobConfig:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JobConfig(input=str(source), output=str(tmp_path / "out"), **{"rows_per_shard": 3, **settings})


def frozen(config: JobConfig) -> tuple[JobFolder, JobPlan]:
    folder = JobFolder(config.output)
    return folder, freeze(open_table(find_source(config.input), config), config, MODEL, folder)


def shards(folder: JobFolder, plan: JobPlan) -> list[pa.Table]:
    return [read_table(folder, frozen_name(plan.input_id, shard)) for shard in range(plan.shards)]


SEVEN = [{"image": f"{n}.jpg", "id": f"k{n}"} for n in range(7)]


def test_the_input_is_cut_into_shards_of_equal_size(tmp_path):
    folder, plan = frozen(config_of(tmp_path, *SEVEN))
    tables = shards(folder, plan)
    assert [len(table) for table in tables] == [3, 3, 1] == [plan.rows_in(shard) for shard in range(plan.shards)]
    assert pa.concat_tables(tables).column("image").to_pylist() == [row["image"] for row in SEVEN]


def test_made_keys_are_all_different_and_always_the_same(tmp_path):
    rows = [{"image": "same.jpg"}] * 5
    keys = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        folder, plan = frozen(config_of(tmp_path / attempt, *rows))
        keys.append(pa.concat_tables(shards(folder, plan)).column(ROW_KEY).to_pylist())
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 5


def test_a_key_column_names_the_rows(tmp_path):
    folder, plan = frozen(config_of(tmp_path, *SEVEN, key_column="id"))
    assert pa.concat_tables(shards(folder, plan)).column(ROW_KEY).to_pylist() == [f"k{n}" for n in range(7)]


@pytest.mark.parametrize(
    ("third", "says"),
    [({"image": "c", "id": "k0"}, "more than one row 'k0'"), ({"image": "c"}, "rows without a key")],
)
def test_keys_that_name_no_row_or_two_are_refused(tmp_path, third, says):
    with pytest.raises(ConfigError, match=says):
        frozen(config_of(tmp_path, *SEVEN, third, key_column="id"))


def test_columns_that_the_job_writes_itself_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="writes itself: answer, seconds"):
        frozen(config_of(tmp_path, {"image": "a", "answer": "x", "seconds": 1}))


def test_the_keys_of_an_earlier_job_can_be_kept(tmp_path):
    folder, plan = frozen(config_of(tmp_path, {"image": "a", "row_key": "x"}, key_column="row_key"))
    assert (plan.schema.names, shards(folder, plan)[0].column(ROW_KEY).to_pylist()) == (["image"], ["x"])


def test_an_input_without_rows_is_refused(tmp_path):
    config = config_of(tmp_path)
    Path(config.input).write_text('\n{"image": "a"}\n')
    table = open_table(find_source(config.input), config)
    Path(config.input).write_text("\n")
    with pytest.raises(ConfigError, match="hold no rows"):
        freeze(table, config, MODEL, JobFolder(config.output))


def test_the_plan_comes_back_as_it_was_written(tmp_path):
    folder, plan = frozen(config_of(tmp_path, *SEVEN))
    assert read_plan(folder) == plan


def test_whoever_plans_second_works_by_the_first_plan(tmp_path):
    config = config_of(tmp_path, *SEVEN)
    folder, first = frozen(config)
    _, second = frozen(config)
    assert second == first
    sweep(folder, keep_input=first.input_id)
    assert {name.split("/")[1] for name in folder.names("input")} == {first.input_id}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_tokens": 9}, "max_tokens is 9 and was 128"),
        ({"prompt": "Why?"}, "prompt is 'Why\\?' and was None"),
        ({"seed": 1, "skip": "off"}, "skip is 'off' and was 'auto'; seed is 1 and was 0"),
        ({"rows_per_shard": 2}, "rows_per_shard is 2 and was 3"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, settings, says):
    _, plan = frozen(config_of(tmp_path, *SEVEN))
    with pytest.raises(ConfigError, match=says):
        check_same_job(plan, config_of(tmp_path, *SEVEN, **settings), MODEL)


def test_settings_that_decide_no_answer_may_change(tmp_path):
    _, plan = frozen(config_of(tmp_path, *SEVEN))
    check_same_job(plan, config_of(tmp_path, *SEVEN, workers=3, max_running=2, device="cpu", metrics_port=0), MODEL)


def test_another_checkpoint_under_the_same_name_is_refused(tmp_path):
    _, plan = frozen(config_of(tmp_path, *SEVEN))
    other = ChosenModel(location="m", name="m", skip=SkipConfig(), identity={"revision": "2"})
    with pytest.raises(ConfigError, match="files of model m have changed"):
        check_same_job(plan, config_of(tmp_path, *SEVEN), other)


def test_a_changed_input_is_named(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_text(name)
    folder, plan = frozen(JobConfig(input=str(tmp_path / "photos"), output=str(tmp_path / "out")))
    check_same_input(plan, find_source(str(tmp_path / "photos")), folder)

    os.utime(tmp_path / "photos" / "a.jpg", (1, 1))
    (tmp_path / "photos" / "b.jpg").unlink()
    (tmp_path / "photos" / "d.jpg").touch()
    with pytest.raises(ConfigError, match=r"1 changed \(.*a.jpg\); 1 new \(.*d.jpg\); 1 gone \(.*b.jpg\)"):
        check_same_input(plan, find_source(str(tmp_path / "photos")), folder)


def test_a_changed_object_is_named(tmp_path, s3):
    store = from_url(s3)
    for name in ("a.jpg", "b.jpg"):
        obstore.put(store, f"photos/{name}", name.encode())
    folder, plan = frozen(JobConfig(input=f"{s3}/photos", output=str(tmp_path / "out")))
    obstore.put(store, "photos/b.jpg", b"b.jpg")
    check_same_input(plan, find_source(f"{s3}/photos"), folder)

    obstore.put(store, "photos/a.jpg", b"A.jpg")
    with pytest.raises(ConfigError, match=r"1 changed \(s3://.*a.jpg\)"):
        check_same_input(plan, find_source(f"{s3}/photos"), folder)


def test_a_finished_job_does_not_miss_its_input(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).touch()
    folder, plan = frozen(JobConfig(input=str(tmp_path / "photos"), output=str(tmp_path / "out")))
    (tmp_path / "photos" / "b.jpg").unlink()
    check_same_input(plan, find_source(str(tmp_path / "photos")), folder, finished=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not json", "is something else"),
        (b"{}", "is something else"),
        (b'{"format": "skipvision job", "version": 9}', "a job of format 9"),
    ],
)
def test_a_plan_of_another_program_or_version_is_refused(tmp_path, content, says):
    folder = JobFolder(str(tmp_path))
    folder.create("plan.json", content)
    with pytest.raises(ConfigError, match=says):
        read_plan(folder)


QUESTIONS = [{"image": image, "q": q, "id": f"{q}{image}"} for q in "123" for image in ("a.jpg", "b.jpg", "c.jpg")]


def test_rows_about_an_image_stand_together_and_remember_where_they_came_from(tmp_path):
    folder, plan = frozen(config_of(tmp_path, *QUESTIONS, key_column="id"))
    rows = pa.concat_tables(shards(folder, plan)).to_pylist()
    assert plan.is_regrouped
    assert [row["id"] for row in rows] == ["1a.jpg", "2a.jpg", "3a.jpg", "1b.jpg", "2b.jpg", "3b.jpg", "1c.jpg",
                                           "2c.jpg", "3c.jpg"]  # fmt: skip
    assert [QUESTIONS[row[ROW]]["id"] for row in rows] == [row[ROW_KEY] for row in rows]


def test_made_keys_are_those_of_the_inputs_order(tmp_path):
    keys = {}
    for group in (True, False):
        (tmp_path / str(group)).mkdir()
        folder, plan = frozen(config_of(tmp_path / str(group), *QUESTIONS, group_images=group))
        rows = pa.concat_tables(shards(folder, plan)).to_pylist()
        keys[group] = {row["id"]: row[ROW_KEY] for row in rows}
    assert keys[True] == keys[False]


def test_an_input_whose_rows_stand_together_already_is_left_as_it_is(tmp_path):
    by_image = sorted(QUESTIONS, key=lambda row: row["image"])
    folder, plan = frozen(config_of(tmp_path, *by_image))
    assert not plan.is_regrouped
    assert pa.concat_tables(shards(folder, plan)).column("id").to_pylist() == [row["id"] for row in by_image]


def test_lines_of_a_batch_need_a_custom_id_that_is_theirs_alone(tmp_path):
    def line(custom_id):
        return {"custom_id": custom_id, "body": {"messages": [{"role": "user", "content": "hello"}]}}

    folder, plan = frozen(config_of(tmp_path, line("a"), line("b")))
    assert pa.concat_tables(shards(folder, plan)).column(ROW_KEY).to_pylist() == ["a", "b"]
    for number, ids in enumerate((("a", "a"), ("a", None))):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ConfigError, match="key column 'custom_id'"):
            frozen(config_of(tmp_path / str(number), *map(line, ids)))
