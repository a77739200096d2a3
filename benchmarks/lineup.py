"""Who is measured, and in which layouts.

A layout is what an operator can choose without touching the engine: processes, threads, allocator, batch size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

# glibc gives every large tensor back to the system and takes it again page by page. It keeps them with the first two;
# the third is torch's own wish for huge pages.
KEEPING_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "THP_MEM_ALLOC_ENABLE": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way to run an engine."""

    name: str
    processes: int = 1
    """They share the images."""
    environment: Mapping[str, str] = field(default_factory=dict)
    answer_all: Mapping[str, Any] = field(default_factory=dict)
    """What its `answer_all` is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One engine, and everything it is asked to do."""

    name: str
    module: str
    layouts: Sequence[Layout]
    settings: Mapping[str, Mapping[str, Any]]
    """The rows it gets, and what tells them apart; the first is tried in every layout."""
    python: Path = Path(sys.executable)
    how_to_get: str = ""
    """What to do when `python` is not there."""


def ours(settings: Sequence[str]) -> Contestant:
    """This project's engine under each skip setting."""
    return Contestant(
        name="skipvision",
        module="benchmarks.workers.ours",
        layouts=(
            Layout(name="plain allocator"),
            Layout(name="keeping allocator", environment=KEEPING_ALLOCATOR),
            _a_thread_each("keeping allocator", KEEPING_ALLOCATOR),
        ),
        settings={f"skipvision {setting}": {"skip": setting} for setting in settings},
    )


def transformers(batches: Sequence[int] = (8, 16)) -> Contestant:
    """`generate` of the stock model."""
    first, *_ = batches
    return Contestant(
        name="transformers",
        module="benchmarks.workers.stock",
        layouts=(
            Layout(name=f"batches of {first}, plain allocator", answer_all={"batch": first}),
            *(
                Layout(
                    name=f"batches of {batch}, keeping allocator",
                    environment=KEEPING_ALLOCATOR,
                    answer_all={"batch": batch},
                )
                for batch in batches
            ),
            _a_thread_each(f"batches of {first}, keeping allocator", KEEPING_ALLOCATOR, batch=first),
        ),
        settings={"transformers": {}},
    )


def vllm() -> Contestant:
    """vLLM in its own environment.

    An engine in one process: apart from its worker, which is vLLM's default, it waits for the worker by spinning.
    """
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB, which is more than the keys and values of 32 requests
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "LD_PRELOAD": ":".join(_recommended_libraries()),
    }
    return Contestant(
        name="vllm",
        module="benchmarks.workers.vllm",
        python=PEERS_PYTHON,
        how_to_get="its environment is not there: make bench-peers",
        layouts=(
            Layout(name="preloaded libraries", environment={**environment, "OMP_NUM_THREADS": str(os.cpu_count())}),
            _a_thread_each("preloaded libraries", environment),
        ),
        settings={"vllm": {}},
    )


def _a_thread_each(name: str, environment: Mapping[str, str], **answer_all: Any) -> Layout:
    """As many processes as there are cores."""
    cores = os.cpu_count() or 1
    return Layout(
        name=f"{cores} processes, {name}",
        processes=cores,
        environment={**environment, "OMP_NUM_THREADS": "1"},
        answer_all=answer_all,
    )


def _recommended_libraries() -> list[str]:
    """What vLLM asks to be loaded first on a CPU, as far as it is there: its allocator and Intel's OpenMP."""
    tcmalloc = find_library("tcmalloc_minimal")
    openmp = PEERS_PYTHON.parents[1] / "lib" / "libiomp5.so"
    return [*([tcmalloc] if tcmalloc else []), *([str(openmp)] if openmp.exists() else [])]
