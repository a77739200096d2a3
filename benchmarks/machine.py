"""What stands beside every measurement: the machine, the versions, the commit, and the machine's own ceiling."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
MEASURED_WITH = ("numpy", "torch", "transformers")


def circumstances() -> dict[str, Any]:
    """Where, with what and from which sources this process measures."""
    return {
        "command": " ".join(["python", *_as_typed(sys.orig_argv[1:])]),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in MEASURED_WITH}},
    }


def processor_name() -> str:
    """The processor's name as Linux gives it, else its architecture."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def matmul_rate(device: torch.device, dtype: torch.dtype, *, side: int | None = None, repeats: int = 5) -> float:
    """The floating-point operations per second of a square matrix product, as large as the device deserves.

    Median of `repeats`, after one that warms up. Random numbers: zeros draw less power and run faster.
    """
    side = side or (8192 if device.type == "cuda" else 1024)
    left, right = torch.randn(2, side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(repeats + 1):
        started = perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - started)
    return 2 * side**3 / median(seconds[1:])


def copy_rate(device: torch.device, *, mebibytes: int | None = None, repeats: int = 5) -> float:
    """Bytes per second of a copy within the device's memory, read and written ones counted; as `matmul_rate`."""
    mebibytes = mebibytes or (4096 if device.type == "cuda" else 256)
    source = torch.randint(0, 256, (mebibytes * 2**20,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(repeats + 1):
        started = perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - started)
    return 2 * len(source) / median(seconds[1:])


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest of the rounds of a measurement."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def _as_typed(arguments: list[str]) -> list[str]:
    """Arguments without the folder this checkout happens to lie in."""
    return [argument.replace(f"{ROOT}{os.sep}", "") for argument in arguments]


def _git(*arguments: str) -> str | None:
    """What git says about this checkout; None where it is none, as in an unpacked archive."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()
