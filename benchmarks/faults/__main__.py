"""Break jobs at every place in every way, and count what is lost.

`make faults`, or `python -m benchmarks.faults --help`.

May be stopped and started again: cells that are done stand in the JSON file and are not played again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks.faults.matrix import POINTS, Point
from benchmarks.faults.protocol import ROWS_PER_SHARD, ProtocolMatrix
from benchmarks.faults.stores import BUCKET, environment, s3_server
from benchmarks.faults.verdict import Verdict
from benchmarks.machine import ROOT, circumstances, write_result
from skipvision.config import JobConfig
from skipvision.scenes import scene

RESULT = ROOT / "benchmarks" / "results" / "faults.json"
ROWS = 7
EXPECTED_ENDS = {
    "done", "killed", "frozen", "done when woken", "JobStoppedError", "JobStoppedError when woken", "SystemExit",
    "MemoryError", "ConfigError", "ConfigError when woken",
}  # fmt: skip
"""How an attempt may end; anything else is a fault of ours. `SystemExit` and `MemoryError` are what was wished."""


def play(
    repeats: Annotated[int, typer.Option(min=2, help="Of each cell, half on a disk and half in an object store.")] = 10,
    output: Annotated[Path, typer.Option(help="The JSON file, and what is done already.")] = RESULT,
) -> None:
    """Play the cells that are not done yet, each written down as soon as it is."""
    done: dict[str, Any] = json.loads(output.read_text())["protocol"] if output.exists() else {}
    with TemporaryDirectory() as scratch, s3_server() as settings, environment(settings):
        matrix = ProtocolMatrix(small_job(Path(scratch)), Path(scratch))
        for point in POINTS:
            for kind in point.kinds:
                cell = f"{point.name} / {kind}"
                if done.get(cell, {}).get("runs", 0) < repeats:
                    done[cell] = _played(matrix, point, kind, repeats, Path(scratch))
                    write_result(output, "faults", {"protocol": done})
                    _say(cell, done[cell])
    _say("in all", _total(done))


def small_job(folder: Path) -> JobConfig:
    """A job of a few rows in three shards, one of them an error, on the model that ships; without an output."""
    images = folder / "images"
    images.mkdir()
    for seed in range(ROWS - 1):
        scene(seed).render(128).save(images / f"{seed}.png")
    (images / "broken.png").write_bytes(b"")
    return JobConfig(
        input=str(images), output="", max_tokens=12, rows_per_shard=ROWS_PER_SHARD, dtype="float32", lease_seconds=1.0
    )


def _played(matrix: ProtocolMatrix, point: Point, kind: str, repeats: int, scratch: Path) -> dict[str, Any]:
    started = time.monotonic()
    verdict, ends, struck = Verdict(), Counter[str](), 0
    for repeat in range(repeats):
        place = BUCKET if repeat % 2 and not point.on_disk_only else str(scratch)
        output = f"{place}/{POINTS.index(point)}-{kind.replace(' ', '-')}-{repeat}"
        played = matrix.play(point, kind, output, repeat=repeat)
        verdict, ends, struck = verdict + played.verdict, ends + played.ends, struck + played.has_struck
    return {
        "runs": repeats,
        "struck": struck,
        **asdict(verdict),
        "unexpected": sum(count for end, count in ends.items() if end not in EXPECTED_ENDS),
        "attempts": dict(sorted(ends.items())),
        "seconds": round(time.monotonic() - started, 1),
        "commit": circumstances()["commit"],
    }


def _total(done: dict[str, Any]) -> dict[str, Any]:
    counted = ("runs", "struck", "lost", "doubled", "different", "unfinished", "unexpected")
    return {name: sum(cell[name] for cell in done.values()) for name in counted}


def _say(what: str, counts: dict[str, Any]) -> None:
    told = ", ".join(f"{name} {counts[name]}" for name in _total({}))
    print(f"{what}: {told}", flush=True)


if __name__ == "__main__":
    typer.run(play)
