"""LoRA adapters in peft's format, many over one decoder: each row of a step is changed by its own request's adapter."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear

from skipvision.errors import ConfigError

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"

RowKind = Literal["all", "ffn", "wanted"]
"""Which rows of the packed step a linear layer is given; see `Family.read`."""

_KEY = re.compile(r"base_model\.model\.((?:model\.|language_model\.)*layers\.(\d+)\.(\w+)\.(\w+))\.lora_([AB])\.weight")

# What changes the arithmetic beyond a low-rank product, wherever it is set.
_UNSUPPORTED = (
    "use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config",
    "monteclora_config", "layer_replication", "modules_to_save", "target_parameters", "trainable_token_indices",
    "fan_in_fan_out", "lora_bias",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """A linear layer of the decoder."""

    layer: int
    block: str
    """`self_attn` or `mlp`."""
    name: str
    """For example `q_proj`."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one linear layer: `up @ down @ x`."""

    down: Tensor
    """(rank, inputs)"""
    up: Tensor
    """(outputs, rank), scaled."""


Adapter = Mapping[Place, LowRank]

AdapterRows = Mapping[RowKind, Mapping[str, Tensor]]
"""Of each kind of rows, and each adapter that has some of them: which, as (rows,) int64 places among that kind."""


def load_adapter(name: str, folder: str | Path) -> Adapter:
    """Read an adapter that peft saved.

    Raises:
        ConfigError: it is none, is damaged, or does more than change the decoder's linear layers by low-rank products.
    """
    config, weights = _read_files(name, Path(folder))
    _check_config(name, config)
    halves: dict[Place, dict[str, Tensor]] = {}
    paths: dict[Place, str] = {}
    for key, tensor in weights.items():
        found = _KEY.fullmatch(key)
        if found is None or found[3] not in {"self_attn", "mlp"}:
            raise ConfigError(
                f"adapter {name!r} changes {key!r}, and only the attention and feed-forward layers of the language "
                "model can be adapted; train it with target_modules that match nothing else"
            )
        place = Place(int(found[2]), found[3], found[4])
        halves.setdefault(place, {})[found[5]] = tensor
        paths[place] = found[1]
    adapter: dict[Place, LowRank] = {}
    for place, half in halves.items():
        if len(half) != 2 or half["A"].shape[0] != half["B"].shape[1]:
            raise ConfigError(f"adapter {name!r} has no matching pair of weights for {paths[place]}; save it again")
        adapter[place] = LowRank(half["A"], half["B"] * _scaling(config, paths[place], rank=len(half["A"])))
    return adapter


class LoraLinear(nn.Module):
    """A linear layer whose rows get what their adapters add."""

    def __init__(self, base: nn.Linear, added: Mapping[str, LowRank], kind: RowKind) -> None:
        super().__init__()
        self.base, self.added, self.kind = base, added, kind
        self.rows: Mapping[str, Tensor] = {}
        """Of this step, by adapter."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., rows, inputs) -> (..., rows, outputs)"""
        out: Tensor = self.base(x)
        for name, rows in self.rows.items():
            if low_rank := self.added.get(name):
                change = linear(linear(x.index_select(-2, rows), low_rank.down), low_rank.up)
                out.index_add_(-2, rows, change)
        return out


class AdapterSet:
    """All adapters of one engine over a decoder, which stands as it was between its steps.

    Args:
        layers: the decoder's, stock modules.
        adapters: by the name that requests give.

    Raises:
        ConfigError: an adapter is of another model.
    """

    def __init__(self, layers: Sequence[nn.Module], adapters: Mapping[str, Adapter]) -> None:
        self.names = tuple(adapters)
        self._wrapped: list[tuple[nn.Module, str, LoraLinear]] = []
        for place in sorted({place for adapter in adapters.values() for place in adapter}, key=str):
            added = {
                name: _fit(name, place, adapter[place], _linear_at(layers, place))
                for name, adapter in adapters.items()
                if place in adapter
            }
            kind = _kind(place, is_last=place.layer == len(layers) - 1)
            lora = LoraLinear(_linear_at(layers, place), added, kind)
            self._wrapped.append((getattr(layers[place.layer], place.block), place.name, lora))

    @contextmanager
    def applied(self, rows: AdapterRows) -> Iterator[None]:
        """Inside the block the decoder's linear layers add to `rows` what their adapters say."""
        wrapped = self._wrapped if rows["all"] else []
        try:
            for block, name, lora in wrapped:
                lora.rows = rows[lora.kind]
                setattr(block, name, lora)
            yield
        finally:
            for block, name, lora in wrapped:
                setattr(block, name, lora.base)


def _read_files(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        return json.loads((folder / CONFIG_NAME).read_text()), load_file(folder / WEIGHTS_NAME)
    except FileNotFoundError as error:
        raise ConfigError(
            f"adapter {name!r} is no folder with {CONFIG_NAME} and {WEIGHTS_NAME}, as peft saves them: {folder}"
        ) from error
    except (SafetensorError, ValueError, OSError) as error:
        raise ConfigError(f"adapter {name!r} in {folder} cannot be read; save it again") from error


def _check_config(name: str, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ConfigError(
            f"adapter {name!r} is of the kind {kind!r}; only LORA can be served, others merged beforehand"
        )
    used = [setting for setting in _UNSUPPORTED if config.get(setting)]
    if config.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise ConfigError(
            f"adapter {name!r} uses {', '.join(used)}; only plain LoRA can be served, others merged beforehand"
        )


def _scaling(config: Mapping[str, Any], path: str, *, rank: int) -> float:
    """As peft scales the product in one module: by its own alpha, where a pattern ends the module's path."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path))
    alpha = next(own, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _linear_at(layers: Sequence[nn.Module], place: Place) -> nn.Linear:
    block = getattr(layers[place.layer], place.block) if place.layer < len(layers) else None
    found = getattr(block, place.name, None)
    if not isinstance(found, nn.Linear):
        raise ConfigError(
            f"an adapter changes {place.block}.{place.name} of layer {place.layer}, which this model of {len(layers)} "
            "layers has not; use adapters that were trained on it"
        )
    return found


def _fit(name: str, place: Place, low_rank: LowRank, base: nn.Linear) -> LowRank:
    """The pair where and as the layer computes."""
    made_for, found = (low_rank.down.shape[1], low_rank.up.shape[0]), (base.in_features, base.out_features)
    if made_for != found:
        raise ConfigError(
            f"adapter {name!r} was made for {place.name} with {made_for[0]} inputs and {made_for[1]} outputs, and this "
            f"model's has {found[0]} and {found[1]}; use an adapter that was trained on it"
        )
    return LowRank(*(x.to(base.weight.device, base.weight.dtype) for x in (low_rank.down, low_rank.up)))


def _kind(place: Place, *, is_last: bool) -> RowKind:
    if is_last and place.name not in {"k_proj", "v_proj"}:
        return "wanted"
    return "ffn" if place.block == "mlp" else "all"
