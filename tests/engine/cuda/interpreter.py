"""Triton kernels where there is no GPU: its interpreter runs them on a CPU. Where there is one, the GPU itself does.

The interpreter must be chosen before triton is imported: a process of its own. Functions that run in it import triton's
dependents inside, and are given and give back CPU tensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import torch
from torch import Tensor


@contextmanager
def triton_interpreter() -> Iterator[Executor]:
    """A process in which Triton kernels run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_choose) as executor:
        yield executor


def _choose() -> None:
    os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"
    torch.set_num_threads(1)


def paged_decode(*arguments: Tensor | float, **options: int) -> Tensor:
    """`skipvision.engine.cuda.paged_decode.paged_decode`, on the GPU or interpreted."""
    from skipvision.engine.cuda.paged_decode import paged_decode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    there = [each.to(device) if isinstance(each, Tensor) else each for each in arguments]
    return paged_decode(*there, **options).cpu()
