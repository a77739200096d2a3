"""Which model a job uses: found, checked against the settings, and known again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.model import choose_model, hash_of_file
from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.families.checkpoint import save_skip
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling


@pytest.fixture
def own_model(tmp_path, tiny_model) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def config_of(model: Path | str, **settings: object) -> JobConfig:
    return JobConfig(input="in", output="out", model=str(model), **settings)


def test_auto_is_what_the_checkpoint_carries(own_model):
    assert choose_model(config_of(own_model)).skip == SkipConfig()
    carried = SkipConfig(retain=6, merge_skipped_to=4, summarise=True, forget_skipped=True)
    save_skip(own_model, carried, SummaryPooling(64))
    assert choose_model(config_of(own_model)).skip == carried
    assert choose_model(config_of(own_model, skip="off")).skip == SkipConfig()


def test_a_checkpoint_is_known_again_and_a_changed_one_is_not(own_model):
    identity = choose_model(config_of(own_model)).identity
    assert choose_model(config_of(own_model)).identity == identity
    weights = own_model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert choose_model(config_of(own_model)).identity != identity


def test_a_changed_chat_template_is_another_model(own_model):
    identity = choose_model(config_of(own_model)).identity
    (own_model / "chat_template.jinja").write_text("{{ messages }}")
    assert choose_model(config_of(own_model)).identity != identity


@pytest.mark.parametrize("place", [0, 100_000, -1])
def test_large_files_are_hashed_by_pieces_from_end_to_end(tmp_path, monkeypatch, place):
    monkeypatch.setattr("pipelines.model._WHOLE_BYTES", 0)
    monkeypatch.setattr("pipelines.model._SAMPLE_BYTES", 4096)
    content = bytearray(200_000)
    (tmp_path / "a").write_bytes(content)
    content[place] ^= 1
    (tmp_path / "b").write_bytes(content)
    assert hash_of_file(tmp_path / "a") != hash_of_file(tmp_path / "b")


def test_an_unknown_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        choose_model(config_of(tmp_path / "nowhere"))
