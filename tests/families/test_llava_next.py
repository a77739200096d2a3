"""LLaVA-NeXT: pixels, token counts, features and their rank, against the stock model and its processor."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from skipvision.errors import ConfigError, InputError
from skipvision.families import Family, load_family, load_preparer, skipping
from skipvision.families.checkpoint import read_config, visual_tokens
from skipvision.families.tiles import TileLayout
from skipvision.method.plan import SkipConfig
from skipvision.method.select import global_first
from tests.method import reference
from tests.tiny_llava import build_tiny_llava

SIDE = 32
SIZES = [(40, 50), (64, 64), (100, 30), (30, 100), (7, 90), (500, 333), (200, 30), (33, 64), (31, 63), (65, 32), (5, 5)]
"""Wide, tall, square, huge, tiny, and some that miss a multiple of the patch by one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llava(tmp_path_factory.mktemp("next"), tiled=True)


@pytest.fixture(scope="module")
def family(folder: Path) -> Family:
    return load_family(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def stock(folder: Path) -> LlavaNextForConditionalGeneration:
    return LlavaNextForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_tokens_and_features_are_the_stock_models(
    family: Family, stock: Any, processor: Any, size: tuple[int, int]
) -> None:
    prepared = family.preparer.prepare(photo(*size))
    given = processor(text="<image>", images=[photo(*size)], return_tensors="pt")
    tiles = prepared[:, :-1].reshape(3, -1, SIDE, SIDE).swapaxes(0, 1)
    scale, shift = (x.numpy() for x in (family._scale, family._shift))
    np.testing.assert_allclose(tiles * scale + shift, given["pixel_values"][0].numpy(), atol=1e-5)

    placeholders = int((given["input_ids"] == stock.config.image_token_id).sum())
    assert family.preparer.visual_tokens(prepared) == placeholders
    with torch.no_grad():
        (plain,) = stock.get_image_features(
            given["pixel_values"],
            given["image_sizes"],
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        ).pooler_output
    encoded = family.encode(torch.from_numpy(prepared)[None])
    torch.testing.assert_close(encoded.features[0], plain, rtol=1e-3, atol=1e-3)
    assert encoded.saliency[0].shape == (placeholders,)


def test_images_of_one_shape_and_other_token_counts_are_encoded_together(family: Family) -> None:
    sizes = [(40, 50), (64, 64), (500, 333), (63, 62)]
    prepared = [family.preparer.prepare(photo(*size)) for size in sizes]
    assert len({each.shape for each in prepared}) == 1
    together = family.encode(torch.from_numpy(np.stack(prepared)))
    assert len({len(each) for each in together.features}) > 2
    for each, features, saliency in zip(prepared, together.features, together.saliency, strict=True):
        alone = family.encode(torch.from_numpy(each)[None])
        torch.testing.assert_close(features, alone.features[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(saliency, alone.saliency[0], rtol=1e-4, atol=1e-4)


def test_the_thumbnail_ranks_first_by_its_cls_row_then_the_tiles_and_newlines_last(
    family: Family, stock: Any, processor: Any
) -> None:
    rgb = photo(64, 64)
    (saliency,) = family.encode(torch.from_numpy(family.preparer.prepare(rgb))[None]).saliency
    tiles = processor.image_processor([rgb], return_tensors="pt")["pixel_values"][0]
    with torch.no_grad():
        _, rows = reference.look(stock, tiles)
    torch.testing.assert_close(saliency[:16], rows[0], rtol=1e-3, atol=1e-4)
    lines = saliency[16:].view(8, 9)
    assert (lines[:, -1] < lines[:, :-1].min()).all()
    assert lines.max() < saliency[:16].min()
    first_line = torch.cat([rows[1, :4], rows[2, :4]])
    assert lines[0, :-1].argsort().tolist() == first_line.argsort().tolist()


def test_ranks_within_thumbnail_and_tiles_stay() -> None:
    ranked = global_first(torch.tensor([0.0, 0.5, 0.2]), torch.tensor([0.9, 0.1, 3.0]))
    assert ranked.argsort(descending=True).tolist() == [1, 2, 0, 5, 3, 4]


def test_the_papers_picture_has_2880_tokens_and_a_newline_for_each_of_its_48_lines() -> None:
    published = SimpleNamespace(
        image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        vision_config=SimpleNamespace(image_size=336, patch_size=14),
    )
    layout = TileLayout.of(672, 672, published)
    assert (layout.tiles, layout.tokens) == (5, 2880 + 48)
    assert sorted(layout.order())[:2880] == list(range(2880))
    assert TileLayout.of(336, 1008, published).tiles == 4


def test_tokens_can_be_counted_from_the_config_alone(folder: Path, family: Family) -> None:
    config = read_config(folder)
    for size in SIZES:
        assert visual_tokens(config, size) == family.preparer.visual_tokens(family.preparer.prepare(photo(*size)))


def test_the_preparer_travels_and_needs_no_weights(folder: Path, family: Family) -> None:
    preparer = pickle.loads(pickle.dumps(load_preparer(folder)))
    assert np.array_equal(preparer.prepare(photo(60, 90)), family.preparer.prepare(photo(60, 90)))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((3, 33, 32), np.uint8),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((3, 161, 31), np.uint8),
        np.full((3, 161, 32), 255, np.uint8),
        np.zeros((3, 0, 32), np.uint8),
    ],
    ids=lambda pixels: "x".join(map(str, pixels.shape)),
)
def test_pixels_that_were_not_prepared_are_refused(family: Family, pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"not prepared for this model.*use the engine's prepare"):
        family.preparer.visual_tokens(pixels)


def test_the_live_patch_says_that_it_is_for_the_other_llava(stock: Any) -> None:
    refused = pytest.raises(ConfigError, match=r"LlavaForConditionalGeneration.*LlavaNextForConditionalGeneration")
    with refused, skipping(stock, SkipConfig(retain=4)):
        pass
