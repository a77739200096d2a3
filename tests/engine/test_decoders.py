"""Each kind of decoder says through the engine what it says through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from skipvision.engine import Engine, Request, Sampling
from skipvision.errors import PromptTooLongError
from skipvision.families import load_family
from tests.engine.subjects import as_stock, picture
from tests.tiny_llava import build_tiny_llava

WINDOW = 48
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied": {"decoder": "llama", "tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
    "mistral, windowed": {"decoder": "mistral", "sliding_window": WINDOW},
    "qwen2": {},
    "qwen2, windowed": {
        "decoder": "qwen2",
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
}


def build(folder: Path, kind: str) -> Path:
    return build_tiny_llava(folder, **({"decoder": kind} | KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_with_nothing_skipped_it_says_what_transformers_says(tmp_path: Path, kind: str) -> None:
    folder = build(tmp_path, kind)
    stock = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    engine = Engine(load_family(folder, device="cpu", dtype="float32"))
    shown = [picture(0)]
    inputs = as_stock(processor, "describe the picture", shown)
    new_tokens = WINDOW - inputs["input_ids"].shape[1]

    output = stock.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, eos_token_id=None)
    [answer] = engine.answer(
        [
            Request(
                prompt="describe the picture",
                images=tuple(map(engine.prepare, shown)),
                sampling=Sampling(max_tokens=new_tokens, ignore_eos=True),
            )
        ]
    )
    assert list(answer.output_ids) == output[0, -new_tokens:].tolist()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "windowed" in kind])
def test_no_sequence_grows_longer_than_a_sliding_window(tmp_path: Path, kind: str) -> None:
    engine = Engine(load_family(build(tmp_path, kind), device="cpu", dtype="float32"))
    with pytest.raises(PromptTooLongError) as refusal:
        engine.add(Request(prompt="red " * WINDOW, sampling=Sampling(max_tokens=8)))
    assert refusal.value.limit_tokens == WINDOW - 8
