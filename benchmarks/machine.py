"""What stands beside every measurement: the machine, the versions, the commit, and the machine's own ceilings."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
NOT_RESULTS = ":(exclude)benchmarks/results"  # one run writes several, and none of them changes what is measured
MEASURED_WITH = ("numpy", "torch", "transformers")


def circumstances() -> dict[str, Any]:
    """Where, with what and from which sources this process measures."""
    return {
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", NOT_RESULTS)),
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version(), **versions_of(*MEASURED_WITH)},
    }


def write_result(output: Path, benchmark: str, result: dict[str, Any]) -> None:
    """Write what was measured, with its circumstances, as JSON, without the folder this checkout happens to lie in."""
    output.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps({"benchmark": benchmark, **circumstances(), **result}, indent=2, ensure_ascii=False) + "\n"
    output.write_text(written.replace(f"{ROOT}{os.sep}", ""))
    print(f"written: {os.path.relpath(output)}")


def versions_of(*packages: str) -> dict[str, str]:
    """The installed versions of packages."""
    return {name: version(name) for name in packages}


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
    return 2 * side**3 / median(_seconds_of(lambda: torch.mm(left, right), device, repeats))


def copy_rate(device: torch.device, *, mebibytes: int | None = None, repeats: int = 5) -> float:
    """The bytes per second, read and written together, of a copy that is larger than any cache. Median as above."""
    mebibytes = mebibytes or (4096 if device.type == "cuda" else 512)
    source = torch.randn(mebibytes * 2**18, device=device)
    target = torch.empty_like(source)
    seconds = _seconds_of(lambda: target.copy_(source), device, repeats)
    return 2 * source.nbytes / median(seconds)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where this machine multiplies faster in it than in float32, which emulation does not."""
    rates = {dtype: matmul_rate(device, dtype, side=256) for dtype in (torch.float32, torch.bfloat16)}
    return max(rates, key=rates.__getitem__)


def dtype_name(dtype: torch.dtype) -> str:
    """As configs write it: `float32`."""
    return str(dtype).removeprefix("torch.")


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest of the rounds of a measurement."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def _seconds_of(act: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of `repeats`, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        started = perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - started)
    return seconds[1:]


def _git(*arguments: str) -> str | None:
    """What git says about this checkout; None where it is none, as in an unpacked archive."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()
