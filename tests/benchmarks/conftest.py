"""A model that loads and answers in no time, in the shape that the benchmarks measure."""

from __future__ import annotations

import pytest
from transformers import LlavaConfig

from benchmarks.random_llava import small


@pytest.fixture(scope="session")
def tiny_config() -> LlavaConfig:
    """576 visual tokens, and little else."""
    config = small()
    for part, sizes in (
        (config.text_config, {"hidden_size": 96, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}),
        (config.vision_config, {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}),
    ):
        for name, size in sizes.items():
            setattr(part, name, size)
    return config
