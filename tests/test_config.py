"""Settings: read once, strictly, and refused with the path of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from skipvision.config import JobConfig, check, load
from skipvision.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def test_a_file_says_what_the_settings_are(tmp_path):
    config = load(written(tmp_path, "input: photos\noutput: out\nskip: 44/69\nstop: ['.', end]\ntop_k: 5\n"), JobConfig)
    assert config == JobConfig(input="photos", output="out", skip="44/69", stop=(".", "end"), top_k=5)


def test_a_bare_off_is_the_word_off(tmp_path):
    assert load(written(tmp_path, "input: a\noutput: b\nskip: off\n"), JobConfig).skip == "off"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("rows_per_bach: 3", "rows_per_bach: Unexpected keyword argument"),
        ("max_tokens: 0", "max_tokens: .* greater than or equal to 1"),
        ("temperature: -1", "temperature: .* greater than or equal to 0"),
        ("temperature: .inf", "temperature: .* finite"),
        ("top_p: 0", "top_p: .* greater than 0"),
        ("top_k: many", "top_k: .* valid integer"),
        ("stop: ['']", "stop.0: .* at least 1 character"),
        ("rows_per_shard: 5000", "rows_per_shard: .* less than or equal to 4096"),
        ("prompt: hi\nprompt_column: q", "contradict"),
        ("prompt: '  '", "prompt is blank"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, lines, says):
    with pytest.raises(ConfigError, match=says):
        load(written(tmp_path, f"input: a\noutput: b\n{lines}\n"), JobConfig)


def test_all_problems_are_told_at_once(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        load(written(tmp_path, "input: a\nmax_tokens: 0\nworkers: none\n"), JobConfig)
    assert all(name in str(refusal.value) for name in ("job.yaml", "output", "max_tokens", "workers"))


@pytest.mark.parametrize("text", ["- a list", "{unclosed", "input: \x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        load(written(tmp_path, text), JobConfig)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml", JobConfig)


def test_settings_from_elsewhere_name_their_origin():
    with pytest.raises(ConfigError, match="the command line is not a valid JobConfig"):
        check({"input": "a"}, JobConfig, origin="the command line")
