"""Kinds of VLM over transformers: which there are, and how a checkpoint of one is loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlavaConfig, LlavaNextConfig

from skipvision.errors import ConfigError
from skipvision.families.chain_of_sight import CosFamily
from skipvision.families.checkpoint import carried_scales, read_config, resolve_model
from skipvision.families.family import (
    Attend,
    ConversationTokens,
    EncodedImages,
    Family,
    ImagePreparer,
    PromptTokens,
    TrainableFamily,
)
from skipvision.families.llava import LlavaFamily, load_processor
from skipvision.families.llava_next import LlavaNextFamily
from skipvision.families.patch import skipping
from skipvision.families.prompt import PromptTokenizer

__all__ = [
    "Attend",
    "ConversationTokens",
    "EncodedImages",
    "Family",
    "ImagePreparer",
    "PromptTokenizer",
    "PromptTokens",
    "TrainableFamily",
    "load_family",
    "load_preparer",
    "load_prompts",
    "skipping",
]

FAMILIES: dict[str, type[LlavaFamily]] = {"llava": LlavaFamily, "llava_next": LlavaNextFamily}
"""By the `model_type` of a checkpoint's config."""


def family_of(config: LlavaConfig | LlavaNextConfig) -> type[LlavaFamily]:
    """What runs a checkpoint of this config."""
    return CosFamily if carried_scales(config) else FAMILIES[config.model_type]


def load_family(model: str | Path | None, *, device: str = "auto", dtype: str = "auto") -> TrainableFamily:
    """Load a checkpoint folder or hub id: safetensors only, no remote code.

    Args:
        model: folder or hub id; `zoo` or None is the small model that ships with the package.
        device: `auto` is the GPU if there is one, else the CPU; or any torch device name.
        dtype: `auto` is bfloat16 where the device computes in it, else float32; or a torch dtype name.

    Raises:
        ConfigError: unknown model, unsupported architecture, device or dtype.
    """
    config = read_config(model)
    model = resolve_model(model)
    where = choose_device(device)
    return family_of(config)(model, config, device=where, dtype=choose_dtype(dtype, where))


def load_preparer(model: str | Path | None) -> ImagePreparer:
    """The CPU side of a checkpoint: reads config and processor files, no weights.

    Raises:
        ConfigError: unknown model or unsupported architecture.
    """
    config = read_config(model)
    return family_of(config).preparer_of(load_processor(resolve_model(model)).image_processor, config)


def load_prompts(model: str | Path | None) -> PromptTokenizer:
    """Tokenizer and chat template of a checkpoint: reads config and processor files, no weights.

    Raises:
        ConfigError: unknown model or unsupported architecture, or it has no chat template.
    """
    config = read_config(model)
    return PromptTokenizer(load_processor(resolve_model(model)), image_token_id=config.image_token_id)


def choose_device(name: str) -> torch.device:
    """`auto` or a torch device name -> a device that is there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda', perhaps with a number; got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name!r} was asked for and this machine has no usable CUDA device; use 'cpu'")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` or a name -> a dtype; a CPU without bfloat16 units would emulate it hundreds of times slower."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name in known:
        return known[name]
    if name != "auto":
        raise ConfigError(f"dtype must be 'auto' or one of {', '.join(known)}; got {name!r}")
    native = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32
