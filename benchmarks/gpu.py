"""The engine on a GPU: whether it says what it says on a CPU, then how fast it is beside transformers' `generate`.

`python -m benchmarks.gpu --shape 7b`, unattended and without a network; docs/performance.md says how. Weights are drawn
on the device, and both use the same ones. In every round each setting and each batch size has a turn, and the device's
own ceilings are measured with them; what comes after the rounds (graphs off, one image alone) says so.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import AutoProcessor, LlavaConfig, LlavaNextConfig

from benchmarks.engines import SETTINGS
from benchmarks.gpu_correctness import attention_errors, engine_agreement
from benchmarks.limits import decode_bytes, work_of
from benchmarks.machine import ROOT, copy_rate, dtype_name, matmul_rate, spread, write_result
from benchmarks.random_llava import (
    SIDE,
    eight_billion,
    eight_billion_tiled,
    random_family,
    seven_billion,
    small,
    tiled,
)
from benchmarks.work import PROMPT
from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.families.llava import ATTENTION, LlavaFamily
from skipvision.method.plan import SkipConfig

TILED_SETTINGS = ("off", "576/576")
"""All tokens, and the setting of the paper's LLaVA-HD row."""
RESULT = ROOT / "benchmarks" / "results" / "gpu.json"


def tiny() -> LlavaConfig:
    """As many visual tokens as the others, and next to no width: for a trial on a CPU."""
    config = small()
    for part in (config.text_config, config.vision_config):
        part.hidden_size, part.intermediate_size, part.num_hidden_layers, part.num_attention_heads = 32, 32, 2, 2
    config.text_config.num_key_value_heads, config.text_config.head_dim = 1, 16
    return config


def tiny_tiled() -> LlavaNextConfig:
    """The same, looking at tiles."""
    config = tiny()
    return tiled(config.vision_config, config.text_config)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, and what it is asked."""

    config: Callable[[], LlavaConfig | LlavaNextConfig]
    settings: tuple[str, ...] = SETTINGS
    tiles: int = 1
    """That the encoder looks at for each image."""

    @property
    def side(self) -> int:
        """Of the images, in pixels."""
        return SIDE if self.tiles == 1 else 2 * SIDE


SHAPES = {
    "tiny": Shape(tiny),
    "tiny-hd": Shape(tiny_tiled, TILED_SETTINGS, tiles=5),
    "7b": Shape(seven_billion),
    "8b": Shape(eight_billion),
    "hd": Shape(eight_billion_tiled, TILED_SETTINGS, tiles=5),
}


def measure(
    shape: Annotated[list[str], typer.Option(help=f"{', '.join(SHAPES)}; once or more.")],
    device: Annotated[str, typer.Option(help="cuda; or cpu, to try the script.")] = "cuda",
    images: Annotated[int, typer.Option(min=1)] = 128,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    new_tokens: Annotated[int, typer.Option(min=1, help="Generated for every image; no answer ends earlier.")] = 64,
    running: Annotated[int, typer.Option(min=1, help="Requests that the engine answers at the same time.")] = 128,
    batch: Annotated[list[int], typer.Option(help="Batch sizes of transformers; the best one counts.")] = [16, 32, 64],  # noqa: B006
    checked: Annotated[int, typer.Option(min=1, help="Images whose answers are compared with those of the CPU.")] = 16,
    output: Annotated[Path, typer.Option(help="Where the JSON goes; written again after every part.")] = RESULT,
) -> None:
    """Check, measure, and write one JSON file."""
    where = torch.device(device)
    narrow = torch.bfloat16 if where.type == "cuda" else torch.float32
    result: dict[str, Any] = {"dtype": dtype_name(narrow)}

    def note(part: str, found: Any) -> None:
        result[part] = found
        write_result(output, "gpu", result)

    note("attention_errors", attention_errors(where, narrow))
    note("agreement_with_cpu", engine_agreement(where, narrow, images=checked, new_tokens=new_tokens))
    for name in shape:
        found = compare(
            SHAPES[name], device=where, dtype=narrow, images=images, rounds=rounds, new_tokens=new_tokens,
            running=running, batches=batch,
        )  # fmt: skip
        note(name, found)
        release(where)


def compare(
    shape: Shape, *, device: torch.device, dtype: torch.dtype, images: int, rounds: int, new_tokens: int,
    running: int, batches: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    """The engine under each setting, with graphs and without, and transformers at each batch size."""
    pictures = list(np.random.default_rng(0).integers(0, 256, (images, shape.side, shape.side, 3), dtype=np.uint8))
    with TemporaryDirectory() as folder:
        family = random_family(Path(folder), shape.config(), device=device, dtype=dtype)
        stock = Stock(family, folder, pictures, new_tokens)
    ours = Ours(family, shape, pictures, new_tokens, running=running, cuda_graphs=True)
    peers, absent = stock.that_fit(batches)
    work = {f"skipvision {setting}": ours.of(setting) for setting in shape.settings} | peers
    seconds, outputs, ceilings = take_turns(work, device, dtype, rounds)
    runs = [
        {"name": name, "images_per_second": spread([images / each for each in seconds[name]])}
        | (ours.facts(setting, ceilings) if (setting := name.removeprefix("skipvision ")) in ours.answers else {})
        for name in work
    ]
    alone = {f"skipvision {setting}": ours.alone(setting, rounds) for setting in shape.settings}
    alone["transformers"] = {"seconds": spread([timed(lambda: stock.answer(0, 1)) for _ in range(rounds)])}
    attention = ours.engine.attention
    ours.close()
    ungraphed = Ours(family, shape, pictures, new_tokens, running=running, cuda_graphs=False)
    theirs = next((outputs[name] for name in peers), None)
    found = {
        "images": images,
        "rounds": rounds,
        "new_tokens": new_tokens,
        "running": running,
        **ceilings,
        "runs": runs,
        "absent": absent,
        "attention": attention,
        "attention_without_graphs": ungraphed.engine.attention,
        "alone_after_the_rounds": alone,
        "without_graphs_after_the_rounds": {
            setting: spread([images / timed(ungraphed.of(setting)) for _ in range(rounds)])
            for setting in shape.settings
        },
        "same_tokens_as_transformers": theirs
        and sum(a == b for a, b in zip(outputs["skipvision off"], theirs, strict=True)),
    }
    ungraphed.close()
    return found


def take_turns(
    work: dict[str, Callable[[], list[tuple[int, ...]]]], device: torch.device, dtype: torch.dtype, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[tuple[int, ...]]], dict[str, dict[str, float]]]:
    """Run everything in every round, from either end in turn: seconds, outputs, and the device's ceilings."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    outputs: dict[str, list[tuple[int, ...]]] = {}
    matmul, copy = [], []
    for number in range(rounds):
        matmul.append(matmul_rate(device, dtype))
        copy.append(copy_rate(device))
        for name in list(work)[:: 1 if number % 2 == 0 else -1]:
            started = perf_counter()
            outputs[name] = work[name]()
            seconds[name].append(perf_counter() - started)
    return seconds, outputs, {"matmul_flops_per_second": spread(matmul), "copy_bytes_per_second": spread(copy)}


class Ours:
    """One engine, whose requests bring their settings."""

    def __init__(
        self,
        family: LlavaFamily,
        shape: Shape,
        pictures: list[np.ndarray],
        new_tokens: int,
        *,
        running: int,
        cuda_graphs: bool,
    ) -> None:
        started = perf_counter()
        self.family, self._tiles, self._new_tokens, self._running = family, shape.tiles, new_tokens, running
        self.engine = Engine(
            family, skip=SkipConfig(), max_running=running, vision_cache_bytes=0, cuda_graphs=cuda_graphs
        )
        self.start_seconds = perf_counter() - started
        self._images = [self.engine.prepare(picture) for picture in pictures]
        self.answers: dict[str, list[Answer]] = {}
        self._stages: dict[str, list[dict[str, float]]] = {}
        for setting in shape.settings:  # warm up: kernels are chosen and compiled by size
            self.engine.answer(self._requests(setting)[: max(2, running // 4)])

    def of(self, setting: str) -> Callable[[], list[tuple[int, ...]]]:
        """What answers every image under one setting."""

        def run() -> list[tuple[int, ...]]:
            before = self.engine.stats().stage_seconds
            self.answers[setting] = self.engine.answer(self._requests(setting))
            after = self.engine.stats().stage_seconds
            self._stages.setdefault(setting, []).append({stage: after[stage] - before[stage] for stage in after})
            return [answer.output_ids for answer in self.answers[setting]]

        return run

    def alone(self, setting: str, rounds: int) -> dict[str, Any]:
        """One image at a time: the whole answer, and its first token."""
        answers = [self.engine.answer(self._requests(setting)[:1])[0] for _ in range(rounds)]
        return {
            "seconds": spread([answer.seconds for answer in answers]),
            "first_token_seconds": spread([answer.first_token_seconds for answer in answers]),
        }

    def facts(self, setting: str, ceilings: dict[str, dict[str, float]]) -> dict[str, Any]:
        """Seconds by stage, modelled work, and the images per second that the ceilings would allow for it."""
        answers, stages = self.answers[setting], self._stages[setting]
        work = work_of(self.family, answers[0].plan, output_tokens=self._new_tokens, tiles=self._tiles)
        read = decode_bytes(work, requests=len(answers), max_running=self._running)
        flops = len(answers) * (work["executed_flops"]["encoder"] + work["executed_flops"]["prefill"])
        least_seconds = flops / ceilings["matmul_flops_per_second"]["median"]
        least_seconds += read / ceilings["copy_bytes_per_second"]["median"]
        return {
            **{f"{stage}_seconds": spread([each[stage] for each in stages]) for stage in stages[0]},
            "work": work,
            "decode_bytes": read,
            "limit_images_per_second": len(answers) / least_seconds,
            "prompt_tokens": answers[0].plan.prompt_tokens,
            "cache_tokens": self.engine.cache_tokens,
            "preemptions": self.engine.stats().preemptions,
            "start_seconds": self.start_seconds,
        }

    def close(self) -> None:
        """Give the device's memory back, recorded graphs included."""
        self.engine.close()
        del self.engine
        release(self.family.device)

    def _requests(self, setting: str) -> list[Request]:
        skip, sampling = SkipConfig.parse(setting), Sampling(max_tokens=self._new_tokens, ignore_eos=True)
        return [Request(prompt=PROMPT, images=(image,), skip=skip, sampling=sampling) for image in self._images]


class Stock:
    """`generate` over the same weights: transformers' own attention (SDPA), a cache, equal prompts in one batch."""

    def __init__(self, family: LlavaFamily, folder: str, pictures: list[np.ndarray], new_tokens: int) -> None:
        processor = AutoProcessor.from_pretrained(folder)
        content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        self._family, self._new_tokens = family, new_tokens
        self._inputs = processor(text=[text] * len(pictures), images=pictures, return_tensors="pt")

    def that_fit(self, batches: Sequence[int]) -> tuple[dict[str, Callable[[], list[tuple[int, ...]]]], dict[str, str]]:
        """What answers every image in batches of each size that memory holds; and why the others are absent."""
        fit: dict[str, Callable[[], list[tuple[int, ...]]]] = {}
        absent: dict[str, str] = {}
        for size in batches:
            name = f"transformers, batch {size}"
            try:
                self.answer(0, size)  # warm up
                fit[name] = self._in_batches_of(size)
            except torch.OutOfMemoryError as error:
                absent[name] = str(error).splitlines()[0]
        return fit, absent

    @torch.inference_mode()
    def answer(self, start: int, stop: int) -> list[tuple[int, ...]]:
        """Answer images [start, stop) as one batch."""
        family = self._family
        some = {name: tensor[start:stop].to(family.device) for name, tensor in self._inputs.items()}
        some["pixel_values"] = some["pixel_values"].to(family.dtype)
        with stock_attention(family):
            output = family.model.generate(
                **some, max_new_tokens=self._new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        return [tuple(ids) for ids in output[:, some["input_ids"].shape[1] :].tolist()]

    def _in_batches_of(self, size: int) -> Callable[[], list[tuple[int, ...]]]:
        starts = range(0, len(self._inputs["input_ids"]), size)
        return lambda: [ids for start in starts for ids in self.answer(start, start + size)]


@contextmanager
def stock_attention(family: LlavaFamily) -> Iterator[None]:
    """Inside the block the decoder attends as transformers has it."""
    decoder = family.model.model.language_model
    decoder.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        decoder.set_attn_implementation(ATTENTION)


def release(device: torch.device) -> None:
    """Give back the device's memory that nothing refers to."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes whose result is on the host."""
    started = perf_counter()
    work()
    return perf_counter() - started


if __name__ == "__main__":
    typer.run(measure)
