"""Fused kernels, on a GPU or else interpreted, against the stock modules."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from skipvision.families.layer_math import FusedMath, StockMath, choose_layer_math
from skipvision.method.flops import DecoderShape
from tests.triton_process import to_kernels, triton_process

DTYPES = pytest.mark.parametrize(
    ("dtype", "close"),
    [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
    ids=["f32", "f16", "bf16"],
)
SHAPE = DecoderShape(hidden=8, ffn_hidden=16, layers=1, heads=2, kv_heads=2, head_dim=4, vocab=8)


@pytest.fixture(scope="module")
def kernels() -> Iterator[Executor]:
    pytest.importorskip("triton", reason="the kernels are Triton's")
    with triton_process() as executor:
        yield executor


def turned(*arguments: Tensor) -> Tensor:
    return FusedMath().turn(*to_kernels(*arguments)).cpu()


def gated(*arguments: Tensor) -> Tensor:
    return FusedMath().gated(*to_kernels(*arguments)).cpu()


def draw(*size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).to(dtype)


@DTYPES
@pytest.mark.parametrize(("rows", "heads", "head_dim"), [(1, 1, 2), (5, 4, 64), (3, 6, 80), (2, 7, 128), (4, 32, 16)])
def test_heads_are_turned_as_the_stock_decoder_turns_them(
    kernels: Executor, rows: int, heads: int, head_dim: int, dtype: torch.dtype, close: float
) -> None:
    x = draw(rows, heads, head_dim, dtype=dtype)
    cos, sin = draw(2, rows, head_dim, dtype=dtype)
    exact = StockMath().turn(x.float(), cos.float(), sin.float())
    given = kernels.submit(turned, x, cos, sin).result()
    assert given.dtype == dtype
    torch.testing.assert_close(given.float(), exact, rtol=close, atol=close)


@DTYPES
@pytest.mark.parametrize("size", [(1, 1), (3, 700), (2, 1024), (5, 4001)])
def test_gates_are_what_the_stock_block_makes_of_them(
    kernels: Executor, size: tuple[int, int], dtype: torch.dtype, close: float
) -> None:
    gates, ups = draw(*size, dtype=dtype), draw(*size, dtype=dtype) + 1
    given = kernels.submit(gated, gates, ups).result()
    assert given.dtype == dtype
    torch.testing.assert_close(given.float(), silu(gates.float()) * ups.float(), rtol=close, atol=close)


@DTYPES
def test_a_norm_is_the_stock_one(dtype: torch.dtype, close: float) -> None:
    norm = LlamaRMSNorm(96, eps=1e-5).to(dtype)
    nn.init.normal_(norm.weight)
    x = draw(7, 96, dtype=dtype)
    torch.testing.assert_close(FusedMath().norm(norm, x), norm(x), rtol=close, atol=close)


def test_no_rows_are_no_work() -> None:
    pytest.importorskip("triton", reason="the kernels are Triton's")
    x = torch.empty(0, 2, 4)
    assert FusedMath().turn(x, torch.empty(0, 4), torch.empty(0, 4)) is x
    assert FusedMath().gated(x, x) is x


def decoder(act: str = "silu", norm: type[nn.Module] = LlamaRMSNorm) -> SimpleNamespace:
    layer = SimpleNamespace(input_layernorm=norm(8), post_attention_layernorm=norm(8))
    return SimpleNamespace(config=SimpleNamespace(hidden_act=act), norm=norm(8), layers=[layer])


def test_on_a_cpu_the_stock_modules_do_it() -> None:
    chosen = choose_layer_math(decoder(), SHAPE, device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(chosen, StockMath)


@pytest.mark.parametrize(
    ("unknown", "why"),
    [(decoder(act="gelu"), "activated by 'gelu'"), (decoder(norm=nn.LayerNorm), "norms of the kind LayerNorm")],
    ids=["activation", "norm"],
)
def test_a_decoder_of_another_kind_is_left_to_its_modules(
    unknown: SimpleNamespace, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = choose_layer_math(unknown, SHAPE, device=torch.device("cuda"), dtype=torch.float32)
    assert isinstance(chosen, StockMath)
    assert why in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_the_kernels_do_it(dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    chosen = choose_layer_math(decoder(), SHAPE, device=torch.device("cuda"), dtype=dtype)
    assert isinstance(chosen, FusedMath), caplog.text
