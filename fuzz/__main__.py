"""Fuzz every target for some time each and write what came of it: `python -m fuzz [--seconds 60] [TARGET ...]`.

A finding is kept under `.fuzz/` with its input. Name it in `fuzz/seeds.py` once it is mended.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.machine import ROOT, versions_of, write_result
from fuzz.targets import TARGETS

WORK = ROOT / ".fuzz"
RESULT = ROOT / "benchmarks" / "results" / "fuzz.json"


def main() -> int:
    """Returns the number of findings."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("targets", nargs="*", metavar="TARGET", help="Of " + ", ".join(TARGETS) + "; none: all.")
    arguments.add_argument("--seconds", type=int, default=60, help="For each target.")
    arguments.add_argument("--output", type=Path, default=RESULT)
    chosen = arguments.parse_args()
    ran = [fuzz(target, chosen.seconds) for target in chosen.targets or TARGETS]
    write_result(chosen.output, "fuzz", {"fuzzer": versions_of("atheris"), "targets": ran})
    return sum(target["findings"] for target in ran)


def fuzz(target: str, seconds: int) -> dict[str, Any]:
    """One target's figures."""
    before = {path.name for path in WORK.glob(f"{target}-*")}
    command = [sys.executable, "-m", "fuzz.harness", target, str(WORK / target), str(seconds)]
    started = perf_counter()
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", env=os.environ)
    said = ran.stdout + ran.stderr
    found = sorted({path.name for path in WORK.glob(f"{target}-*")} - before)
    figures = {
        "target": target,
        "what": (TARGETS[target].__doc__ or "").strip().splitlines()[0],
        "executions": _number(r"stat::number_of_executed_units:\s*(\d+)", said),
        "seconds": round(perf_counter() - started, 1),
        "edges": _number(r"cov: (\d+)", said),
        "findings": len(found) or int(ran.returncode != 0),
    }
    print(f"{target:12} {figures['executions']:>10,} executions  {figures['findings']} findings", flush=True)
    if figures["findings"]:
        print(said[-4000:], *found, sep="\n")
    return figures


def _number(pattern: str, said: str) -> int:
    """The last number that libFuzzer printed so; 0 if it came to none."""
    return int((re.findall(pattern, said) or ["0"])[-1])


if __name__ == "__main__":
    sys.exit(min(main(), 1))
