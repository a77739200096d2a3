"""Who is measured, and how each is started: in the best of its layouts, which a short trial in the same run chooses.

A layout is what an operator can choose without touching the engine: processes, threads, allocator, batch size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.work import Work
from benchmarks.workers.process import WorkerFailedError, WorkerProcess

PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"

# glibc gives every large tensor back to the system and takes it again page by page; these keep it, in huge pages.
KEEPING_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "THP_MEM_ALLOC_ENABLE": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way to run an engine."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    """What its `load` is told."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """An engine that runs."""

    contestant: Contestant
    worker: WorkerProcess
    layout: Layout
    facts: Mapping[str, Any]
    """What it said when it was loaded: threads and versions."""

    def answer_all(self, setting: str, work: Work) -> dict[str, Any]:
        """Answer everything at once; see the workers."""
        options = {**self.layout.answer_all, **self.contestant.settings[setting]}
        reply: dict[str, Any] = self.worker.ask("answer_all", work=asdict(work), **options)
        return reply

    def answer_one(self, setting: str, work: Work, index: int) -> dict[str, float]:
        """Answer one request alone; see the workers."""
        options = self.contestant.settings[setting]
        reply: dict[str, float] = self.worker.ask("answer_one", work=asdict(work), index=index, **options)
        return reply


class Lineup:
    """The engines that were started, and why others were not. Leaving the `with` block ends them."""

    def __init__(self) -> None:
        self.started: list[Started] = []
        self.report: list[dict[str, Any]] = []
        """For JSON: every contestant with its layout and trials, or with what kept it away."""

    def __enter__(self) -> Lineup:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.started:
            each.worker.close()

    def start(self, contestant: Contestant, *, folder: Path, dtype: str, trial: Work) -> None:
        """Start an engine in the layout that does the trial fastest; one that cannot run is reported as absent."""
        if not contestant.python.exists():
            self.report.append({"name": contestant.name, "absent": contestant.how_to_get})
            return
        best: Started | None = None
        trials: dict[str, dict[str, Any]] = {}
        for layout in contestant.layouts:
            try:
                started, rate = _try(contestant, layout, folder=folder, dtype=dtype, trial=trial)
            except WorkerFailedError as error:
                trials[layout.name] = {"failed": str(error)}
                continue
            trials[layout.name] = {"images_per_second": rate}
            if best is None or rate > trials[best.layout.name]["images_per_second"]:
                best, started = started, best
            if started is not None:
                started.worker.close()
        self.report.append({"name": contestant.name, **_report(best, trials), "trials": trials})
        self.started += [best] if best is not None else []

    def rows(self) -> list[tuple[str, Started]]:
        """Every setting of every engine that runs."""
        return [(setting, each) for each in self.started for setting in each.contestant.settings]


def ours(settings: Sequence[str]) -> Contestant:
    """This project's engine under each skip setting."""
    return Contestant(
        name="skipvision",
        module="benchmarks.workers.ours",
        layouts=(Layout(name="plain allocator"), Layout(name="keeping allocator", environment=KEEPING_ALLOCATOR)),
        settings={f"skipvision {setting}": {"skip": setting} for setting in settings},
    )


def transformers(batches: Sequence[int] = (8, 16)) -> Contestant:
    """`generate` of the stock model."""
    allocators = {"plain allocator": {}, "keeping allocator": KEEPING_ALLOCATOR}
    return Contestant(
        name="transformers",
        module="benchmarks.workers.stock",
        layouts=[
            Layout(name=f"batch {batch}, {name}", environment=environment, answer_all={"batch": batch})
            for batch in batches
            for name, environment in allocators.items()
        ],
        settings={"transformers": {}},
    )


def vllm() -> Contestant:
    """vLLM in its own environment; in one process, since its others wait for work by spinning."""
    one_process = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(os.cpu_count()),
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    preloaded = {**one_process, "LD_PRELOAD": ":".join(_recommended_libraries())}
    return Contestant(
        name="vllm",
        module="benchmarks.workers.vllm",
        python=PEERS_PYTHON,
        how_to_get="its environment is not there: make bench-peers",
        layouts=(
            Layout(name="compiled, preloaded libraries", environment=preloaded),
            Layout(name="eager, preloaded libraries", environment=preloaded, load={"eager": True}),
        ),
        settings={"vllm": {}},
    )


def _recommended_libraries() -> list[str]:
    """What vLLM asks to be loaded first on a CPU, as far as it is there: its allocator and Intel's OpenMP."""
    tcmalloc = find_library("tcmalloc_minimal")
    openmp = PEERS_PYTHON.parents[1] / "lib" / "libiomp5.so"
    return [*([tcmalloc] if tcmalloc else []), *([str(openmp)] if openmp.exists() else [])]


def _try(contestant: Contestant, layout: Layout, *, folder: Path, dtype: str, trial: Work) -> tuple[Started, float]:
    """Start an engine in one layout: it, and the images per second of its second run."""
    worker = WorkerProcess(contestant.python, contestant.module, environment=layout.environment)
    try:
        facts = worker.ask("load", folder=str(folder), dtype=dtype, **layout.load)
        started = Started(contestant=contestant, worker=worker, layout=layout, facts=facts)
        setting = next(iter(contestant.settings))
        started.answer_all(setting, trial)
        return started, trial.requests / float(started.answer_all(setting, trial)["seconds"])
    except WorkerFailedError:
        worker.close()
        raise


def _report(best: Started | None, trials: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How an engine runs; or the reason of its last layout, when it failed in each."""
    if best is None:
        return {"absent": [trial["failed"] for trial in trials.values()][-1]}
    return {"absent": None, "layout": best.layout.name, "environment": dict(best.layout.environment), **best.facts}
