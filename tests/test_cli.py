"""The commands: what they print for people and for programs, and how they end."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skipvision import __version__
from skipvision.cli import main
from skipvision.commands.run import run, settings_of
from skipvision.config import JobConfig
from skipvision.errors import ConfigError, JobStoppedError
from tests.tiny_llava import build_tiny_llava

ROOT = Path(__file__).parents[1]

LLAVA_LLAMA3_8B = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14},
    "text_config": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    """A config.json in the shape of LLaVA with LLaMA3-8B: 576 visual tokens, no weights anywhere."""
    path = tmp_path_factory.mktemp("llava") / "config.json"
    path.write_text(json.dumps(LLAVA_LLAMA3_8B))
    return path


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    return build_tiny_llava(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return path


def printed_json(capsys, *arguments: Any) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("skip", "paper", "causal", "dense"),
    [("100/156", 0.251, 0.342, 0.342), ("256/320", 0.605, 0.625, 0.630)],
)
def test_plan_gives_the_published_ratios_from_a_config_alone(capsys, llava, skip, paper, causal, dense):
    bill = printed_json(capsys, "plan", "--model", llava, "--skip", skip, "--text-tokens", 100)
    assert {name: round(ratio, 3) for name, ratio in bill["prefill_ratio"].items()} == {
        "paper": paper,
        "causal": causal,
        "dense": dense,
    }


@pytest.mark.parametrize("skip", ["100/156", "uniform:64", "resize:64"])
def test_plan_loses_no_visual_token(capsys, llava, skip):
    tokens = printed_json(capsys, "plan", "--model", llava, "--skip", skip, "--images", 2)["tokens"]
    assert sum(tokens[fate] for fate in ("retained", "skipped", "merged", "dropped")) == tokens["visual"] == 2 * 576
    assert tokens["prompt"] == 100 + tokens["retained"] + tokens["skipped"] + tokens["summary"]
    assert tokens["cached"] == tokens["prompt"] - tokens["skipped"]


def test_plan_counts_the_kv_cache_of_llama3_8b_at_128_kib_a_token(capsys, llava):
    bill = printed_json(capsys, "plan", "--model", llava, "--skip", "off", "--text-tokens", 24)
    assert bill["kv_bytes"] == 600 * 128 * 1024


def test_skipping_nothing_costs_what_all_tokens_cost(capsys, llava):
    bill = printed_json(capsys, "plan", "--model", llava, "--skip", "off")
    assert {*bill["prefill_ratio"].values(), bill["decode_ratio"], bill["kv_ratio"]} == {1.0}


def test_plan_takes_auto_to_be_what_the_checkpoint_carries(capsys, llava, tmp_path):
    assert printed_json(capsys, "plan", "--model", llava)["skip"] == "off"
    carried = {"retain": 64, "merge_skipped_to": 156, "summarise": True, "forget_skipped": True}
    (tmp_path / "config.json").write_text(json.dumps(LLAVA_LLAMA3_8B | {"skip_vision": carried}))
    assert printed_json(capsys, "plan", "--model", tmp_path)["skip"] == "64/156"


def test_the_table_of_plan_holds_the_numbers_of_its_json(capsys, llava):
    arguments = ["plan", "--model", str(llava), "--skip", "100/156"]
    bill = printed_json(capsys, *arguments)
    assert main(arguments) == 0
    table = capsys.readouterr().out
    for number in (*bill["prefill_ratio"].values(), bill["decode_ratio"], bill["kv_ratio"]):
        assert f"{number:.3f}" in table
    for convention in bill["prefill_ratio"]:
        assert f"({convention})" in table, "no figure without its convention"


def test_more_tokens_than_the_image_has_are_refused_naming_both(capsys, llava):
    assert main(["plan", "--model", str(llava), "--skip", "500/156"]) == 2
    said = capsys.readouterr()
    assert all(number in said.err for number in ("500", "156", "576"))
    assert said.out == ""
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "--model", "{llava}", "--skip", "many"], "skip must be 'off'"),
        (["plan", "--model", "{folder}"], "no config.json"),
        (["answer", "{folder}/absent.png", "What is this?"], "there is no such file"),
        (["run", "--input", "x", "--output", "y", "--max-tokens", "0"], "max_tokens"),
        (["run"], "output"),
        (["run", "{folder}/absent.yaml"], "absent.yaml cannot be read"),
        (["plan", "--no-such-flag"], "No such option"),
        (["fly"], "No such command"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_says_why_on_stderr(capsys, tmp_path, llava, arguments, says):
    assert main([argument.format(folder=tmp_path, llava=llava) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""


def test_what_can_be_tried_again_ends_with_3_and_says_so(capsys, monkeypatch):
    def stop() -> None:
        raise JobStoppedError("the job stopped: the disk is full")

    monkeypatch.setattr("skipvision.cli.app", lambda args: stop())
    assert main(["metrics"]) == 3
    assert capsys.readouterr().err == "skipvision: the job stopped: the disk is full\n"


@pytest.mark.parametrize(("raised", "code"), [("RuntimeError('odd')", 1), ("KeyboardInterrupt", 130)])
def test_a_failure_ends_with_1_and_an_interrupt_with_130(raised, code):
    script = (
        "import skipvision.metrics as metrics\n"
        "from skipvision.cli import main\n"
        f"def catalogue_page(): raise {raised}\n"
        "metrics.catalogue_page = catalogue_page\n"
        "raise SystemExit(main(['metrics']))"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == code
    assert ("RuntimeError: odd" in ran.stderr) == (code == 1), "only an unexpected failure shows where it was"


def test_answer_gives_the_answer_alone_on_stdout(capsys, tiny_model, picture):
    question = ["answer", str(picture), "what is in the picture ?", "--model", str(tiny_model), "--max-tokens", "5"]
    given = printed_json(capsys, *question)
    assert main(question) == 0
    assert capsys.readouterr().out == given["answer"] + "\n"
    assert given["output_tokens"] <= 5


@pytest.mark.parametrize(
    ("skip", "expected"), [("4/6:plain", [4, 6, 6, 0]), ("saliency:5", [5, 0, 0, 11]), ("resize:9", [9, 0, 0, 7])]
)
def test_answer_skips_as_it_is_told(capsys, tiny_model, picture, skip, expected):
    given = printed_json(capsys, "answer", picture, "what is this", "--model", tiny_model, "--skip", skip)
    assert [given[f"{fate}_tokens"] for fate in ("retained", "skipped", "merged", "dropped")] == expected
    assert given["skip"] == skip


def test_metrics_prints_the_page_in_docs(capsys):
    assert main(["metrics"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "metrics.md").read_text()


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"skipvision {__version__}\n"


def test_every_setting_of_a_job_is_a_flag_and_every_flag_a_setting():
    flags = set(inspect.signature(run).parameters) - {"job_file", "json"}
    assert flags == {field.name for field in fields(JobConfig)}


def test_flags_stand_above_the_job_file(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("input: images\noutput: answers\nmax_tokens: 40\nseed: 3\n")
    assert settings_of(job, {"max_tokens": 50, "stop": []}) == JobConfig(
        input="images", output="answers", max_tokens=50, seed=3
    )


def test_flags_alone_make_the_same_job_as_the_file(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("input: images\noutput: answers\nskip: off\nstop: [a, b]\n")
    flags = {"input": "images", "output": "answers", "skip": "off", "stop": ["a", "b"], "model": None}
    assert settings_of(job, {}) == settings_of(None, flags)


def test_a_key_that_no_job_has_is_refused_with_its_path(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text("input: images\noutput: answers\nmax_token: 40\n")
    with pytest.raises(ConfigError, match=r"job\.yaml is not a valid JobConfig:\n  max_token: "):
        settings_of(job, {})


def test_a_job_with_error_rows_ends_with_0_and_prints_its_report(capsys, tmp_path, tiny_model, picture):
    images, output = tmp_path / "images", tmp_path / "answers"
    images.mkdir()
    picture.rename(images / "red.png")
    (images / "empty.png").touch()
    job = ["run", "--input", images, "--output", output, "--model", tiny_model, "--max-tokens", 2]
    report = printed_json(capsys, *job)
    assert report == json.loads((output / "report.json").read_text())
    assert (report["rows"], report["ok"], report["errors_by_code"]) == (2, 1, {"image_empty": 1})

    assert main(["results", str(output), "--to", "csv", "--output", str(tmp_path / "answers.csv")]) == 0
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 3

    assert main([*map(str, job)]) == 0, "done already is done"
    assert "image_empty" in capsys.readouterr().out
