"""A tiny checkpoint and a few conversations about pictures, as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skipvision.config import check
from skipvision.families.checkpoint import save_skip
from skipvision.method.summary import SummaryPooling
from skipvision.tuning import Run, TuneConfig
from tests.engine.subjects import CARRIED, picture
from tests.tiny_llava import build_tiny_llava

COLOURS = ("red", "green", "blue", "yellow")


def conversation(at: int) -> dict[str, Any]:
    """A sample in LLaVA's format: every third one has two turns, every fifth no image."""
    colour = COLOURS[at % 4]
    turns = [{"from": "human", "value": f"<image>\nwhat is in picture {at % 10} ?"}, {"from": "gpt", "value": colour}]
    if at % 3 == 0:
        turns += [{"from": "human", "value": "how many ?"}, {"from": "gpt", "value": f"there are two {colour} star"}]
    if at % 5 == 4:
        turns[0]["value"] = "describe the left of the right"
        return {"id": str(at), "conversations": turns}
    return {"id": str(at), "image": f"pictures/{at % 8}.png", "conversations": turns}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 16 visual tokens per image that carries `CARRIED` and a summary module."""
    folder = build_tiny_llava(tmp_path_factory.mktemp("checkpoint"))
    save_skip(folder, CARRIED, SummaryPooling(64))
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 conversations as JSON lines, and the pictures that they name."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "pictures").mkdir()
    for at in range(8):
        Image.fromarray(picture(at)).save(folder / "pictures" / f"{at}.png")
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(conversation(at)) + "\n" for at in range(24)))
    return path


@pytest.fixture
def prepare(checkpoint: Path, data: Path, tmp_path: Path) -> Callable[..., Run]:
    """A run over the conversations, small and quick unless told otherwise."""

    def prepare(**changes: Any) -> Run:
        settings = {
            "model": str(checkpoint), "data": str(data), "output": str(tmp_path / "run"), "batch": 4, "loaders": 0,
            "learning_rate": 2e-3, "max_tokens": 256, "device": "cpu", "dtype": "float32", "save_every": 2,
        }  # fmt: skip
        return Run.prepare(check(settings | changes, TuneConfig, origin="the test"))

    return prepare
