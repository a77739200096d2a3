"""Requests with adapters, alone and side by side, say what peft's merged models say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from skipvision.engine import Engine, Request, Sampling
from skipvision.errors import ConfigError, InputError
from skipvision.families import Family, load_family
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture

GREEDY = Sampling(max_tokens=12, ignore_eos=True)
LANGUAGE = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
CONFIGS = {
    "whole": LoraConfig(r=4, lora_alpha=8, target_modules=LANGUAGE, init_lora_weights=False),
    "part": LoraConfig(
        r=2,
        lora_alpha=6,
        use_rslora=True,
        target_modules=r".*language_model.*\.(q_proj|v_proj|down_proj)",
        rank_pattern={"v_proj": 5},
        alpha_pattern={r"layers\.1\.mlp\.down_proj": 20},
        init_lora_weights=False,
    ),
}


def stock_model(folder: Path) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def save_adapter(folder: Path, config: LoraConfig, target: Path, seed: int) -> Path:
    """A random adapter as peft writes it."""
    torch.manual_seed(seed)
    get_peft_model(stock_model(folder), config).save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def adapters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("adapters")
    return {
        name: save_adapter(folder, config, place / name, seed) for seed, (name, config) in enumerate(CONFIGS.items())
    }


@pytest.fixture(scope="module")
def merged(folder: Path, adapters: dict[str, Path]) -> dict[str, LlavaForConditionalGeneration]:
    """transformers' model with each adapter merged into its weights, by peft."""
    return {
        name: PeftModel.from_pretrained(stock_model(folder), adapter).merge_and_unload().eval()
        for name, adapter in adapters.items()
    }


@pytest.fixture(scope="module")
def merged_families(
    folder: Path, merged: dict[str, LlavaForConditionalGeneration], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Family]:
    """The same checkpoints as engines load them, summary module and all."""
    families = {}
    for name, model in merged.items():
        target = tmp_path_factory.mktemp("merged") / name
        shutil.copytree(folder, target)
        model.save_pretrained(target, safe_serialization=True)
        families[name] = load_family(target, device="cpu", dtype="float32")
    return families


def ask(engine: Engine, adapter: str | None, *, pictures: int = 1, prompt: str = "what is there") -> Request:
    images = tuple(engine.prepare(picture(seed)) for seed in range(pictures))
    return Request(prompt=prompt, images=images, adapter=adapter, sampling=GREEDY)


def outputs(engine: Engine, asked: Sequence[Request]) -> list[tuple[int, ...]]:
    return [answer.output_ids for answer in engine.answer(asked)]


@pytest.mark.parametrize("pictures", [0, 1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_alone_it_says_what_the_merged_model_says(
    family: Family,
    adapters: dict[str, Path],
    merged: dict[str, LlavaForConditionalGeneration],
    stock_inputs: Callable[..., Any],
    name: str,
    pictures: int,
) -> None:
    engine = Engine(family, adapters=adapters)
    [answer] = engine.answer([ask(engine, name, pictures=pictures)])
    inputs = stock_inputs("what is there", [picture(seed) for seed in range(pictures)])
    output = merged[name].generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert list(answer.output_ids) == output[0, inputs["input_ids"].shape[1] :].tolist()
    [plain] = engine.answer([ask(engine, None, pictures=pictures)])
    assert plain.output_ids != answer.output_ids, "the adapter must matter"


LIMITS = {
    "roomy": {},
    "in parts": {"max_step_tokens": 7},
    "few run": {"max_running": 3},
    "answers give way": {"cache_tokens": 128},
    "all of it": {"cache_tokens": 128, "max_step_tokens": 11, "max_running": 5},
}


@pytest.mark.parametrize("skip", [CARRIED, SkipConfig()], ids=["skipping", "all tokens"])
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_side_by_side_each_says_what_its_merged_model_says(
    family: Family,
    adapters: dict[str, Path],
    merged_families: dict[str, Family],
    limits: dict[str, int],
    skip: SkipConfig,
) -> None:
    engine = Engine(family, skip=skip, adapters=adapters, **limits)
    names = [None, "whole", "part", "whole", None, "part", "part"]
    asked = [
        replace(
            ask(engine, name, pictures=i % 3, prompt=f"what {'is ' * i}"), sampling=replace(GREEDY, max_tokens=9 + i)
        )
        for i, name in enumerate(names)
    ]
    # The same words about the same picture, so that only the adapter keeps their trunks apart.
    asked += [ask(engine, name) for name in ("part", "whole", "whole", None, None)]
    drawn = Sampling(max_tokens=9, ignore_eos=True, temperature=1.2)
    asked.append(replace(ask(engine, "whole"), n=3, sampling=drawn))
    families = {None: family, **merged_families}
    expected = [
        said
        for request in asked
        for said in outputs(Engine(families[request.adapter], skip=skip), [replace(request, adapter=None)])
    ]
    assert outputs(engine, asked) == expected
    assert engine.stats().free_pages == engine.stats().num_pages


def test_the_model_is_what_it_was_after_each_step(family: Family, adapters: dict[str, Path]) -> None:
    before = {name: id(module) for name, module in family.model.named_modules()}
    engine = Engine(family, adapters=adapters)
    engine.add(ask(engine, "whole"))
    engine.step()
    assert {name: id(module) for name, module in family.model.named_modules()} == before


def test_images_are_read_alike_by_all_adapters(family: Family, adapters: dict[str, Path]) -> None:
    engine = Engine(family, adapters=adapters)
    engine.answer([ask(engine, name) for name in (None, "whole", "part")])
    assert engine.stats().vision_cache_misses == 1


def test_an_unknown_adapter_is_refused_naming_those_there_are(family: Family, adapters: dict[str, Path]) -> None:
    engine = Engine(family, adapters=adapters)
    with pytest.raises(InputError, match="the adapter 'hole' is unknown; this engine has 'whole', 'part'"):
        engine.add(ask(engine, "hole"))
    with pytest.raises(InputError, match="'whole' is unknown; this engine has none"):
        Engine(family).add(ask(engine, "whole"))


def test_an_adapter_of_the_vision_side_is_refused(family: Family, folder: Path, tmp_path: Path) -> None:
    for name, target in (("tower", ["q_proj"]), ("projector", r".*multi_modal_projector\.linear_1")):
        config = LoraConfig(r=2, target_modules=target, init_lora_weights=False)
        saved = save_adapter(folder, config, tmp_path / name, 0)
        with pytest.raises(ConfigError, match=f"adapter '{name}' changes .*only the attention and feed-forward layers"):
            Engine(family, adapters={name: saved})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_dora": True}, "uses use_dora; only plain LoRA can be served"),
        ({"bias": "all"}, "uses bias"),
        ({"modules_to_save": ["lm_head"]}, "uses modules_to_save"),
        ({"peft_type": "IA3"}, "of the kind 'IA3'; only LORA can be served"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    family: Family, adapters: dict[str, Path], tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    changed = Path(shutil.copytree(adapters["part"], tmp_path / "changed"))
    config = json.loads((changed / "adapter_config.json").read_text())
    (changed / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=says):
        Engine(family, adapters={"changed": changed})


def test_an_adapter_of_another_model_is_refused(family: Family, adapters: dict[str, Path], tmp_path: Path) -> None:
    weights = load_file(adapters["part"] / "adapter_model.safetensors")
    key = next(key for key in weights if "layers.1.self_attn.q_proj.lora_A" in key)
    wrongs = {
        "narrow": (
            {**weights, key: weights[key][:, :-1].contiguous()},
            "made for q_proj with 63 inputs and 64 outputs",
        ),
        "deep": (
            {name.replace("layers.1.", "layers.7."): x for name, x in weights.items()},
            "layer 7, which this model",
        ),
        "halved": ({name: x for name, x in weights.items() if name != key}, "no matching pair of weights for .*q_proj"),
    }
    for name, (wrong, says) in wrongs.items():
        changed = Path(shutil.copytree(adapters["part"], tmp_path / name))
        save_file(wrong, changed / "adapter_model.safetensors")
        with pytest.raises(ConfigError, match=says):
            Engine(family, adapters={name: changed})


def test_a_folder_that_is_no_adapter_is_named(family: Family, adapters: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"adapter 'a' is no folder with adapter_config\.json and adapter_model"):
        Engine(family, adapters={"a": tmp_path})
    damaged = Path(shutil.copytree(adapters["part"], tmp_path / "damaged"))
    (damaged / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"adapter 'a' in .* cannot be read"):
        Engine(family, adapters={"a": damaged})
