"""Which model a job uses, checked against the job's settings before anything starts, and what identifies it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipvision.config import JobConfig
from skipvision.errors import ConfigError
from skipvision.families.checkpoint import (
    DEFAULT_MODEL,
    check_vision_side,
    choose_skip,
    load_summary,
    read_config,
    resolve_model,
    visual_tokens,
)
from skipvision.method.flops import DecoderShape
from skipvision.method.plan import SkipConfig, plan_prompt

_WHOLE_BYTES = 256 * 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenModel:
    """A checkpoint and the skip setting it will run with, known to fit each other."""

    location: str
    """Folder or hub id to load from."""
    name: str
    """What the user calls it."""
    skip: SkipConfig
    identity: Mapping[str, Any]
    """Revision or hashes: another checkpoint under the same name differs here."""
    retained_share: float = 1.0
    """Of an image's visual tokens, with this setting."""


def choose_model(config: JobConfig) -> ChosenModel:
    """Find the job's model; reads its config files and hashes its weights, loads none.

    Raises:
        ConfigError: there is no such model, or the skip setting or `max_tokens` do not fit it.
    """
    name = config.model or DEFAULT_MODEL
    location = resolve_model(name)
    if os.path.isdir(location):
        location = os.path.abspath(location)
    checkpoint = read_config(location)
    skip = choose_skip(config.skip, checkpoint)
    shape = DecoderShape.from_config(checkpoint.text_config.to_dict())
    plan = plan_prompt(skip, text_tokens=0, visual_tokens=(visual_tokens(checkpoint),))
    if plan.summary_tokens and load_summary(location, shape.hidden) is None:
        raise ConfigError(
            f"skip {skip.describe()} needs summary tokens and model {name} has no summary module; use "
            f"{skip.describe()}:plain, or a checkpoint fine-tuned with Skip-Vision"
        )
    check_vision_side(skip, checkpoint)
    room = int(checkpoint.text_config.max_position_embeddings) - plan.prompt_tokens
    if config.max_tokens >= room:
        raise ConfigError(
            f"max_tokens is {config.max_tokens}, and an image leaves {max(room, 0)} tokens of the model's context for "
            "prompt and answer; ask for fewer"
        )
    identity = _folder_identity(Path(location)) if os.path.isdir(location) else _hub_identity(checkpoint)
    return ChosenModel(
        location=location,
        name=name,
        skip=skip,
        retained_share=plan.retained_tokens / plan.visual_tokens,
        identity=identity,
    )


def _folder_identity(folder: Path) -> dict[str, Any]:
    """Hashes of what decides answers: config, processor and tokenizer files, and weights."""
    files = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".jinja", ".safetensors", ".model"})
    return {"files": {path.name: {"size_bytes": path.stat().st_size, "sha256": hash_of_file(path)} for path in files}}


def _hub_identity(checkpoint: Any) -> dict[str, Any]:
    """The commit that the hub id stands for on this machine."""
    return {"revision": getattr(checkpoint, "_commit_hash", None)}


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file, or of pieces spread evenly over one that would take long to read."""
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        for piece in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * piece // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
