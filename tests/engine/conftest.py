"""One tiny checkpoint for all engine tests, in float32: once as the engine sees it, once as transformers does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from skipvision.families import Family, load_family
from skipvision.families.checkpoint import save_skip
from skipvision.method.summary import SummaryPooling
from tests.engine.subjects import CARRIED, as_stock
from tests.tiny_llava import build_tiny_llava


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 16 visual tokens per image that carries `CARRIED` and a summary module."""
    folder = build_tiny_llava(tmp_path_factory.mktemp("tiny"))
    torch.manual_seed(1)
    summary = SummaryPooling(64)
    torch.nn.init.normal_(summary.score.weight)
    save_skip(folder, CARRIED, summary)
    return folder


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a summary module, carrying nothing."""
    return build_tiny_llava(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def family(folder: Path) -> Family:
    return load_family(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def plain_family(plain_folder: Path) -> Family:
    return load_family(plain_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def stock(folder: Path) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def stock_inputs(folder: Path) -> Callable[[str, Sequence[np.ndarray]], dict[str, Any]]:
    """What the stock processor makes of a prompt and pictures."""
    return partial(as_stock, AutoProcessor.from_pretrained(folder))
