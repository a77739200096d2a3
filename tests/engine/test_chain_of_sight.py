"""The engine, the commands and fine-tuning on a checkpoint with a chain-of-sight projector."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from skipvision.cli import main
from skipvision.engine import Engine, Request, Sampling
from skipvision.engine.stage_clock import StageClock
from skipvision.engine.vision_cache import VisionCache, digest_of
from skipvision.engine.visual import ImageReader, Picture
from skipvision.errors import ConfigError, InputError
from skipvision.families import load_family, skipping
from skipvision.families.chain_of_sight import CosFamily, add_chain_of_sight
from skipvision.families.checkpoint import read_config, save_skip, visual_tokens
from skipvision.method.chain_of_sight import Scale
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from skipvision.tuning import Run, tune
from skipvision.tuning.trainee import Trainee
from tests.engine.subjects import CARRIED, picture
from tests.method import reference
from tests.tiny_llava import build_tiny_llava
from tests.tuning.conftest import data, prepare

__all__ = ["data", "prepare"]

SCALES = (Scale(8, 4), Scale(4, 4), Scale(2, 4))  # 4 + 16 + 64 tokens of 8 x 8 patches
SKIP = SkipConfig(retain=20, merge_skipped_to=16, summarise=True, forget_skipped=True)
"""The paper's 272/256 of 1296, in small."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = build_tiny_llava(tmp_path_factory.mktemp("plain"), image_size=64)
    folder = tmp_path_factory.mktemp("cos") / "checkpoint"
    add_chain_of_sight(plain, SCALES, folder)
    weights = folder / "chain_of_sight.safetensors"
    torch.manual_seed(1)
    save_file({name: p + 0.1 * torch.randn_like(p) for name, p in load_file(weights).items()}, weights)
    summary = SummaryPooling(64)
    torch.nn.init.normal_(summary.score.weight)
    save_skip(folder, SKIP, summary)
    return folder


@pytest.fixture(scope="session")
def family(checkpoint: Path) -> CosFamily:
    family = load_family(checkpoint, device="cpu", dtype="float32")
    assert isinstance(family, CosFamily)
    return family


def requests(engine: Engine, **changes: Any) -> list[Request]:
    asked = [("what is there", (0,)), ("how many", (1, 2)), ("describe", ()), ("is it big ?", (0,))]
    return [
        Request(
            prompt=text,
            images=tuple(engine.prepare(picture(at)) for at in pictures),
            **({"sampling": Sampling(max_tokens=8, ignore_eos=True)} | changes),
        )
        for text, pictures in asked
    ]


def outputs(engine: Engine, asked: Sequence[Request]) -> list[tuple[int, ...]]:
    return [answer.output_ids for answer in engine.answer(asked)]


def test_the_checkpoint_is_known_for_what_it_is(checkpoint: Path, family: CosFamily) -> None:
    assert visual_tokens(read_config(checkpoint)) == 84
    assert family.carried_skip == SKIP
    assert isinstance(LlavaForConditionalGeneration.from_pretrained(checkpoint), LlavaForConditionalGeneration)


def test_what_the_decoder_reads_is_tower_then_windows(checkpoint: Path, family: CosFamily) -> None:
    pixels = torch.from_numpy(family.preparer.prepare(picture(0)))[None]
    stock = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = stock.model.vision_tower(pixels.float() * family._scale + family._shift, output_hidden_states=True)
        expected = family.resampler(hidden.hidden_states[-2][:, 1:])
    torch.testing.assert_close(family.encode(pixels).features[0], expected[0])


def test_the_coarse_scales_are_retained_and_the_first_is_not_pooled(family: CosFamily) -> None:
    pixels = torch.from_numpy(family.preparer.prepare(picture(0)))[None]
    encoded = family.encode(pixels)
    assert encoded.saliency[0].argsort(descending=True)[:20].sort().values.tolist() == [*range(20)]
    assert family.pooled_from == 4


def read_by_hand(family: CosFamily, pixels: np.ndarray) -> Tensor:
    """(38, hidden): coarse and middle scale, the middle's summary, the merged fine scale, and its summary."""
    coarse, middle, fine = family.encode(torch.from_numpy(pixels)[None]).features[0].split([4, 16, 64])
    assert family.summary is not None
    merged = reference.merge(fine, 16)[1]
    pooled = [reference.pool(region, family.summary.state_dict())[None] for region in (middle, merged)]
    return torch.cat([coarse, middle, pooled[0], merged, pooled[1]])


def test_the_engine_reads_the_middle_scales_summary_and_the_merged_fine_scale(family: CosFamily) -> None:
    reader = ImageReader(family, VisionCache(0), StageClock(torch.device("cpu")).timing)
    pixels = [family.preparer.prepare(picture(at)) for at in range(2)]
    read = reader.read([Picture(each, digest_of(each), SKIP) for each in pixels])
    for (rows, _), each in zip(read, pixels, strict=True):
        torch.testing.assert_close(rows, read_by_hand(family, each))


def test_fine_tuning_reads_what_the_engine_reads(checkpoint: Path, family: CosFamily) -> None:
    own = load_family(checkpoint, device="cpu", dtype="float32")
    trainee = Trainee(own, SKIP, learning=("projector", "decoder"))
    pixels = [family.preparer.prepare(picture(at)) for at in range(2)]
    with torch.no_grad():
        blocks = trainee._blocks(pixels)
    for rows, each in zip(blocks, pixels, strict=True):
        torch.testing.assert_close(rows, read_by_hand(family, each))


@pytest.mark.parametrize("limits", [{"max_running": 1}, {"max_step_tokens": 23}, {"cache_tokens": 240}], ids=str)
@pytest.mark.parametrize("skip", [SKIP, SkipConfig(), SkipConfig(retain=9, merge_skipped_to=30)], ids=str)
def test_want_of_room_and_company_change_no_token(family: CosFamily, limits: dict[str, int], skip: SkipConfig) -> None:
    roomy, narrow = Engine(family, skip=skip), Engine(family, skip=skip, **limits)
    expected = [outputs(roomy, [request])[0] for request in requests(roomy)]
    assert outputs(roomy, requests(roomy)) == expected
    assert outputs(narrow, requests(narrow)) == expected
    assert narrow.stats().free_pages == narrow.stats().num_pages


def test_giving_way_to_an_older_answer_changes_no_token(family: CosFamily) -> None:
    roomy, narrow = Engine(family, skip=SKIP), Engine(family, skip=SKIP, cache_tokens=144)
    asked = [
        request for _ in range(3) for request in requests(roomy, sampling=Sampling(max_tokens=40, ignore_eos=True))
    ]
    assert outputs(narrow, asked) == outputs(roomy, asked)
    assert narrow.stats().preemptions > 0 == roomy.stats().preemptions
    assert narrow.stats().free_pages == narrow.stats().num_pages


@pytest.mark.parametrize("limits", [{}, {"max_step_tokens": 13}], ids=str)
def test_questions_about_one_image_share_its_reading(family: CosFamily, limits: dict[str, int]) -> None:
    engine = Engine(family, skip=SKIP, **limits)
    image = engine.prepare(picture(0))
    sampling = Sampling(max_tokens=8, ignore_eos=True)
    asked = [Request(prompt=f"what {word}", images=(image,), sampling=sampling) for word in ("is", "colour", "shape")]
    assert outputs(engine, asked) == outputs(Engine(family, skip=SKIP, max_running=1), asked)
    assert engine.stats().shared_prompt_tokens > 0


def test_a_setting_that_leaves_nothing_to_pool_is_refused_alone(family: CosFamily) -> None:
    few = SkipConfig(retain=4, merge_skipped_to=16, summarise=True)
    with pytest.raises(ConfigError, match="retain more than 4"):
        Engine(family, skip=few)
    engine = Engine(family, skip=SKIP)
    with pytest.raises(InputError, match="retain more than 4") as refusal:
        engine.add(requests(engine, skip=few)[0])
    assert refusal.value.code == "skip_does_not_fit"


def test_a_plan_is_not_priced_for_a_setting_that_the_engine_refuses(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["plan", "--model", str(checkpoint), "--json"]
    assert main([*plan, "--skip", "20/16"]) == 0
    assert '"visual": 84' in capsys.readouterr().out
    assert main([*plan, "--skip", "4/16"]) == 2
    assert "retain more than 4" in capsys.readouterr().err
    assert main([*plan, "--skip", "resize:16"]) == 2
    assert "use uniform:16 or saliency:16" in capsys.readouterr().err


def test_a_single_scale_is_pooled_over(tiny_model: Path, tmp_path: Path) -> None:
    add_chain_of_sight(tiny_model, (Scale(2, 4),), tmp_path / "one")
    skip = SkipConfig(retain=4, merge_skipped_to=3, summarise=True)
    save_skip(tmp_path / "one", skip, SummaryPooling(64))
    engine = Engine.load(tmp_path / "one", device="cpu", dtype="float32")
    [answer] = engine.answer([Request(prompt="describe", images=(engine.prepare(picture(0)),))])
    assert answer.plan.summary_tokens == 2


def test_what_the_plain_checkpoint_carried_is_left_behind(folder: Path, tmp_path: Path) -> None:
    assert load_family(folder, device="cpu").carried_skip == CARRIED
    before = torch.random.get_rng_state()
    add_chain_of_sight(folder, (Scale(4, 4), Scale(2, 4)), tmp_path / "new")
    assert torch.equal(torch.random.get_rng_state(), before), "a caller's own draws stay as they were"
    family = load_family(tmp_path / "new", device="cpu")
    assert (family.carried_skip, family.summary) == (SkipConfig(), None)


def test_a_model_that_looks_at_tiles_is_refused(tmp_path: Path) -> None:
    tiled = build_tiny_llava(tmp_path / "tiled", tiled=True)
    with pytest.raises(ConfigError, match=r"needs a LLaVA-1\.5 checkpoint"):
        add_chain_of_sight(tiled, (Scale(4, 4), Scale(2, 4)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_model_that_ships_can_be_given_one_by_its_name(tmp_path: Path) -> None:
    make = ["chain-of-sight", "zoo", str(tmp_path / "new"), "--scale", "16:16", "--scale", "4:4", "--scale", "2:4"]
    assert main(make) == 0
    assert visual_tokens(read_config(tmp_path / "new")) == 16 + 64 + 256


def test_the_live_patch_refuses_what_transformers_model_does_not_run(checkpoint: Path) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(checkpoint)
    with pytest.raises(ConfigError, match="use the engine"), skipping(model, SKIP):
        pass


def test_all_of_it_learns_and_travels(prepare: Callable[..., Run], checkpoint: Path) -> None:
    run = prepare(epochs=4, train=["tower", "projector", "decoder"])
    report = tune(run)
    assert report["last_loss"] < 0.7 * report["first_loss"]
    before, after = (load_file(folder / "chain_of_sight.safetensors") for folder in (checkpoint, run.folder / "model"))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before if "k_proj.bias" not in name)
    family = load_family(run.folder / "model", device="cpu", dtype="float32")
    assert isinstance(family, CosFamily)
    assert family.carried_skip == SKIP
    stock = [
        LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).model.multi_modal_projector
        for folder in (checkpoint, run.folder / "model")
    ]
    assert torch.equal(stock[0].linear_1.weight, stock[1].linear_1.weight), "nobody uses it, so it rests"


def test_a_file_that_is_missing_or_of_another_shape_is_named(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    path = copy / "chain_of_sight.safetensors"
    save_file({"norm.weight": torch.zeros(3)}, path)
    with pytest.raises(ConfigError, match="does not fit its config"):
        load_family(copy, device="cpu")
    path.unlink()
    with pytest.raises(ConfigError, match=r"has no chain_of_sight\.safetensors"):
        load_family(copy, device="cpu")


def test_the_command_makes_one_and_refuses_what_does_not_fit(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = ["chain-of-sight", str(tiny_model), str(tmp_path / "new")]
    assert main([*make, "--scale", "4:4", "--scale", "2:4"]) == 0
    assert visual_tokens(read_config(tmp_path / "new")) == 4 + 16
    assert main([*make, "--scale", "4:4"]) == 2
    assert "exists already" in capsys.readouterr().err
    for scale, words in (("4", "WINDOW:QUERIES"), ("3:1", "do not divide"), ("4:3", "square number")):
        assert main([*make[:2], str(tmp_path / "other"), "--scale", scale]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
