"""What two decisions about the CPU path gain, each against the form it replaced: docs/decisions/0010.

`python -m benchmarks.kernels`. Decoding reads every weight and every cached key and value once a step, for few rows.
Weights and caches are of the 92-million-parameter shape of `random_llava`, one set for each layer, so that they come
from memory and not from the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from benchmarks.machine import ROOT, matmul_rate, spread, write_result
from benchmarks.random_llava import small
from skipvision.engine.attention import ScatteredDecodes, StepAttention, StridedDecodes
from skipvision.engine.kv_cache import KvCache
from skipvision.engine.pages import PAGE_TOKENS
from skipvision.families.narrow import MOST_ROWS, narrow_linears
from skipvision.method.flops import DecoderShape

RESULT = ROOT / "benchmarks" / "results" / "kernels.json"
ROWS = (2, 4, 8, 16, 32, 64, MOST_ROWS)
CACHES = ((1, 602), (8, 602), (32, 602), (32, 158))
"""Decoding sequences, and tokens in each one's cache: all visual tokens, and 100 of 576."""


def measure(
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    shape = DecoderShape.from_config(small().text_config.to_dict())
    with torch.inference_mode():
        result = {
            "rounds": rounds,
            "matmul_flops_per_second": matmul_rate(torch.device("cpu"), torch.float32),
            "linear": [compare_linears(shape, rows, rounds) for rows in ROWS],
            "decode_attention": [compare_attention(shape, *cache, rounds=rounds) for cache in CACHES],
            "trunk_attention": [compare_trunk(shape, *cache, rounds=rounds) for cache in CACHES[1:]],
        }
    write_result(output, "kernels", result)


def compare_linears(shape: DecoderShape, rows: int, rounds: int) -> dict[str, Any]:
    """All linear layers of a decoder, input by weight and weight by input."""
    sizes = [(shape.hidden, shape.hidden)] * 4 + [(shape.hidden, shape.ffn_hidden)] * 2
    sizes += [(shape.ffn_hidden, shape.hidden)]
    plain = nn.ModuleList(nn.Linear(*size, bias=False) for _ in range(shape.layers) for size in sizes)
    narrow = nn.ModuleList(plain)
    narrow_linears(narrow)
    given = {width: torch.randn(rows, width) for width in (shape.hidden, shape.ffn_hidden)}

    def run(layers: nn.ModuleList) -> Callable[[], None]:
        def every_layer() -> None:
            for layer in layers:
                layer(given[layer.in_features])  # type: ignore[index]

        return every_layer

    seconds = take_turns({"input_by_weight": run(plain), "weight_by_input": run(narrow)}, rounds)
    return {"rows": rows, "flops": 2 * rows * sum(a * b for a, b in sizes) * shape.layers, **seconds}


def compare_attention(shape: DecoderShape, sequences: int, tokens: int, *, rounds: int) -> dict[str, Any]:
    """Attention of one decode step in every layer, caches gathered and read where they stand."""
    pages = -(-tokens // PAGE_TOKENS)
    cache = random_cache(shape, sequences * pages)
    slots = torch.from_numpy(np.arange(tokens) + np.arange(sequences)[:, None] * pages * PAGE_TOKENS)
    gathered = ScatteredDecodes(range(0), slots, None)
    in_place = StridedDecodes(0, pages * PAGE_TOKENS, sequences, tokens, None)
    work = {name: decode(cache, shape, each) for name, each in (("gathered", gathered), ("in_place", in_place))}
    kv_bytes = 2 * shape.layers * sequences * tokens * shape.kv_heads * shape.head_dim * 4
    return {"sequences": sequences, "tokens": tokens, "kv_bytes": kv_bytes, **take_turns(work, rounds)}


def compare_trunk(shape: DecoderShape, sequences: int, tokens: int, *, rounds: int) -> dict[str, Any]:
    """The same for answers that share all of `tokens` but their last 26, gathered whole and read from the trunk."""
    trunk = (tokens - 26) // PAGE_TOKENS * PAGE_TOKENS
    own = tokens - trunk
    distance = -(-own // PAGE_TOKENS) * PAGE_TOKENS
    cache = random_cache(shape, (trunk + sequences * distance) // PAGE_TOKENS)
    rest = torch.from_numpy(
        trunk + np.arange(own) + np.arange(sequences)[:, None] * -(-own // PAGE_TOKENS) * PAGE_TOKENS
    )
    whole = torch.cat([torch.arange(trunk).expand(sequences, trunk), rest], dim=1)
    work = {
        "gathered": decode(cache, shape, ScatteredDecodes(range(0), whole, None)),
        "from_trunk": decode(cache, shape, ScatteredDecodes(range(trunk), rest, None)),
    }
    kv_bytes = 2 * shape.layers * (trunk + sequences * own) * shape.kv_heads * shape.head_dim * 4
    return {"sequences": sequences, "tokens": tokens, "kv_bytes": kv_bytes, **take_turns(work, rounds)}


def random_cache(shape: DecoderShape, num_pages: int) -> KvCache:
    """A cache that is full of random numbers."""
    cache = KvCache(shape, num_pages=num_pages, device=torch.device("cpu"), dtype=torch.float32)
    cache.keys.normal_()
    cache.values.normal_()
    return cache


def decode(cache: KvCache, shape: DecoderShape, decodes: StridedDecodes | ScatteredDecodes) -> Callable[[], None]:
    """Attention of one step in every layer."""
    q, k, v = (
        torch.randn(decodes.count, heads, shape.head_dim) for heads in (shape.heads, shape.kv_heads, shape.kv_heads)
    )
    attend = StepAttention(cache, None, torch.arange(decodes.count) * PAGE_TOKENS, [decodes], [])

    def every_layer() -> None:
        for layer in range(shape.layers):
            attend(layer, q, k, v, shape.head_dim**-0.5, only_wanted=False)

    return every_layer


def take_turns(work: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each, in turns, after one turn that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, run in work.items():
            started = perf_counter()
            run()
            seconds[name].append(perf_counter() - started)
    return {f"{name}_seconds": spread(each[1:]) for name, each in seconds.items()}


if __name__ == "__main__":
    typer.run(measure)
