"""Whole runs in one process: what they leave behind, what they set aside, and how they go on after a kill."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event
from transformers import LlavaForConditionalGeneration

from skipvision.cli import main
from skipvision.engine import Engine, Request, Sampling
from skipvision.errors import ConfigError
from skipvision.families import load_family
from skipvision.method.plan import SkipConfig
from skipvision.tuning import Run, tune
from skipvision.tuning.journal import StepRecord, read_set_aside, read_steps
from skipvision.tuning.plot import plot_loss
from skipvision.tuning.trainee import part_of
from tests.engine.subjects import CARRIED, picture
from tests.tiny_llava import build_tiny_llava


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).named_parameters())


def changed_parts(before: Path, after: Path) -> set[str]:
    old, new = weights(before), weights(after)
    return {part_of(name) for name in old if not torch.equal(old[name], new[name])}


def steps_without_time(folder: Path) -> list[dict[str, Any]]:
    return [{k: getattr(s, k) for k in StepRecord.__slots__ if k != "seconds"} for s in read_steps(folder)]


def events(records: bytes) -> Iterator[Event]:
    """A file of TensorBoard: each record stands behind its length and a checksum, and before another."""
    at = 0
    while at < len(records):
        (length,) = struct.unpack_from("<Q", records, at)
        yield Event.FromString(records[at + 12 : at + 12 + length])
        at += length + 16


def test_a_run_ends_in_a_checkpoint_that_learnt_and_carries_its_skip(
    prepare: Callable[..., Run], checkpoint: Path
) -> None:
    run = prepare(epochs=8)
    report = tune(run)
    model = run.folder / "model"
    assert report["steps"] == 48
    assert report["samples"] == 8 * 24
    assert report["last_loss"] < 0.5 * report["first_loss"]
    assert changed_parts(checkpoint, model) == {"projector", "decoder"}

    family = load_family(model, device="cpu", dtype="float32")
    assert family.carried_skip == CARRIED
    engine = Engine(family, skip=family.carried_skip)
    question = Request(
        prompt="what is in picture 1 ?", images=(engine.prepare(picture(1)),), sampling=Sampling(max_tokens=4)
    )
    [answer] = engine.answer([question])
    assert answer.text.strip() == "green"
    assert answer.finish_reason == "stop"


def test_the_summary_pooling_learns_and_travels(prepare: Callable[..., Run], checkpoint: Path) -> None:
    run = prepare(steps=2)
    tune(run)
    before, after = (load_file(folder / "skip_vision.safetensors") for folder in (checkpoint, run.folder / "model"))
    assert before.keys() == after.keys()
    assert not torch.equal(before["score.weight"], after["score.weight"])


def test_the_first_stage_aligns_the_projector_and_skips_nothing(prepare: Callable[..., Run], checkpoint: Path) -> None:
    run = prepare(stage="projector", steps=2)
    report = tune(run)
    assert report["skip"] == "off"
    assert changed_parts(checkpoint, run.folder / "model") == {"projector"}
    assert load_family(run.folder / "model", device="cpu").carried_skip == SkipConfig()
    assert not (run.folder / "model" / "skip_vision.safetensors").exists()


def test_adapters_end_up_in_the_weights_that_they_adapt(prepare: Callable[..., Run], checkpoint: Path) -> None:
    run = prepare(lora={"rank": 4, "alpha": 8}, train=["decoder"], steps=3)
    tune(run)
    old, new = weights(checkpoint), weights(run.folder / "model")
    assert old.keys() == new.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved
    assert all(".layers." in name and name.endswith("_proj.weight") for name in moved)
    for name in moved:
        assert torch.linalg.matrix_rank(new[name] - old[name], rtol=1e-3) <= 4


def test_a_plain_checkpoint_gets_a_summary_of_its_own(prepare: Callable[..., Run], tiny_model: Path) -> None:
    run = prepare(model=str(tiny_model), skip="4/6", steps=2)
    tune(run)
    family = load_family(run.folder / "model", device="cpu")
    assert family.carried_skip == SkipConfig.parse("4/6")
    assert family.summary is not None


def test_tiles_are_learnt_from_as_they_are_used(prepare: Callable[..., Run], tmp_path: Path) -> None:
    folder = build_tiny_llava(tmp_path / "tiled", tiled=True)
    run = prepare(model=str(folder), skip="16/12", steps=3)
    report = tune(run)
    assert report["visual_tokens"] > 16 * report["images"]
    family = load_family(run.folder / "model", device="cpu", dtype="float32")
    engine = Engine(family, skip=family.carried_skip)
    [answer] = engine.answer([Request(prompt="what ?", images=(engine.prepare(picture(0)),))])
    assert answer.plan.retained_tokens == 16


def test_bad_samples_are_set_aside_and_counted(prepare: Callable[..., Run], data: Path, tmp_path: Path) -> None:
    good = data.read_text().splitlines()
    bad = [
        '{"conversations": [',
        '{"conversations": []}',
        json.dumps({"image": "no-such.png", "conversations": json.loads(good[0])["conversations"]}),
        json.dumps({"messages": [{"role": "user", "content": "red " * 300}, {"role": "assistant", "content": "two"}]}),
        json.dumps({"image": "http://10.0.0.1/a.png", "conversations": json.loads(good[0])["conversations"]}),
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join([*good, *bad]))
    run = prepare(data=str(path), images=str(data.parent))
    report = tune(run)
    assert report["samples"] == 24
    assert report["set_aside_by_code"] == {
        "sample_invalid": 2, "image_missing": 1, "sample_too_long": 1, "url_refused": 1,
    }  # fmt: skip
    noted = {entry["sample"]: entry for entry in read_set_aside(run.folder)}
    assert noted.keys() == {24, 25, 26, 27, 28}
    assert "no-such.png" in noted[26]["message"]
    assert "max_tokens is 256" in noted[27]["message"]


def test_a_run_of_nothing_but_bad_samples_ends_and_says_so(
    prepare: Callable[..., Run], tmp_path: Path, checkpoint: Path
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"messages": 7}\n' * 6)
    run = prepare(data=str(path))
    report = tune(run)
    assert (report["samples"], report["set_aside"], report["first_loss"]) == (0, 6, None)
    assert changed_parts(checkpoint, run.folder / "model") == set()


def test_parquet_with_images_inside_teaches_what_json_lines_teach(
    prepare: Callable[..., Run], data: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for row in rows:
        name = row.pop("image", None)
        row["image"] = {"bytes": (data.parent / name).read_bytes(), "path": name} if name else None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    runs = [
        prepare(steps=2, data=str(path), output=str(tmp_path / path.suffix[1:]), batch=24)
        for path in (data, tmp_path / "rows.parquet")
    ]
    for run in runs:
        tune(run)
    for plain, columnar in zip(*(read_steps(run.folder) for run in runs), strict=True):
        assert columnar.loss == pytest.approx(plain.loss, rel=1e-5)
        assert columnar.images == plain.images


def test_processes_that_read_ahead_change_nothing(prepare: Callable[..., Run], tmp_path: Path) -> None:
    runs = [prepare(steps=3, loaders=loaders, output=str(tmp_path / str(loaders))) for loaders in (0, 2)]
    for run in runs:
        tune(run)
    assert steps_without_time(runs[0].folder) == steps_without_time(runs[1].folder)


def test_passes_are_how_a_step_is_computed_and_not_what_it_learns(prepare: Callable[..., Run], tmp_path: Path) -> None:
    runs = [prepare(steps=3, tokens_per_pass=most, output=str(tmp_path / str(most))) for most in (40, 4000)]
    for run in runs:
        tune(run)
    for many, one in zip(*(read_steps(run.folder) for run in runs), strict=True):
        assert many.loss == pytest.approx(one.loss, rel=1e-5)


def test_the_loss_is_drawn_even_where_some_steps_learnt_nothing(prepare: Callable[..., Run]) -> None:
    run = prepare(steps=3)
    tune(run)
    with Image.open(run.folder / "loss.png") as plot:
        assert np.asarray(plot.convert("L")).std() > 5  # something is drawn
    steps = read_steps(run.folder)
    plot_loss([steps[0], replace(steps[1], loss=None), steps[2]], run.folder / "gap.png")
    plot_loss([replace(step, loss=None) for step in steps], run.folder / "nothing.png")
    assert (run.folder / "gap.png").read_bytes() != (run.folder / "nothing.png").read_bytes()


def test_the_numbers_are_in_tensorboards_events_too(prepare: Callable[..., Run]) -> None:
    run = prepare(steps=3)
    tune(run)
    [path] = (run.folder / "tensorboard").iterdir()
    values = [value for event in events(path.read_bytes()) for value in event.summary.value]
    logged = [value.simple_value for value in values if value.tag == "train/loss"]
    assert logged == pytest.approx([step.loss for step in read_steps(run.folder)])


@pytest.fixture
def config_file(prepare: Callable[..., Run], tmp_path: Path) -> Path:
    config = prepare(epochs=3, save_every=3).config
    path = tmp_path / "run.yaml"
    settings = {
        name: getattr(config, name)
        for name in (
            "model",
            "data",
            "output",
            "batch",
            "epochs",
            "loaders",
            "learning_rate",
            "max_tokens",
            "save_every",
        )
    }
    path.write_text(yaml.safe_dump(settings | {"device": "cpu", "dtype": "float32"}))
    return path


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(config_file: Path, tmp_path: Path) -> None:
    assert main(["tune", str(config_file)]) == 0
    undisturbed = steps_without_time(tmp_path / "run")
    command = [sys.executable, "-m", "skipvision.cli", "tune", str(config_file), "--output", str(tmp_path / "killed")]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for kill_after in (5, 10):
        with subprocess.Popen(command, env=here, stderr=subprocess.DEVNULL) as process:
            while len(read_steps(tmp_path / "killed")) < kill_after:
                assert process.poll() is None, "the run ended before it could be killed"
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert main(["tune", str(config_file), "--output", str(tmp_path / "killed")]) == 0
    assert len(undisturbed) == 18
    assert steps_without_time(tmp_path / "killed") == undisturbed
    kept, resumed = (weights(tmp_path / name / "model") for name in ("run", "killed"))
    assert all(torch.equal(kept[name], resumed[name]) for name in kept)


def test_a_finished_run_is_not_run_again(prepare: Callable[..., Run]) -> None:
    run = prepare(steps=2)
    first = tune(run)
    written = (run.folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert tune(run) == first
    assert (run.folder / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_a_folder_of_another_run_is_refused_with_what_differs(prepare: Callable[..., Run]) -> None:
    tune(prepare(steps=1))
    with pytest.raises(ConfigError, match=r"batch was 4 and is 6"):
        tune(prepare(steps=1, batch=6))
    tune(prepare(steps=1, save_every=7, tokens_per_pass=99))  # decide how, not what


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "projector", "skip": "4/6"}, "skips nothing"),
        ({"train": []}, "nothing that learns"),
        ({"train": ["projector"], "lora": {}}, "lora adapts the decoder"),
        ({"dtype": "float16"}, "overflows"),
        ({"data": []}, "no file"),
        ({"data": "missing.jsonl"}, r"no data file missing\.jsonl"),
        ({"skip": "12/12"}, "at most 16"),
        ({"skip": "uniform:4"}, "drops tokens without training"),
        ({"max_tokens": 4096}, "holds 512"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"no_such_setting": 1}, "no_such_setting"),
        ({"lora": {"ranks": 3}}, r"lora\.ranks"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_starts(
    prepare: Callable[..., Run], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare(**changes)
    assert not (tmp_path / "run").exists()


def test_the_example_runs_as_it_is_written_but_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = (Path(__file__).parents[2] / "examples" / "tune.yaml").read_text()
    commands = [line.split()[2:] for line in example.splitlines() if line.startswith("#   skipvision")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune.yaml").write_text(example + "steps: 2\n")
    make, teach, ask = commands
    assert main([*make, "--count", "32"]) == 0
    assert main([teach[0], "tune.yaml"]) == 0
    assert main([*ask, "--items", "2", "--output", "asked"]) == 0
    trials = json.loads((tmp_path / "asked" / "summary.json").read_text())["trials"]
    assert [trial["skip"] for trial in trials] == ["off", "44/69:plain", "44/69"]


def test_training_that_diverges_says_so_and_what_to_do(
    prepare: Callable[..., Run], config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load(config_file.read_text()) | {"learning_rate": 1e30, "clip": 1e30}
    config_file.write_text(yaml.safe_dump(settings))
    assert main(["tune", str(config_file)]) == 2
    assert "lower learning_rate" in capsys.readouterr().err
