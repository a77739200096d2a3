"""The multi-scale projector against loops over windows, written independently."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from skipvision.errors import ConfigError
from skipvision.method.chain_of_sight import PAPER_SCALES, ChainOfSight, Scale

GRID, WIDTH = 8, 16
SCALES = (Scale(8, 4), Scale(4, 4), Scale(2, 4))


@pytest.fixture
def module() -> ChainOfSight:
    torch.manual_seed(0)
    module = ChainOfSight(WIDTH, 24, grid=GRID, scales=SCALES, heads=2)
    for resampler in module.resamplers:
        torch.nn.init.normal_(resampler.o_proj.weight, std=0.5)  # as if it had learnt
    return module


def by_loops(module: ChainOfSight, features: Tensor) -> Tensor:
    """Window by window, query by query, head by head, with plain softmax."""
    images = []
    for image in module.norm(features).view(-1, GRID, GRID, WIDTH):
        tokens = []
        for resampler in module.resamplers:
            window, side = resampler.scale.window, resampler.scale.side
            across, cell = GRID // window * side, window // side
            for line in range(across):
                for column in range(across):
                    top, left = line // side * window, column // side * window
                    patches = image[top : top + window, left : left + window].reshape(-1, WIDTH)
                    query = resampler.queries[line % side * side + column % side]
                    q, k = resampler.q_proj(query), resampler.k_proj(patches + resampler.places)
                    v = resampler.v_proj(patches)
                    half = WIDTH // 2
                    mixed = [
                        torch.softmax(k[:, at : at + half] @ q[at : at + half] / half**0.5, 0) @ v[:, at : at + half]
                        for at in (0, half)
                    ]
                    mean = image[line * cell : (line + 1) * cell, column * cell : (column + 1) * cell].mean((0, 1))
                    tokens.append(mean + resampler.o_proj(torch.cat(mixed)))
        images.append(torch.stack(tokens))
    return module.project(torch.stack(images))


def test_each_query_attends_to_its_window_alone(module: ChainOfSight) -> None:
    features = torch.randn(3, GRID * GRID, WIDTH)
    torch.testing.assert_close(module(features), by_loops(module, features), rtol=1e-4, atol=1e-5)


def test_it_begins_as_average_pooling_at_every_scale() -> None:
    module = ChainOfSight(WIDTH, 24, grid=GRID, scales=SCALES, heads=2)
    features = torch.randn(2, GRID * GRID, WIDTH)
    picture = module.norm(features).view(2, GRID, GRID, WIDTH)
    cells = [picture.unflatten(1, (-1, cell)).unflatten(3, (-1, cell)) for cell in (4, 2, 1)]
    pooled = [each.mean((2, 4)).flatten(1, 2) for each in cells]
    torch.testing.assert_close(module(features), module.project(torch.cat(pooled, dim=1)))


def test_every_weight_learns_after_the_first_step(module: ChainOfSight) -> None:
    fresh = ChainOfSight(WIDTH, 24, grid=GRID, scales=SCALES, heads=2)
    features = torch.randn(2, GRID * GRID, WIDTH)
    fresh(features).square().sum().backward()
    assert all(resampler.o_proj.weight.grad.abs().sum() > 0 for resampler in fresh.resamplers)
    module(features).square().sum().backward()
    # A key's bias moves all scores of a window alike, which softmax does not see.
    silent = {name for name, p in module.named_parameters() if p.grad.abs().max() < 1e-6}
    assert silent <= {f"resamplers.{at}.k_proj.bias" for at in range(3)}


def test_the_papers_scales_make_its_tokens() -> None:
    module = ChainOfSight(64, 8, grid=32, scales=PAPER_SCALES, heads=1)
    assert module.tokens == (16, 256, 1024)
    assert module(torch.randn(1, 1024, 64)).shape == (1, 1296, 8)


def test_coarser_scales_rank_first_and_within_one_what_is_looked_at(module: ChainOfSight) -> None:
    saliency = torch.rand(2, GRID * GRID)
    ranked = module.rank(saliency)
    coarse, middle, fine = ranked.split(module.tokens, dim=1)
    assert coarse.min() > middle.max()
    assert middle.min() > fine.max()
    assert torch.equal(fine.argsort(dim=1), saliency.argsort(dim=1))
    cells = saliency.view(2, 4, 2, 4, 2).mean((2, 4)).flatten(1)
    assert torch.equal(middle.argsort(dim=1), cells.argsort(dim=1))
    blank = module.rank(torch.zeros(1, GRID * GRID))
    assert torch.isfinite(blank).all()


@pytest.mark.parametrize(("window", "queries"), [(4, 3), (4, 9), (0, 1), (4, 0), (4, -4)])
def test_a_scale_that_cannot_be_is_refused(window: int, queries: int) -> None:
    with pytest.raises(ConfigError, match=f"window {window} with {queries} queries"):
        Scale(window, queries)


@pytest.mark.parametrize("scales", [(Scale(2, 4), Scale(8, 4)), (Scale(4, 1), Scale(4, 1)), (Scale(4, 4), Scale(2, 1))])
def test_scales_that_do_not_go_from_coarse_to_fine_are_refused(scales: tuple[Scale, ...]) -> None:
    with pytest.raises(ConfigError, match="from the coarsest to the finest"):
        ChainOfSight(WIDTH, 24, grid=GRID, scales=scales, heads=2)


def test_windows_that_do_not_divide_the_picture_are_refused() -> None:
    with pytest.raises(ConfigError, match="windows of 3 patches do not divide a picture of 8 by 8"):
        ChainOfSight(WIDTH, 24, grid=GRID, scales=[Scale(3, 1)], heads=2)
