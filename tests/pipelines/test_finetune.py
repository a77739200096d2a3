"""Fine-tuning on real Ray workers: many of them learn what one learns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from pipelines.finetune import finetune
from pipelines.job import run as run_job
from skipvision.config import JobConfig
from skipvision.families.chain_of_sight import add_chain_of_sight
from skipvision.method.chain_of_sight import Scale
from skipvision.tuning import Run, tune
from skipvision.tuning.journal import read_steps
from tests.tiny_llava import build_tiny_llava
from tests.tuning.conftest import checkpoint, data, prepare

__all__ = ["checkpoint", "data", "prepare"]

pytestmark = pytest.mark.usefixtures("local_ray")


def weights(run: Run) -> dict[str, torch.Tensor]:
    model = LlavaForConditionalGeneration.from_pretrained(run.folder / "model", dtype=torch.float32)
    return dict(model.named_parameters())


def check_same(run: Run, other: Run) -> None:
    for mine, theirs in zip(read_steps(run.folder), read_steps(other.folder), strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert (mine.samples, mine.images, mine.tokens) == (theirs.samples, theirs.images, theirs.tokens)
    for name, tensor in weights(run).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("sharding", "changes"),
    [
        ("ddp", {"loaders": 1, "tokens_per_pass": 60}),
        pytest.param("fsdp", {"tokens_per_pass": 60}, marks=pytest.mark.slow),
        pytest.param("fsdp", {"lora": {"rank": 4}}, marks=pytest.mark.slow),
    ],
)
def test_two_workers_learn_what_one_learns(
    prepare: Callable[..., Run], tmp_path: Path, sharding: str, changes: dict[str, object]
) -> None:
    """With an odd batch, so that workers have unlike shares, and passes so small that their numbers differ."""
    alone = prepare(steps=4, batch=5, output=str(tmp_path / "alone"), **changes)
    tune(alone)
    together = prepare(steps=4, batch=5, output=str(tmp_path / "two"), workers=2, sharding=sharding, **changes)
    heard: list[int] = []
    assert finetune(together, lambda record, steps: heard.append(record.step))["steps"] == 4
    assert heard == sorted(set(heard))
    assert set(heard) <= {1, 2, 3, 4}
    check_same(alone, together)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(prepare: Callable[..., Run], tmp_path: Path) -> None:
    whole = prepare(steps=6, batch=5, output=str(tmp_path / "whole"))
    tune(whole)

    class EnoughError(Exception):
        """Stands for whatever ends a process."""

    def stop_after_three(record: object, steps: int) -> None:
        if len(read_steps(tmp_path / "cut")) == 3:
            raise EnoughError

    alone = prepare(steps=6, batch=5, output=str(tmp_path / "cut"))
    with pytest.raises(EnoughError):
        tune(alone, stop_after_three)
    finetune(prepare(steps=6, batch=5, output=str(tmp_path / "cut"), workers=2, sharding="fsdp"))
    check_same(whole, alone)


@pytest.mark.parametrize(
    ("kind", "skip", "retained"), [("plain", "4/6", 4), ("tiled", "16/12", 16), ("chain of sight", "5/3", 5)]
)
def test_each_setting_of_the_paper_is_trained_and_then_run_as_a_job(
    prepare: Callable[..., Run], tmp_path: Path, data: Path, kind: str, skip: str, retained: int
) -> None:
    folder = build_tiny_llava(tmp_path / "stock", tiled=kind == "tiled")
    if kind == "chain of sight":
        add_chain_of_sight(folder, (Scale(4, 1), Scale(2, 1), Scale(2, 4)), tmp_path / "cos")
        folder = tmp_path / "cos"
    run = prepare(model=str(folder), skip=skip, steps=2)
    tune(run)
    job = JobConfig(
        input=str(data.parent / "pictures"), output=str(tmp_path / "job"), model=str(run.folder / "model"), max_tokens=4
    )
    report = run_job(job)
    assert (report.rows, report.ok, report.errors) == (8, 8, 0)
    assert report.tokens.retained == 8 * retained
