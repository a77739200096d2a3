"""From what was learnt to a checkpoint folder that transformers loads, and that carries its SkipConfig."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from skipvision.families import load_family
from skipvision.families.checkpoint import CONFIG_KEY, read_config, save_skip
from skipvision.families.llava import load_processor
from skipvision.tuning.trainee import Trainee

if TYPE_CHECKING:
    from skipvision.tuning.run import Run


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Whole tensors of what learnt, on the CPU, by their names in `Trainee`; all processes give their part."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    state: Any = get_model_state_dict(module, options=options)
    whole: dict[str, Tensor] = state
    return whole


def export(run: Run, state: dict[str, Tensor], folder: Path) -> None:
    """Put what was learnt into the model it began with, and save that in its own dtype.

    Args:
        state: of `trained_state`.
        folder: replaced when the new one is whole.
    """
    dtype = str(read_config(run.model).dtype or "float32").removeprefix("torch.")
    family = load_family(run.model, device="cpu", dtype=dtype)
    trainee = Trainee(family, run.skip, learning=run.config.learning, lora=run.config.lora)
    odd = trainee.load_state_dict(state, strict=False).unexpected_keys
    if odd:
        raise RuntimeError(f"the trained model has tensors that the saved one lacks: {', '.join(odd[:5])}")
    model: Any = trainee.merged()
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    if hasattr(model.config, CONFIG_KEY):
        delattr(model.config, CONFIG_KEY)  # what it was trained with before
    model.save_pretrained(fresh)
    load_processor(run.model).save_pretrained(fresh)
    family.save_extra(fresh)
    if not run.skip.is_off:
        save_skip(fresh, run.skip, trainee.summary)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
