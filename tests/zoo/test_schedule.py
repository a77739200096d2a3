"""Every weight has its optimiser, and the matrices inside layers move by orthogonal steps."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionModel

from skipvision.zoo.schedule import Schedule, _orthogonalised_all, orthogonalised
from skipvision.zoo.shape import tower_config


@pytest.mark.parametrize("shape", [(48, 48), (48, 96), (96, 48), (3, 96, 48)])
def test_an_orthogonalised_matrix_has_singular_values_around_one(shape):
    torch.manual_seed(0)
    update = orthogonalised(torch.randn(shape))
    assert update.shape == shape
    assert ((torch.linalg.svdvals(update) - 1).abs() < 0.4).all()


def test_matrices_are_orthogonalised_together_as_they_are_alone():
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((16, 32), (32, 16), (16, 32))]
    for together, matrix in zip(_orthogonalised_all(matrices), matrices, strict=True):
        alone = orthogonalised(matrix.to(together.dtype))
        torch.testing.assert_close(together, alone, rtol=0.02, atol=0.02)  # bfloat16, on processors that have it


def test_orthogonalising_keeps_the_direction():
    torch.manual_seed(0)
    matrix = torch.randn(32, 64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(u.T @ orthogonalised(matrix) @ v.T, torch.eye(32), atol=0.4, rtol=0)


def test_every_weight_that_has_a_gradient_learns():
    torch.manual_seed(0)
    tower = CLIPVisionModel(tower_config())
    before = {path: p.detach().clone() for path, p in tower.named_parameters()}
    schedule = Schedule(tower, peak=1e-2, steps=10, name="one")
    schedule.learn(tower(torch.randn(1, 3, 224, 224)).pooler_output.square().sum())
    moved = {path for path, p in tower.named_parameters() if not torch.equal(p, before[path])}
    assert {path for path, p in tower.named_parameters() if p.grad is not None and p.grad.any()} <= moved


def test_the_rate_rises_then_falls_to_a_twentieth():
    schedule = Schedule(CLIPVisionModel(tower_config()), peak=1.0, steps=1000, name="rates")
    shares = []
    for schedule.step in range(1001):
        shares.append(schedule._share())
    assert shares[0] == pytest.approx(1 / 150)
    assert max(shares) == pytest.approx(1.0)
    assert shares[-1] == pytest.approx(0.05)
