"""A bare LLaVA and a summary module for the tests of a file, and proof that each test left the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from skipvision.method.summary import SummaryPooling
from tests.families.patch_cases import as_batch, one_image_prompt, traces
from tests.method.bare_llava import bare_llava, random_images


@pytest.fixture(scope="module")
def shared_model() -> Any:
    model = bare_llava()
    with torch.no_grad():  # transformers hooks its own modules on their first use
        model(input_ids=as_batch(one_image_prompt()), pixel_values=random_images(1))
    return model


@pytest.fixture
def model(shared_model: Any) -> Any:
    """The shared model, checked to leave the test as it came."""
    before = traces(shared_model)
    yield shared_model
    shared_model.zero_grad()
    assert traces(shared_model) == before


@pytest.fixture(scope="module")
def summary() -> SummaryPooling:
    torch.manual_seed(4)
    pooling = SummaryPooling(48)
    torch.nn.init.normal_(pooling.score.weight)
    return pooling
