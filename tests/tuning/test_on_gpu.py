"""The same fine-tuning on the GPU and on the CPU, where there is a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from skipvision.engine import Engine, Request, Sampling
from skipvision.families import load_family
from skipvision.tuning import Run, tune
from skipvision.tuning.journal import StepRecord, read_steps
from tests.engine.subjects import picture

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

KINDS: dict[str, dict[str, Any]] = {
    "whole weights": {},
    "a summary too, and forgetting": {"forgetting": True, "gradient_checkpointing": True},
    "without checkpointing": {"gradient_checkpointing": False},
    "all tokens": {"skip": "off"},
    "adapters": {"lora": {"rank": 4}},
    "the tower too": {"train": ["tower", "projector", "decoder"]},
}


@pytest.fixture(autouse=True)
def exact_convolutions() -> Iterator[None]:
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_each_step_has_the_loss_that_it_has_on_a_cpu(
    prepare: Callable[..., Run], tmp_path: Path, kind: str
) -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        run = prepare(device=device, output=str(tmp_path / device), **KINDS[kind])
        tune(run)
        losses[device] = [step.loss for step in read_steps(run.folder)]
    assert len(losses["cpu"]) == 6
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


def test_in_bfloat16_it_learns_as_well_and_what_it_learnt_can_be_asked(
    prepare: Callable[..., Run], tmp_path: Path
) -> None:
    reports = {
        dtype: tune(prepare(device="cuda", dtype=dtype, epochs=8, output=str(tmp_path / dtype)))
        for dtype in ("float32", "bfloat16")
    }
    assert reports["bfloat16"]["last_loss"] < 0.5 * reports["bfloat16"]["first_loss"]
    assert reports["bfloat16"]["last_loss"] == pytest.approx(reports["float32"]["last_loss"], rel=0.25)
    engine = Engine(load_family(tmp_path / "bfloat16" / "model", device="cuda", dtype="bfloat16"))
    asked = Request(
        prompt="what is in picture 1 ?", images=(engine.prepare(picture(1)),), sampling=Sampling(max_tokens=4)
    )
    [answer] = engine.answer([asked])
    assert answer.output_ids


def test_started_again_from_a_checkpoint_it_takes_the_steps_that_it_would_have_taken(
    prepare: Callable[..., Run], tmp_path: Path
) -> None:
    whole = prepare(device="cuda", output=str(tmp_path / "whole"), steps=6)
    tune(whole)
    cut = prepare(device="cuda", output=str(tmp_path / "cut"), steps=6)

    def stop(step: StepRecord, steps: int) -> None:
        if step.step == 5:  # after the checkpoint of step 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(cut, stop)
    tune(prepare(device="cuda", output=str(tmp_path / "cut"), steps=6))
    ended = [load_file(path) for path in (each / "model" / "model.safetensors" for each in (whole.folder, cut.folder))]
    assert ended[0].keys() == ended[1].keys()
    for name, weights in ended[0].items():
        torch.testing.assert_close(ended[1][name], weights, rtol=1e-4, atol=1e-5, msg=name)
