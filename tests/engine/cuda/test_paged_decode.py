"""The Triton kernels, on a GPU or else interpreted, against a plain softmax over each sequence's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from skipvision.engine.pages import PAGE_TOKENS, pages_for
from tests.triton_process import to_kernels, triton_process

pytest.importorskip("triton", reason="the kernels are Triton's")

SCALING = 0.3
PAGES = 40


@pytest.fixture(scope="module")
def kernels() -> Iterator[Executor]:
    with triton_process() as executor:
        yield executor


def paged_decode(*arguments: Tensor | float, **options: int) -> Tensor:
    """`skipvision.engine.cuda.paged_decode.paged_decode`, in the process that has Triton."""
    from skipvision.engine.cuda.paged_decode import paged_decode

    return paged_decode(*to_kernels(*arguments), **options).cpu()


class Bench:
    """A cache of random tokens; sequences with random pages of it, whose tables end in pages that are not theirs."""

    def __init__(self, *, heads: int, kv_heads: int, head_dim: int, lengths: list[int], dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(sum(lengths))

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=generator).to(dtype)

        self.keys, self.values = draw(2, kv_heads, PAGES * PAGE_TOKENS, head_dim)
        self.q = draw(len(lengths), heads, head_dim)
        most = max(pages_for(length) for length in lengths) + 1
        self.tables = torch.stack([torch.randperm(PAGES, generator=generator)[:most] for _ in lengths]).int()
        self.lengths = torch.tensor(lengths, dtype=torch.int32)

    def inputs(self) -> tuple[Tensor | float, ...]:
        return self.q, self.keys, self.values, self.tables, self.lengths, SCALING

    def plainly(self) -> Tensor:
        """What the kernels are to give, in float32."""
        out = torch.empty(self.q.shape)
        group = self.q.shape[1] // len(self.keys)
        for row, (table, length) in enumerate(zip(self.tables.tolist(), self.lengths.tolist(), strict=True)):
            slots = [table[token // PAGE_TOKENS] * PAGE_TOKENS + token % PAGE_TOKENS for token in range(length)]
            for head, query in enumerate(self.q[row].float()):
                keys, values = (x[head // group, slots].float() for x in (self.keys, self.values))
                out[row, head] = (keys @ query * SCALING).softmax(0) @ values
        return out


@pytest.mark.parametrize(
    ("dtype", "close"),
    [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
    ids=["f32", "f16", "bf16"],
)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(4, 4, 64), (8, 2, 16), (6, 1, 8), (6, 2, 80), (7, 1, 128), (2, 1, 256)]
)
def test_each_sequence_attends_to_its_own_pages(
    kernels: Executor, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, close: float
) -> None:
    bench = Bench(heads=heads, kv_heads=kv_heads, head_dim=head_dim, lengths=[1, 16, 17, 64, 65, 200], dtype=dtype)
    mixed = kernels.submit(paged_decode, *bench.inputs()).result()
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.float(), bench.plainly(), rtol=close, atol=close)


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_into_how_many_parts_a_sequence_is_cut_changes_nothing(kernels: Executor, parts: int) -> None:
    bench = Bench(heads=4, kv_heads=2, head_dim=16, lengths=[1, 70, 390], dtype=torch.float32)
    mixed = kernels.submit(paged_decode, *bench.inputs(), parts=parts).result()
    torch.testing.assert_close(mixed, bench.plainly())


def test_large_scores_do_not_overflow_and_what_stands_after_the_end_counts_for_nothing(kernels: Executor) -> None:
    bench = Bench(heads=4, kv_heads=2, head_dim=16, lengths=[70, 3], dtype=torch.float32)
    bench.q *= 1000
    last = int(bench.tables[1, 0]) * PAGE_TOKENS + 3
    bench.keys[:, last], bench.values[:, last] = 1e6, 1e6
    mixed = kernels.submit(paged_decode, *bench.inputs()).result()
    torch.testing.assert_close(mixed, bench.plainly())


NUMBERS = {"scaling": "fp32", "most_pages": "i32", "key_head_stride": "i64", "value_head_stride": "i64"}


@pytest.mark.parametrize(("capability", "shared_bytes"), [(80, 163 * 2**10), (90, 227 * 2**10)])
@pytest.mark.parametrize(
    ("dtype", "head_dim", "group"),
    [("bf16", 128, 1), ("bf16", 128, 4), ("fp16", 96, 7), ("fp32", 80, 1), ("fp32", 256, 2), ("bf16", 256, 8)],
)
def test_the_kernels_compile_for_gpus_that_are_not_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: int,
    shared_bytes: int,
    dtype: str,
    head_dim: int,
    group: int,
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from skipvision.engine.cuda.kernels import attend_to_part, mix_parts
    from skipvision.engine.cuda.paged_decode import tile_of

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tensors = dict.fromkeys(("q", "keys", "values", "out"), f"*{dtype}") | dict.fromkeys(("tables", "lengths"), "*i32")
    types = tensors | dict.fromkeys(("mixed", "log_sums"), "*fp32") | NUMBERS
    dim_tile, tile_tokens = tile_of(head_dim, int(dtype[-2:]) // 8)
    sizes = {"group": group, "group_tile": 16, "head_dim": head_dim, "dim_tile": dim_tile, "page_tokens": 16,
             "tile_tokens": tile_tokens, "factors": None, "parts": 5, "parts_tile": 8}  # fmt: skip
    for kernel in (attend_to_part, mix_parts):
        constants = {name: value for name, value in sizes.items() if name in kernel.arg_names}
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"]
        assert compiled.metadata.shared <= shared_bytes
