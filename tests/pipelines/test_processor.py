"""Ray Data LLM's way to ask: its rows, its arguments and its configs, on this engine."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.data
from PIL import Image
from ray import cloudpickle
from ray.data.llm import HttpRequestProcessorConfig, vLLMEngineProcessorConfig

from pipelines import ProcessorConfig, build_processor
from skipvision.conversation import ImagePart, Message
from skipvision.engine import Engine, Request, Sampling
from skipvision.errors import ConfigError
from skipvision.images import read_image
from tests.image_files import picture, saved

# As a user's script is sent to Ray's processes, which need not be able to import it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(saved(picture(seed), "PNG"))
    return paths


def asks(image: Any, text: str = "what is in the picture ?") -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def answer_alone(model: Path, images: list[Path], *, max_tokens: int) -> list[str]:
    """What the engine says of each image."""
    engine = Engine.load(model, dtype="float32")
    prompt = (Message("user", (ImagePart(), "what is in the picture ?")),)
    return [
        answer.text
        for answer in engine.answer(
            [
                Request(prompt=prompt, images=(engine.prepare(read_image(path)),),
                        sampling=Sampling(max_tokens=max_tokens))
                for path in images
            ]
        )
    ]  # fmt: skip


def test_rows_of_ray_data_llm_are_answered_with_its_own_config(tiny_model, local_ray, images, caplog):
    config = vLLMEngineProcessorConfig(
        model_source=str(tiny_model), batch_size=2, engine_kwargs={"dtype": "float32", "max_num_seqs": 4,
                                                                   "enable_prefix_caching": True},
    )  # fmt: skip
    with caplog.at_level(logging.WARNING, "pipelines.processor"):
        processor = build_processor(
            config,
            preprocess=lambda row: {
                "messages": asks(Image.open(row["file"])),
                "sampling_params": {"max_tokens": 5, "temperature": 0.0, "detokenize": True},
            },
            postprocess=lambda row: {"answer": row["generated_text"], "file": row["file"],
                                     "tokens": row["num_generated_tokens"], "visual": row["num_visual_tokens"]},
        )  # fmt: skip
    assert "enable_prefix_caching" in caplog.text
    rows = processor(ray.data.from_items([{"file": str(path)} for path in images])).take_all()
    found = {row["file"]: row["answer"] for row in rows}
    expected = answer_alone(tiny_model, images, max_tokens=5)
    assert [found[str(path)] for path in images] == expected
    assert len(set(expected)) > 1
    assert {(row["tokens"], row["visual"]) for row in rows} == {(5, 16)}


def test_a_row_that_is_wrong_goes_on_with_its_reason_past_postprocess(tiny_model, local_ray, images):
    wrong = [
        {"id": 1, "messages": asks("https://127.0.0.1/a.png")},
        {"id": 2, "messages": "nothing"},
        {"id": 3, "messages": asks(str(images[0])), "sampling_params": {"temperature": -1}},
        {"id": 4, "messages": asks(str(images[0])), "sampling_params": {"guided_json": "{}"}},
    ]
    right = [{"id": 0, "messages": asks(images[0].read_bytes()), "sampling_params": {"max_tokens": 3}}]
    lines = [json.dumps(row) for row in wrong]
    processor = build_processor(
        ProcessorConfig(model_source=str(tiny_model), should_continue_on_error=True, dtype="float32"),
        preprocess=lambda row: json.loads(row["line"]) if row["line"] else right[0],
        postprocess=lambda row: {"id": row["id"], "said": row["generated_text"]},
    )
    rows = processor(ray.data.from_items([{"line": line} for line in [*lines, ""]])).take_all()
    by_id = {row["id"]: row for row in rows}
    reasons = [by_id[number]["__inference_error__"].partition(":")[0] for number in range(5)]
    assert reasons == ["", "url_refused", "messages_invalid", "sampling_invalid", "parameter_unsupported"]
    assert by_id[0]["said"]
    assert "line" in by_id[1], "an error row is what it was before postprocess"


def test_a_row_that_is_wrong_ends_everything_where_that_was_asked_for(tiny_model, local_ray):
    processor = build_processor(ProcessorConfig(model_source=str(tiny_model)), preprocess=lambda row: {"messages": []})
    with pytest.raises(Exception, match="messages must be a list"):
        processor(ray.data.from_items([{"id": 1}])).take_all()


def test_pictures_may_be_arrays_of_pixels_as_pillow_makes_them(tiny_model, local_ray, images):
    pixels = np.asarray(Image.open(images[0]))
    processor = build_processor(
        ProcessorConfig(model_source=str(tiny_model), dtype="float32"),
        preprocess=lambda row: {"messages": asks(Image.fromarray(pixels)), "sampling_params": {"max_tokens": 4}},
    )
    [row] = processor(ray.data.from_items([{"id": 7}])).take_all()
    assert [row["generated_text"]] == answer_alone(tiny_model, images[:1], max_tokens=4)
    assert (row["id"], "__inference_error__" in row) == (7, False)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (HttpRequestProcessorConfig(url="https://a"), "names no model_source"),
        (vLLMEngineProcessorConfig(model_source="zoo", engine_kwargs={"tensor_parallel_size": 4}), "one device"),
        (vLLMEngineProcessorConfig(model_source="zoo", engine_kwargs={"trust_remote_code": True}), "trust_remote_code"),
        (ProcessorConfig(model_source="no/such/model-anywhere"), "no/such/model-anywhere"),
        (ProcessorConfig(skip="7"), "skip"),
    ],
)
def test_what_this_engine_cannot_do_is_refused_before_anything_starts(config, says, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=says):
        build_processor(config)


@pytest.mark.parametrize("wish", [{"batch_size": 0}, {"concurrency": 0}, {"concurrency": (3, 2)}, {"max_running": 0}])
def test_settings_out_of_range_are_refused(wish):
    with pytest.raises(ConfigError, match=next(iter(wish))):
        ProcessorConfig(**wish)
