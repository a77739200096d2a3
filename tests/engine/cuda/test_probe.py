"""What is tried at the start of an engine on a GPU, tried here on a CPU, where torch's packed kernel does not exist."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from skipvision.engine.cuda.probe import Abilities, probe
from skipvision.engine.cuda.reference import packed_one_by_one
from skipvision.engine.cuda.varlen import Segments
from skipvision.method.flops import DecoderShape

SHAPE = DecoderShape(hidden=1, ffn_hidden=1, layers=1, heads=4, kv_heads=2, head_dim=16, vocab=1)


def probed(dtype: torch.dtype) -> Abilities:
    return probe(SHAPE, device=torch.device("cpu"), dtype=dtype)


def released(scaled: float = 1.0, scaled_alone: float = 1.0) -> Callable[..., Tensor]:
    """A release of torch whose kernel is right, but for a factor, and one for sequences of one query each."""

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        factor = scaled_alone if max_q == 1 else scaled
        return factor * packed_one_by_one(query, key, value, Segments(cu_seq_q, cu_seq_k, max_q, max_k), scale)

    return varlen_attn


def test_float32_is_said_to_be_no_type_of_the_packed_kernel() -> None:
    abilities = probed(torch.float32)
    assert abilities.packed is None
    assert any("takes float16 and bfloat16, not torch.float32" in note for note in abilities.notes)


def test_a_kernel_that_does_not_exist_here_is_not_used_and_the_note_says_which() -> None:
    abilities = probed(torch.bfloat16)
    assert abilities.packed is None
    assert any("prompts are read one length at a time: NotImplementedError" in note for note in abilities.notes)


@pytest.mark.parametrize(
    ("release", "used"), [(released(), True), (released(scaled=1.2), False), (released(scaled_alone=1.2), False)]
)
def test_a_kernel_is_used_only_if_its_numbers_are_right(
    monkeypatch: pytest.MonkeyPatch, release: Callable[..., Tensor], used: bool
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", release)
    abilities = probed(torch.bfloat16)
    assert (abilities.packed is not None) == used
    assert any("its numbers differ from plain ones" in note for note in abilities.notes) != used


def test_without_a_kernel_for_decoding_the_note_says_why() -> None:
    assert probed(torch.bfloat16).paged_decode is None  # Triton is not here, or finds no GPU
    assert any(note.startswith("decoding gathers the cache") for note in probed(torch.bfloat16).notes)
