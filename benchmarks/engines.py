"""The engine beside transformers' `generate` on the same work: the same images, prompt and number of new tokens.

`make bench`, or `python -m benchmarks.engines --help`. Weights are random, so that nothing is said about answers here;
both read the same checkpoint folder and start from prepared images. In every round all of them answer every image
once, in an order that turns, and the machine's matrix rate is measured with them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

from benchmarks.machine import ROOT, circumstances, matmul_rate, spread
from benchmarks.random_llava import SIDE, save_random, small
from benchmarks.skipping import modelled
from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.families import Family, load_family
from skipvision.method.plan import SkipConfig

RESULT = ROOT / "benchmarks" / "results" / "engines.json"
SETTINGS = ("off", "256/320", "100/156", "64/156")
"""All tokens, and the settings of the paper's LLaVA rows."""
PROMPT = "How many large red circles are there in the image, and where are they?"


def measure(
    images: Annotated[int, typer.Option(min=1)] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    new_tokens: Annotated[int, typer.Option(min=1, help="Generated for every image; no answer ends earlier.")] = 32,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    result = {
        "benchmark": "engines",
        **circumstances(),
        **compare(small(), images=images, rounds=rounds, new_tokens=new_tokens, batches=(8, 16)),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"written: {os.path.relpath(output)}")


def compare(
    config: LlavaConfig, *, images: int, rounds: int, new_tokens: int, batches: Sequence[int]
) -> dict[str, Any]:
    """Let the engine under each setting, and transformers at each batch size, take turns."""
    pictures = list(np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8))
    with TemporaryDirectory() as folder:
        save_random(Path(folder), config, dtype=torch.float32)
        family = load_family(folder, device="cpu", dtype="float32")
        ours = {f"skipvision {setting}": Ours(family, setting, pictures, new_tokens) for setting in SETTINGS}
        stock = Transformers(folder, pictures, new_tokens)
        work = {name: engine.run for name, engine in ours.items()}
        work |= {f"transformers, batch {size}": stock.in_batches_of(size) for size in batches}
        seconds, outputs, rates = take_turns(work, family, rounds)
    theirs = outputs[f"transformers, batch {batches[0]}"]
    return {
        "dtype": "float32",
        "images": images,
        "rounds": rounds,
        "new_tokens": new_tokens,
        "matmul_flops_per_second": spread(rates),
        "runs": [
            {
                "name": name,
                "images_per_second": spread([images / each for each in seconds[name]]),
                **(ours[name].facts() if name in ours else {}),
            }
            for name in work
        ],
        "same_tokens_as_transformers": sum(a == b for a, b in zip(outputs["skipvision off"], theirs, strict=True)),
    }


def take_turns(
    work: dict[str, Callable[[], list[tuple[int, ...]]]], family: Family, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[tuple[int, ...]]], list[float]]:
    """Run everything in every round; the first round begins with the first, the second with the last."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    outputs: dict[str, list[tuple[int, ...]]] = {}
    rates = []
    for number in range(rounds):
        rates.append(matmul_rate(family.device, family.dtype))
        for name in list(work)[:: 1 if number % 2 == 0 else -1]:
            started = perf_counter()
            outputs[name] = work[name]()
            seconds[name].append(perf_counter() - started)
    return seconds, outputs, rates


class Ours:
    """The engine under one setting."""

    def __init__(self, family: Family, setting: str, pictures: list[np.ndarray], new_tokens: int) -> None:
        self.family = family
        self.engine = Engine(family, skip=SkipConfig.parse(setting), vision_cache_bytes=0)
        sampling = Sampling(max_tokens=new_tokens, ignore_eos=True)
        self.requests = [
            Request(prompt=PROMPT, images=(self.engine.prepare(picture),), sampling=sampling, request_id=str(index))
            for index, picture in enumerate(pictures)
        ]
        self.answers: list[Answer] = self.engine.answer(self.requests[:2])  # warm up
        self.stages: list[dict[str, float]] = []

    def run(self) -> list[tuple[int, ...]]:
        """Answer every image."""
        before = dict(self.engine.stage_seconds)
        self.answers = self.engine.answer(self.requests)
        self.stages.append({stage: after - before[stage] for stage, after in self.engine.stage_seconds.items()})
        return [answer.output_ids for answer in self.answers]

    def facts(self) -> dict[str, Any]:
        """Seconds by stage, and what the formulas and a count of the encoder say the work was."""
        return {
            **{f"{stage}_seconds": spread([each[stage] for each in self.stages]) for stage in self.stages[0]},
            **modelled(self.family, self.answers),
            "encoder_flops": encoder_flops(self.family, self.requests[0]) * len(self.answers),
            "prompt_tokens": self.answers[0].plan.prompt_tokens,
        }


def encoder_flops(family: Family, request: Request) -> int:
    """Counted operations of the vision side for one image of a request, to the layer that is read."""
    with FlopCounterMode(display=False) as counter:
        family.encode(torch.from_numpy(request.images[0])[None].to(family.device))
    return int(counter.get_total_flops())


class Transformers:
    """`generate` of the stock model with everything it recommends: SDPA, a cache, equal prompts in one batch."""

    def __init__(self, folder: str, pictures: list[np.ndarray], new_tokens: int) -> None:
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        processor = AutoProcessor.from_pretrained(folder)
        content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        self.inputs = processor(text=[text] * len(pictures), images=pictures, return_tensors="pt")
        self.new_tokens = new_tokens
        self._answer(0, 1)  # warm up

    def in_batches_of(self, size: int) -> Callable[[], list[tuple[int, ...]]]:
        """What answers every image, `size` at a time."""
        starts = range(0, len(self.inputs["input_ids"]), size)
        return lambda: [tuple(ids) for start in starts for ids in self._answer(start, start + size)]

    def _answer(self, start: int, stop: int) -> list[list[int]]:
        some = {name: tensor[start:stop] for name, tensor in self.inputs.items()}
        output = self.model.generate(
            **some, max_new_tokens=self.new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        generated: list[list[int]] = output[:, some["input_ids"].shape[1] :].tolist()
        return generated


if __name__ == "__main__":
    typer.run(measure)
