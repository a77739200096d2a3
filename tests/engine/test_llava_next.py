"""The engine on LLaVA-NeXT, whose images differ in their number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaNextForConditionalGeneration

from skipvision.engine import Engine, Request, Sampling
from skipvision.families import Family, load_family
from skipvision.families.checkpoint import save_skip
from skipvision.method.plan import SkipConfig
from skipvision.method.summary import SummaryPooling
from tests.engine.subjects import as_stock, picture
from tests.tiny_llava import build_tiny_llava

SKIP = SkipConfig(retain=16, merge_skipped_to=12, summarise=True, forget_skipped=True)
"""The paper's 576/576 of 2880, in small: the thumbnail retained, tiles merged."""
SIZES = ((64, 64), (30, 100), (90, 40), (33, 64), (500, 333))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_llava(tmp_path_factory.mktemp("next"), tiled=True)
    torch.manual_seed(1)
    summary = SummaryPooling(64)
    torch.nn.init.normal_(summary.score.weight)
    save_skip(folder, SKIP, summary)
    return folder


@pytest.fixture(scope="module")
def family(folder: Path) -> Family:
    return load_family(folder, device="cpu", dtype="float32")


def pictures(count: int, first: int = 0) -> list[np.ndarray]:
    sizes = [SIZES[(first + i) % len(SIZES)] for i in range(count)]
    return [picture(first + i, height=height, width=width) for i, (height, width) in enumerate(sizes)]


QUESTIONS = [
    ("what is in the picture", pictures(1)),
    ("how many", pictures(2, 1)),
    ("describe", []),
    ("is the red one big ?", pictures(1, 3)),
    ("what colour", pictures(1, 4)),
]


def requests(engine: Engine, **changes: Any) -> list[Request]:
    sampling = Sampling(max_tokens=10, ignore_eos=True)
    return [
        Request(prompt=text, images=tuple(map(engine.prepare, images)), **({"sampling": sampling} | changes))
        for text, images in QUESTIONS
    ]


def outputs(engine: Engine, asked: Sequence[Request]) -> list[tuple[int, ...]]:
    return [answer.output_ids for answer in engine.answer(asked)]


def test_with_nothing_skipped_it_says_what_transformers_says(folder: Path, family: Family) -> None:
    stock = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    engine = Engine(family)
    for (prompt, images), answer in zip(QUESTIONS, engine.answer(requests(engine)), strict=True):
        inputs = as_stock(processor, prompt, images)
        with torch.no_grad():
            plain = stock.generate(**inputs, max_new_tokens=10, do_sample=False, eos_token_id=None)
        assert answer.plan.prompt_tokens == inputs["input_ids"].shape[1]
        assert list(answer.output_ids) == plain[0, inputs["input_ids"].shape[1] :].tolist()


def test_skipping_retains_the_thumbnail_and_merges_the_rest(family: Family) -> None:
    engine = Engine(family, skip=SKIP)
    for (_, images), answer in zip(QUESTIONS, engine.answer(requests(engine)), strict=True):
        plan = answer.plan
        assert plan.retained_tokens == 16 * len(images)
        assert plan.skipped_tokens == 12 * len(images)
        assert plan.retained_tokens + plan.skipped_tokens + plan.merged_tokens == plan.visual_tokens


LIMITS = [{"max_running": 1}, {"max_step_tokens": 21}, {"max_step_tokens": 1}, {"cache_tokens": 128}]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_want_of_room_changes_no_token(family: Family, limits: dict[str, int]) -> None:
    roomy, narrow = Engine(family, skip=SKIP), Engine(family, skip=SKIP, **limits)
    asked = [request for n in range(3) for request in requests(roomy, sampling=Sampling(max_tokens=9 + 6 * n))]
    asked += [replace(request, skip=SkipConfig(), request_id=f"all {i}") for i, request in enumerate(requests(roomy))]
    if "cache_tokens" in limits:
        asked = asked[:15]  # with all tokens two images alone would not fit
    assert outputs(narrow, asked) == outputs(roomy, asked)
    assert narrow.stats().free_pages == narrow.stats().num_pages


@pytest.mark.parametrize("limits", [{}, {"max_step_tokens": 13}], ids=str)
def test_questions_about_one_image_share_its_reading(family: Family, limits: dict[str, int]) -> None:
    engine = Engine(family, skip=SKIP, **limits)
    image = engine.prepare(pictures(1)[0])
    sampling = Sampling(max_tokens=8, ignore_eos=True)
    asked = [Request(prompt=f"what {word}", images=(image,), sampling=sampling) for word in ("is", "colour", "shape")]
    assert outputs(engine, asked) == outputs(Engine(family, skip=SKIP, max_running=1), asked)
    assert engine.stats().shared_prompt_tokens > 0
