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
from typing import Any

import torch
from torch import Tensor


@contextmanager
def triton_process() -> Iterator[Executor]:
    """A process in which Triton kernels run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_choose) as executor:
        yield executor


def _choose() -> None:
    os.environ["TRITON_INTERPRET"] = "0" if torch.cuda.is_available() else "1"
    torch.set_num_threads(1)


def to_kernels(*arguments: Tensor | float) -> list[Any]:
    """The same with tensors where kernels run: on the GPU, or copied where they are."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [each.to(device, copy=True) if isinstance(each, Tensor) else each for each in arguments]
