"""What a shipped model can do, measured again from nothing: `skipvision zoo card`.

Held-out pictures are those with seeds below ten million; no stage of the recipe ever draws one of them.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from skipvision.evaluation import Trial, evaluate, exercise_items, scene_items, summarise
from skipvision.exercises import HELD_OUT_SEEDS, STRATA
from skipvision.families.checkpoint import carried_skip, read_config, resolve_model, visual_tokens

SCENES, EXERCISES = 500, 200
_MAX_TOKENS = 80


def measure(model: str | Path | None = None, *, scenes: int = SCENES, exercises: int = EXERCISES) -> dict[str, Any]:
    """Measure all tokens, the carried setting if there is one, and a blank picture.

    Args:
        scenes: held-out scenes, of each a caption and a question.
        exercises: held-out exercises of each stratum.

    Returns:
        The card: what the model is, and mean grades by setting and stratum; plain JSON values.
    """
    name, folder = None if model is None else str(model), Path(resolve_model(model))
    config = read_config(name)
    carried = carried_skip(config)
    wishes = ["off", "off@blank"] if carried.is_off else ["off", carried.describe(), f"{carried.describe()}@blank"]
    items = scene_items(seeds=HELD_OUT_SEEDS[:scenes])
    items += exercise_items([*STRATA], seeds=HELD_OUT_SEEDS[:exercises])
    trials = [Trial.parse(wish, model=name) for wish in wishes]
    summary = summarise(items, evaluate(items, trials, max_tokens=_MAX_TOKENS))
    return {
        "carried_skip": carried.describe(),
        "visual_tokens": visual_tokens(config),
        "parameters": sum(_parameters(file) for file in folder.glob("*.safetensors")),
        "weights_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "items": summary["strata"],
        "settings": {
            wish: {name: share["mean"] for name, share in trial["accuracy"].items() if name in summary["strata"]}
            for wish, trial in zip(wishes, summary["trials"], strict=True)
        },
        "same_answer": {wish: trial["same_answer"] for wish, trial in zip(wishes, summary["trials"], strict=True)},
    }


def _parameters(file: Path) -> int:
    with safe_open(file, framework="pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
