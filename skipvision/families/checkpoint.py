"""What a checkpoint folder or hub id holds, read before any weight is: its config, and the SkipConfig it carries.

A checkpoint fine-tuned with Skip-Vision is an ordinary transformers folder with two additions: the key
`skip_vision` in `config.json`, and the summary module's weights in `skip_vision.safetensors`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, LlavaConfig, LlavaNextConfig
from transformers.utils import cached_file

from skipvision.errors import ConfigError
from skipvision.families.tiles import TileLayout
from skipvision.method.chain_of_sight import Scale
from skipvision.method.plan import SkipConfig, plan_image
from skipvision.method.split import check_pooled
from skipvision.method.summary import SummaryPooling

SUMMARY_FILE = "skip_vision.safetensors"
CONFIG_KEY = "skip_vision"
COS_FILE = "chain_of_sight.safetensors"
COS_KEY = "chain_of_sight"
SUPPORTED = (
    "llava (LLaVA-1.5: CLIP tower, LLaMA, Mistral or Qwen2 decoder)",
    "llava_next (LLaVA-NeXT, also called LLaVA-1.6: the same towers and decoders)",
)
_ZOO = Path(__file__).resolve().parent.parent / "zoo"
SHIPPED_MODELS = {"zoo": _ZOO / "skipping", "zoo-plain": _ZOO / "plain"}
"""The small models that ship with the package: taught with Skip-Vision, and with all tokens."""
DEFAULT_MODEL = "zoo"
DECODERS = ("llama", "mistral", "qwen2")


def short_name(model: str) -> str:
    """What a model is called in a few words: a folder by its own name; a hub id is its name."""
    return os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model


def resolve_model(model: str | Path | None) -> str:
    """`zoo`, or nothing, is the small model that ships, `zoo-plain` its twin; anything else is a folder or hub id."""
    name = DEFAULT_MODEL if model is None else str(model)
    return str(SHIPPED_MODELS.get(name, name))


def read_config(model: str | Path | None) -> LlavaConfig | LlavaNextConfig:
    """Read and check a checkpoint's config; no weight is touched.

    Raises:
        ConfigError: there is no such model, or it is of a kind that no family speaks.
    """
    model = resolve_model(model)
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise ConfigError(f"{model} is no checkpoint: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, HFValidationError) as error:
        raise ConfigError(
            f"model {model!r} is neither a checkpoint folder nor a hub id that can be loaded from here"
        ) from error
    except (ValueError, KeyError) as error:
        raise ConfigError(f"model {model!r} is of no supported kind; supported: {', '.join(SUPPORTED)}") from error
    return check_supported(config, model)


def check_supported(config: Any, model: str) -> LlavaConfig | LlavaNextConfig:
    """Refuse, by name, what no family speaks."""
    kinds = {"model": config.model_type}
    is_llava = isinstance(config, LlavaConfig | LlavaNextConfig)
    if is_llava:
        kinds |= {"tower": config.vision_config.model_type, "decoder": config.text_config.model_type}
    known = is_llava and kinds["tower"] == "clip_vision_model" and kinds["decoder"] in DECODERS
    if not known:
        found = ", ".join(f"{part} {kind}" for part, kind in kinds.items())
        raise ConfigError(f"{model!r} has an unsupported architecture ({found}); supported: {', '.join(SUPPORTED)}")
    if not isinstance(config.vision_feature_layer, int) or config.vision_feature_select_strategy != "default":
        raise ConfigError(
            f"{model!r} reads vision_feature_layer {config.vision_feature_layer} with strategy "
            f"{config.vision_feature_select_strategy!r}; supported: one layer with strategy 'default'"
        )
    if isinstance(config, LlavaNextConfig) and getattr(config, COS_KEY, None) is not None:
        raise ConfigError(
            f"{model!r} is a LLaVA-NeXT, which looks at tiles; a chain-of-sight projector needs a LLaVA-1.5 checkpoint"
        )
    return config


def context_tokens(config: LlavaConfig | LlavaNextConfig) -> int:
    """Positions that a sequence may take: as many as every token can look back over, so that no sliding window cuts."""
    text = config.text_config
    window = getattr(text, "sliding_window", None)
    return int(min(text.max_position_embeddings, window or text.max_position_embeddings))


def visual_tokens(config: LlavaConfig | LlavaNextConfig, size: tuple[int, int] = (672, 672)) -> int:
    """Visual tokens that the vision side makes of one image.

    Args:
        size: height and width of the image in pixels, which matter only to models that cut it into tiles.
    """
    if isinstance(config, LlavaNextConfig):
        return TileLayout.of(*size, config).tokens
    grid = patch_grid(config)
    return sum(scale.tokens(grid) for scale in carried_scales(config)) or grid**2


def patch_grid(config: LlavaConfig | LlavaNextConfig) -> int:
    """Patches along each side of what the tower sees at a time."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def pooled_from(config: LlavaConfig | LlavaNextConfig) -> int:
    """Of an image's tokens, how many of the first no summary is pooled over.

    Those of the coarsest scale where others follow; a single scale is pooled over like any visual tokens.
    """
    scales = carried_scales(config)
    return scales[0].tokens(patch_grid(config)) if len(scales) > 1 else 0


def carried_scales(config: LlavaConfig | LlavaNextConfig) -> tuple[Scale, ...]:
    """The scales of a chain-of-sight projector; none where the checkpoint has an ordinary one.

    Raises:
        ConfigError: the checkpoint carries something that is no list of scales.
    """
    carried = getattr(config, COS_KEY, None)
    if carried is None:
        return ()
    try:
        return tuple(Scale(int(window), int(queries)) for window, queries in carried)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the checkpoint's config.json has no valid {COS_KEY!r}: {carried!r}") from error


def carried_skip(config: LlavaConfig | LlavaNextConfig) -> SkipConfig:
    """The setting that a checkpoint was fine-tuned with; `SkipConfig()` if it carries none.

    Raises:
        ConfigError: the checkpoint carries something that is no SkipConfig.
    """
    carried = getattr(config, CONFIG_KEY, None)
    if carried is None:
        return SkipConfig()
    try:
        return SkipConfig(**carried)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"the checkpoint's config.json has no valid {CONFIG_KEY!r}: {carried!r}") from error


def choose_skip(wish: str | SkipConfig, config: LlavaConfig | LlavaNextConfig) -> SkipConfig:
    """Turn what the user said into a SkipConfig: `auto` is what the checkpoint carries."""
    if isinstance(wish, SkipConfig):
        return wish
    return carried_skip(config) if wish.strip() == "auto" else SkipConfig.parse(wish)


def check_fits(skip: SkipConfig, config: LlavaConfig | LlavaNextConfig) -> None:
    """Refuse a setting that the images of a checkpoint cannot satisfy.

    Raises:
        ConfigError: naming the numbers that do not fit.
    """
    plan_image(skip, visual_tokens(config))
    check_vision_side(skip, config)


def check_vision_side(skip: SkipConfig, config: LlavaConfig | LlavaNextConfig) -> None:
    """Refuse what a checkpoint's vision side does not give, however large an image is.

    Raises:
        ConfigError: nothing is left to pool a summary over, or its images have one size.
    """
    check_pooled(skip, pooled_from(config))
    check_resize(skip, can_resize=can_resize(config))


def can_resize(config: LlavaConfig | LlavaNextConfig) -> bool:
    """Whether the checkpoint takes smaller pictures than its own: not where they are cut into tiles or windows."""
    return isinstance(config, LlavaConfig) and getattr(config, COS_KEY, None) is None


def check_resize(skip: SkipConfig, *, can_resize: bool) -> None:
    """Refuse a smaller picture where a checkpoint cannot take one.

    Raises:
        ConfigError: it cannot, and `skip` wishes it.
    """
    if skip.resized_side is not None and not can_resize:
        raise ConfigError(
            f"{skip.describe()} shows the tower a smaller picture, and this checkpoint cuts pictures of one size into "
            f"tiles or windows; use uniform:{skip.retain} or saliency:{skip.retain}"
        )


def scaled_paper_setting(tokens: int) -> SkipConfig:
    """The paper's 100/156 of 576, scaled to an encoder of `tokens` visual tokens and rounded down."""
    retain, skipped = math.floor(tokens * 100 / 576), math.floor(tokens * 156 / 576)
    return SkipConfig(retain=retain, merge_skipped_to=skipped, summarise=True, forget_skipped=True)


def load_summary(model: str | Path, hidden: int) -> SummaryPooling | None:
    """The checkpoint's summary module, float32 on the CPU; None if it has none."""
    summary = SummaryPooling(hidden)
    return summary.eval() if load_module(model, SUMMARY_FILE, summary) else None


def load_module(model: str | Path, name: str, module: nn.Module, *, required: bool = False) -> bool:
    """Fill a module from a file beside the checkpoint's weights; whether there is one.

    Raises:
        ConfigError: it is required and is not there, or holds another module.
    """
    found = cached_file(str(model), name, _raise_exceptions_for_missing_entries=False)
    if found is None:
        if required:
            raise ConfigError(f"{str(model)!r} has no {name}, which its config.json calls for")
        return False
    try:
        module.load_state_dict(load_file(found))
    except RuntimeError as error:
        raise ConfigError(f"{name} of {str(model)!r} does not fit its config.json: {error}") from error
    return True


def save_module(path: Path, module: nn.Module) -> None:
    """Write a module's weights beside a checkpoint's."""
    save_file({name: p.detach().cpu().contiguous() for name, p in module.state_dict().items()}, path)


def save_skip(folder: Path, config: SkipConfig, summary: SummaryPooling | None) -> None:
    """Make a saved transformers folder carry `config`, and the summary module if there is one."""
    path = folder / "config.json"
    setting = dataclasses.asdict(config)
    del setting["reducer"]  # nothing is trained with one
    carried = json.loads(path.read_text()) | {CONFIG_KEY: setting}
    path.write_text(json.dumps(carried, indent=2, sort_keys=True) + "\n")
    if summary is not None:
        save_module(folder / SUMMARY_FILE, summary)
