"""Whether the engine on a GPU says what it says on a CPU in float32, and how far its attention kernels round."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlavaConfig

from benchmarks.random_llava import save_random, small
from skipvision.engine import Answer, Engine, Request, Sampling
from skipvision.engine.cuda.probe import probe
from skipvision.engine.cuda.reference import packed_one_by_one, paged_one_by_one
from skipvision.engine.cuda.varlen import Segments
from skipvision.engine.pages import PAGE_TOKENS
from skipvision.families import load_family
from skipvision.method.flops import DecoderShape
from skipvision.scenes import scene

SETTINGS = ("off", "auto")
"""Nothing skipped, and what the checkpoint carries."""
HEADS = ((32, 32, 128), (32, 8, 128))
"""(heads, kv_heads, head_dim) of the 7B and 8B shapes."""


def engine_agreement(device: torch.device, narrow: torch.dtype, *, images: int, new_tokens: int) -> list[Any]:
    """For a random and the shipped model under each setting: equal answers in float32, equal choices in `narrow`."""
    torch.backends.cudnn.allow_tf32 = False  # as it is by default, convolutions round float32 to 10 bits
    with TemporaryDirectory() as folder:
        save_random(Path(folder), _grouped(), dtype=torch.float32)
        models = {"random": folder, "zoo": None}
        return [
            {"model": name, "skip": skip, **_agreement(model, skip, device, narrow, images, new_tokens)}
            for name, model in models.items()
            for skip in SETTINGS
        ]


def attention_errors(device: torch.device, dtype: torch.dtype) -> list[dict[str, Any]]:
    """The largest difference from float32 of each kernel that works here, beside that of torch's own attention."""
    found = []
    for heads, kv_heads, head_dim in HEADS:
        shape = DecoderShape(
            hidden=1, ffn_hidden=1, layers=1, heads=heads, kv_heads=kv_heads, head_dim=head_dim, vocab=1
        )
        sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
        found.append(sizes | _Errors(shape, device, dtype).all())
    return found


class Teacher:
    """A logits hook that forces known tokens and counts how often they would have been chosen."""

    def __init__(self, tokens: tuple[int, ...]) -> None:
        self.tokens, self.agreed = tokens, 0

    def __call__(self, output_ids: tuple[int, ...], logits: Tensor) -> Tensor:
        """See `skipvision.engine.logits_hook.LogitsHook`."""
        token = self.tokens[len(output_ids)]
        self.agreed += int(logits.argmax()) == token
        return torch.full_like(logits, -torch.inf).index_fill(0, torch.tensor(token, device=logits.device), 0.0)


def _grouped() -> LlavaConfig:
    """Narrow, with two heads to a key head, behind 576 visual tokens."""
    config = small()
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.head_dim = 256, 512, 2, 64
    text.num_attention_heads, text.num_key_value_heads = 4, 2
    vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers = 64, 64, 2
    return config


def _agreement(
    model: str | None, skip: str, device: torch.device, narrow: torch.dtype, images: int, new_tokens: int
) -> dict[str, Any]:
    sampling = Sampling(max_tokens=new_tokens, ignore_eos=True, logprobs=2)

    def ask(where: str, dtype: torch.dtype, hooks: list[Teacher] | None = None) -> list[Answer]:
        engine = Engine(load_family(model, device=where, dtype=str(dtype).removeprefix("torch.")))
        engine.skip = engine.family.carried_skip if skip == "auto" else engine.skip
        pictures = [engine.prepare(np.asarray(scene(seed).render())) for seed in range(images)]
        answers = engine.answer(
            [
                Request(prompt="Describe the image.", images=(picture,), skip=engine.skip, sampling=sampling,
                        logits_hook=hooks[place] if hooks else None)
                for place, picture in enumerate(pictures)
            ]
        )  # fmt: skip
        engine.close()
        return answers

    expected = ask("cpu", torch.float32)
    exact = ask(str(device), torch.float32)
    teachers = [Teacher(answer.output_ids) for answer in expected]
    ask(str(device), narrow, teachers)
    return {
        "images": images,
        "same_answers_in_float32": sum(a.output_ids == b.output_ids for a, b in zip(exact, expected, strict=True)),
        "gaps_where_they_part": [gap for pair in zip(exact, expected, strict=True) if (gap := _gap(*pair)) is not None],
        "same_choices_when_taught": sum(teacher.agreed for teacher in teachers) / (images * new_tokens),
    }


def _gap(answer: Answer, expected: Answer) -> float | None:
    """How much likelier the expected token was than the next where two answers part; None: they do not."""
    for place, (token, other) in enumerate(zip(answer.output_ids, expected.output_ids, strict=True)):
        if token != other:
            assert expected.logprobs is not None
            (_, first), (_, second) = expected.logprobs[place].likeliest
            return first - second
    return None


class _Errors:
    """Four sequences of up to 700 tokens in scattered pages; the same as packed rows."""

    def __init__(self, shape: DecoderShape, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = [1, 47, 160, 700]
        pages = torch.randperm(4 * 44, generator=generator).view(4, 44).to(device, torch.int32)

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=generator).to(device, dtype)

        tokens = 4 * 44 * PAGE_TOKENS
        self._abilities = probe(shape, device=device, dtype=dtype)
        self._scaling = shape.head_dim**-0.5
        self._q = draw(sum(lengths), shape.heads, shape.head_dim)
        keys, values = draw(2, shape.kv_heads, tokens, shape.head_dim)
        self._paged = (self._q[:4].contiguous(), keys, values, pages, torch.tensor(lengths, device=device).int())
        packed = (x[:, : sum(lengths)].transpose(0, 1).contiguous() for x in (keys, values))
        self._packed = (self._q, *packed, Segments.of(lengths, lengths, device))

    def all(self) -> dict[str, Any]:
        """By form, where it works: its own error, and that of torch's attention, sequence by sequence."""
        found: dict[str, Any] = {"notes": self._abilities.notes}
        exact = packed_one_by_one(*(x.float() for x in self._packed[:3]), self._packed[3], self._scaling)
        found["torch"] = _largest(self._stock(), exact)
        if self._abilities.packed is not None:
            found["packed"] = _largest(self._abilities.packed(*self._packed, self._scaling), exact)
        if self._abilities.paged_decode is not None:
            exact = paged_one_by_one(*(x.float() for x in self._paged[:3]), *self._paged[3:], self._scaling)
            found["paged_decode"] = _largest(self._abilities.paged_decode(*self._paged, self._scaling), exact)
        return found

    def _stock(self) -> Tensor:
        q, k, v, segments = self._packed
        bounds = segments.queries.tolist()
        return torch.cat(
            [
                scaled_dot_product_attention(
                    *(x[start:stop].transpose(0, 1)[None] for x in (q, k, v)), is_causal=True, scale=self._scaling,
                    enable_gqa=q.shape[1] != k.shape[1],
                )[0].transpose(0, 1)
                for start, stop in pairwise(bounds)
            ]
        )  # fmt: skip


def _largest(mixed: Tensor, exact: Tensor) -> float:
    return float((mixed.float() - exact).abs().max())
