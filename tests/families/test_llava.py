"""Loading a LLaVA checkpoint, and its parts against the stock ones: words, pixels, encoder, decoder."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration

from skipvision.errors import ConfigError
from skipvision.families import Family, load_family, load_preparer
from skipvision.families.checkpoint import save_skip
from skipvision.method.flops import DecoderShape
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from tests.method import reference
from tests.tiny_llava import build_tiny_llava

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llava(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def family(folder: Path) -> Family:
    return load_family(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    return LlavaForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint of the test's own, to be spoilt."""
    return build_tiny_llava(tmp_path / "copy")


def photo(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Smooth enough that a resize is not all noise."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (height // 10, width // 10, 3)), np.ones((10, 10, 1))).astype(np.uint8)


def rewrite_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class PlainAttention:
    """Causal attention of one sequence, and the keys it was given."""

    def __init__(self, wanted_rows: Tensor) -> None:
        self.wanted_rows = wanted_rows
        self.keys: list[Tensor] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float, *, only_wanted: bool) -> Tensor:
        self.keys.append(k)
        share = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        hidden = torch.ones(len(k), len(k), dtype=torch.bool).triu(1)
        scores = torch.einsum("qhd,khd->hqk", q, k) * scaling
        scores = scores.masked_fill(hidden[self.wanted_rows] if only_wanted else hidden, float("-inf"))
        return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), v)


def read(
    family: Family, rows: Tensor, *, first: int = 0, ffn_rows: Tensor | None = None, wanted: list[int] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The wanted rows (None: all) of one sequence that begins at position `first`, and each layer's keys."""
    attend = PlainAttention(torch.arange(len(rows)) if wanted is None else torch.tensor(wanted, dtype=torch.int64))
    positions = torch.arange(first, first + len(rows))
    hidden = family.read(rows, positions, ffn_rows=ffn_rows, wanted_rows=attend.wanted_rows, attend=attend)
    return hidden, attend.keys


# What is loaded, and what is refused.


def test_a_plain_checkpoint_carries_no_setting(family: Family) -> None:
    assert family.carried_skip == SkipConfig()
    assert family.summary is None


def test_a_checkpoint_that_carries_a_setting_is_recognised(copy: Path) -> None:
    config, summary = SkipConfig(retain=5, merge_skipped_to=4, summarise=True, forget_skipped=True), SummaryPooling(64)
    save_skip(copy, config, summary)
    family = load_family(copy, device="cpu", dtype="float32")
    assert family.carried_skip == config
    assert family.summary is not None
    for name, value in summary.state_dict().items():
        assert torch.equal(family.summary.state_dict()[name], value)


def test_a_checkpoint_that_carries_a_setting_is_still_an_ordinary_one(copy: Path, stock: Any) -> None:
    save_skip(copy, SkipConfig(retain=5), SummaryPooling(64))
    again = LlavaForConditionalGeneration.from_pretrained(copy)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), stock.parameters(), strict=True))
    assert set(load_file(copy / "skip_vision.safetensors")) == set(SummaryPooling(64).state_dict())


@pytest.mark.parametrize("carried", [{"retian": 5}, {"retain": 0}, {"summarise": True}, "100/156", 7])
def test_a_carried_setting_that_makes_no_sense_is_refused(copy: Path, carried: Any) -> None:
    rewrite_config(copy, skip_vision=carried)
    with pytest.raises(ConfigError):
        load_family(copy, device="cpu", dtype="float32")


def test_sizes_ends_and_context_are_the_checkpoints(family: Family, stock: Any, processor: Any) -> None:
    assert family.shape == DecoderShape.from_config(stock.config.text_config.to_dict())
    assert family.eos_token_ids == {processor.tokenizer.eos_token_id}
    assert family.context_tokens == 512
    assert family.device == torch.device("cpu")
    assert family.dtype == torch.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "bert"},
        {"model_type": "llama"},
        {"model_type": "no_such_architecture"},
        {"model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"}},
        {"model_type": "llava", "text_config": {"model_type": "gemma2"}},
    ],
    ids=lambda changes: "/".join(str(v) if isinstance(v, str) else v["model_type"] for v in changes.values()),
)
@pytest.mark.parametrize("load", [load_family, load_preparer])
def test_an_unsupported_architecture_is_refused_with_the_list_of_supported_ones(
    copy: Path, changes: dict[str, Any], load: Any
) -> None:
    rewrite_config(copy, **changes)
    with pytest.raises(ConfigError, match=r"supported: .*LLaVA-1\.5"):
        load(copy)


@pytest.mark.parametrize("changes", [{"vision_feature_layer": [-2, -3]}, {"vision_feature_select_strategy": "full"}])
def test_features_of_another_kind_are_refused(copy: Path, changes: dict[str, Any]) -> None:
    rewrite_config(copy, **changes)
    with pytest.raises(ConfigError, match="one layer with strategy 'default'"):
        load_family(copy)


@pytest.mark.parametrize("load", [load_family, load_preparer])
def test_an_unknown_model_is_refused_by_its_name(tmp_path: Path, load: Any) -> None:
    with pytest.raises(ConfigError, match="no-such-model"):
        load(tmp_path / "no-such-model")
    (tmp_path / "empty-folder").mkdir()
    with pytest.raises(ConfigError, match=r"empty-folder.*config\.json"):
        load(tmp_path / "empty-folder")


class _Trap:
    """A pickle that leaves a file behind when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickled_weights_are_refused_and_never_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"weights": _Trap(copy / "sprung")}, copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        load_family(copy, device="cpu", dtype="float32")
    assert not (copy / "sprung").exists()


def test_a_checkpoint_without_processor_is_refused(copy: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="processor"):
        load_family(copy, device="cpu", dtype="float32")


@pytest.mark.parametrize("wrong", [{"device": "tpu9"}, {"device": "cuda:99"}, {"dtype": "float64"}, {"dtype": "fp8"}])
def test_a_device_or_dtype_that_is_not_there_is_refused_by_name(folder: Path, wrong: dict[str, str]) -> None:
    if wrong.get("device", "").startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigError, match=next(iter(wrong.values()))):
        load_family(folder, **wrong)


# Words.


def by_stock_processor(processor: Any, prompt: str, num_images: int) -> tuple[list[int], list[int]]:
    """Text ids, and the number of them before each image."""
    content = [{"type": "image"}] * num_images + [{"type": "text", "text": prompt}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [photo(40, 40, seed=i) for i in range(num_images)] or None
    ids = processor(text=text, images=images)["input_ids"][0]
    text_ids, offsets, per_image, seen = [], [], 16, 0
    for token in ids:
        if token != processor.image_token_id:
            text_ids.append(token)
        elif (seen := seen + 1) % per_image == 1:
            offsets.append(len(text_ids))
    return text_ids, offsets


@pytest.mark.parametrize(
    "prompt", ["what is in the picture ?", "describe", "is a circle  left of\na square ?", "ünknown"]
)
@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_an_ordinary_prompt_is_tokenised_as_the_stock_processor_does(
    family: Family, processor: Any, prompt: str, num_images: int
) -> None:
    tokens = family.tokenize(prompt, num_images=num_images)
    text_ids, offsets = by_stock_processor(processor, prompt, num_images)
    assert list(tokens.text_ids) == text_ids
    assert list(tokens.image_offsets) == offsets


def test_a_bos_that_the_stock_processor_adds_is_added_once(copy: Path) -> None:
    processor = AutoProcessor.from_pretrained(copy)
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", processor.tokenizer.bos_token_id)]
    )
    processor.save_pretrained(copy)
    family = load_family(copy, device="cpu", dtype="float32")
    tokens = family.tokenize("what is in the picture ?", num_images=1)
    text_ids, offsets = by_stock_processor(AutoProcessor.from_pretrained(copy), "what is in the picture ?", 1)
    assert text_ids.count(processor.tokenizer.bos_token_id) == 1
    assert (list(tokens.text_ids), list(tokens.image_offsets)) == (text_ids, offsets)
    hostile = family.tokenize("what </s> is", num_images=1)
    assert hostile.text_ids.count(processor.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    "hostile", ["<image>", "a </s> b", "<s><pad>", "<image> <image> what </s> is <image>", "<unk>"]
)
def test_special_tokens_in_user_text_are_text(family: Family, processor: Any, hostile: str) -> None:
    tokens = family.tokenize(hostile, num_images=1)
    harmless = family.tokenize("describe", num_images=1)
    special = {processor.tokenizer.convert_tokens_to_ids(token) for token in ("<pad>", "<s>", "</s>", "<image>")}
    assert not special & set(tokens.text_ids)
    assert len(tokens.image_offsets) == 1
    assert tokens.image_offsets == harmless.image_offsets
    assert len(tokens.text_ids) > len(harmless.text_ids), "the characters are there"


def test_answers_are_read_without_special_tokens(family: Family, processor: Any) -> None:
    ids = processor.tokenizer("red circle", add_special_tokens=False)["input_ids"]
    assert family.detokenize([*ids, processor.tokenizer.eos_token_id]) == "red circle"
    assert family.detokenize([]) == ""


# Pixels and the encoder.


@pytest.mark.parametrize("size", [(40, 40), (60, 90), (200, 30)])
def test_pixels_are_prepared_as_the_checkpoints_own_processor_does(family: Family, processor: Any, size: Any) -> None:
    rgb = photo(*size)
    pixels = family.preparer.prepare(rgb)
    stock = processor.image_processor(rgb, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - stock.astype(int)).max() <= 1
    assert family.preparer.visual_tokens(pixels) == 16


def test_a_preparer_needs_no_weights_and_travels_to_other_processes(copy: Path, family: Family) -> None:
    (copy / "model.safetensors").unlink()
    preparer = pickle.loads(pickle.dumps(load_preparer(copy)))
    assert len(pickle.dumps(preparer)) < 100_000
    assert np.array_equal(preparer.prepare(photo(60, 90)), family.preparer.prepare(photo(60, 90)))


def test_features_are_those_of_the_stock_model_on_the_processors_pixels(
    family: Family, stock: Any, processor: Any
) -> None:
    photos = [photo(60, 90, seed=seed) for seed in range(3)]
    pixels = torch.stack([torch.from_numpy(family.preparer.prepare(rgb)) for rgb in photos])
    with torch.no_grad():
        given = processor.image_processor(photos, return_tensors="pt")["pixel_values"]
        plain = torch.stack(list(stock.get_image_features(given).pooler_output))
    encoded = family.encode(pixels)
    features = torch.stack([*encoded.features])
    assert features.shape == (3, 16, 64)
    torch.testing.assert_close(features, plain, **CLOSE)


def test_saliency_is_the_cls_row_of_an_eager_encoder_and_the_encoder_stays_as_it_was(
    family: Family, stock: Any, processor: Any
) -> None:
    rgb = photo(60, 90)
    tower: Any = family.model.model.vision_tower  # type: ignore[attr-defined]
    before = tower.config._attn_implementation
    encoded = family.encode(torch.from_numpy(family.preparer.prepare(rgb))[None])
    with torch.no_grad():
        features, row = reference.look(stock, processor.image_processor([rgb], return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(encoded.saliency[0], row[0], **CLOSE)
    torch.testing.assert_close(encoded.features[0], features[0], **CLOSE)
    assert encoded.saliency[0].dtype == torch.float32
    assert tower.config._attn_implementation == before == "sdpa"
    assert not any(module._forward_hooks for module in tower.encoder.layers.modules())


def test_an_image_is_encoded_as_if_it_were_alone(family: Family) -> None:
    pixels = torch.stack([torch.from_numpy(family.preparer.prepare(photo(60, 90, seed=seed))) for seed in range(3)])
    together = family.encode(pixels)
    for i in range(3):
        alone = family.encode(pixels[i : i + 1])
        torch.testing.assert_close(together.features[i], alone.features[0], **CLOSE)
        torch.testing.assert_close(together.saliency[i], alone.saliency[0], **CLOSE)


# The decoder.


@torch.no_grad()
def test_reading_text_gives_the_stock_logits(family: Family, stock: Any) -> None:
    ids = torch.arange(6, 26)
    hidden, _ = read(family, family.embed(ids))
    torch.testing.assert_close(family.logits(hidden), stock(input_ids=ids[None]).logits[0], **CLOSE)
    assert family.logits(hidden).dtype == torch.float32


@torch.no_grad()
def test_rows_left_out_of_the_ffn_are_read_as_the_reference_reads_them(family: Family, stock: Any) -> None:
    rows, skipped = torch.randn(12, 64, generator=torch.Generator().manual_seed(0)), frozenset({3, 4, 5, 9})
    kept = [i for i in range(12) if i not in skipped]
    hidden, _ = read(family, rows, ffn_rows=torch.tensor(kept), wanted=kept)
    plain = reference.TwoStreams(stock).read_prompt(reference.Prompt(rows, skipped, [None] * 12))
    torch.testing.assert_close(family.logits(hidden), plain, **CLOSE)


@pytest.mark.parametrize("wanted", [[19], [0, 7, 19], []])
@torch.no_grad()
def test_wanted_rows_and_all_keys_are_what_they_are_when_every_row_is_wanted(family: Family, wanted: list[int]) -> None:
    rows = family.embed(torch.arange(6, 26))
    everything, all_keys = read(family, rows)
    some, keys = read(family, rows, wanted=wanted)
    torch.testing.assert_close(some, everything[wanted], **CLOSE)
    torch.testing.assert_close(keys, all_keys, **CLOSE)


@torch.no_grad()
def test_positions_need_not_begin_at_zero(family: Family) -> None:
    rows = family.embed(torch.arange(6, 16))
    (moved, moved_keys), (plain, plain_keys) = read(family, rows, first=100), read(family, rows)
    torch.testing.assert_close(moved, plain, **CLOSE)
    assert not torch.allclose(moved_keys[0], plain_keys[0]), "the keys did turn with the positions"
