"""Break jobs at every place in every way, and count what is lost.

`make faults`, or `python -m benchmarks.faults --help`. May be stopped and started again: cells that are done stand in
the JSON file and are not played again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.faults import poison, ray_checkpointing
from benchmarks.faults.chaos import Chaos
from benchmarks.faults.cluster import FITTED, ClusterMatrix, kinds_at
from benchmarks.faults.matrix import POINTS, Point
from benchmarks.faults.poison import PoisonMatrix
from benchmarks.faults.protocol import ROWS_PER_SHARD, Played, ProtocolMatrix
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
RAY_GAVE_UP = "exit 1"
"""How Ray ends the process of a driver whose cluster is gone."""
COUNTED = ("runs", "struck", "lost", "doubled", "different", "unfinished", "unexpected")


CHAOS, RAY = "chaos", "ray_checkpointing"
MEASURED = "measured"
"""By suite: where and with what it was played last. Suites are long, and played on different days and machines."""
SUITES = ("protocol", "cluster", "poison", CHAOS, RAY)


class Cell(NamedTuple):
    """A place and a kind of failure."""

    name: str
    runs: int
    play: Callable[[int], Played]
    """One job, by its number."""
    ends: frozenset[str] = frozenset(EXPECTED_ENDS)
    """How attempts may end."""


class _All(NamedTuple):
    chaos: Chaos
    suites: list[Suite]


class Suite(NamedTuple):
    """Cells that are played with the same means."""

    name: str
    cells: list[Cell]


def play(
    suites: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(SUITES)}; all if none.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Of each cell of the protocol, on a disk and in a store.")] = 10,
    chaos_seconds: Annotated[float, typer.Option(min=0, help="Of random failures on the cluster.")] = 3600.0,
    output: Annotated[Path, typer.Option(help="The JSON file, and what is done already.")] = RESULT,
) -> None:
    """Play the cells that are not done yet, each written down as soon as it is."""
    if not suites or "cluster" in suites:
        refuse_where_nodes_cannot_be_fitted()
    done = {name: counts for name, counts in _written(output).items() if name in (*SUITES, MEASURED)}
    with TemporaryDirectory() as scratch, _all_suites(Path(scratch), repeats) as all_suites:
        for suite in all_suites.suites:
            if suites and suite.name not in suites:
                continue
            counts: dict[str, Any] = done.setdefault(suite.name, {})
            for cell in suite.cells:
                if counts.get(cell.name, {}).get("runs", 0) < cell.runs:
                    counts[cell.name] = _played(cell)
                    _write(output, done, suite.name)
                    _say(cell.name, counts[cell.name])
            _say(f"{suite.name}, {len(counts)} cells in all", total(counts))
        if not suites or CHAOS in suites:
            _play_chaos(all_suites.chaos, done, chaos_seconds, output)
        if not suites or RAY in suites:
            _play_ray(Path(scratch), done, output)


def refuse_where_nodes_cannot_be_fitted() -> None:
    """Before hours of cells are played."""
    for kind, fitting in FITTED.items():
        if why_not := fitting.why_not():
            raise SystemExit(f"{kind!r} cannot be played here, for it takes a Linux, and rights to mount and to make "
                             f"networks there: {why_not}")  # fmt: skip


def _play_chaos(chaos: Chaos, done: dict[str, Any], seconds: float, output: Path) -> None:
    """Jobs under random failures, until so much time has been spent on them."""
    sums: dict[str, Any] = done.setdefault(CHAOS, {"jobs": 0, "seconds": 0.0, "strikes": {}, "attempts": {}})
    while sums["seconds"] < seconds:
        started = time.monotonic()
        played, struck = chaos.play(sums["jobs"])
        sums["jobs"] += 1
        sums["seconds"] += round(time.monotonic() - started, 1)
        sums["strikes"] = dict(Counter(sums["strikes"]) + struck)
        sums["attempts"] = dict(Counter(sums["attempts"]) + played.ends)
        for name, count in asdict(played.verdict).items():
            sums[name] = sums.get(name, 0) + count
        _write(output, done, CHAOS)
        print(f"under random failures: {sums}", flush=True)


def _write(output: Path, done: dict[str, Any], suite: str) -> None:
    done.setdefault(MEASURED, {})[suite] = circumstances()
    write_result(output, "faults", done)


def _written(output: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    return written


def _play_ray(scratch: Path, done: dict[str, Any], output: Path) -> None:
    """What Ray Data's own checkpointing makes of the same troubles."""
    counts: dict[str, Any] = done.setdefault(RAY, {})
    for number, case in enumerate(ray_checkpointing.CASES):
        if case.name not in counts:
            counts[case.name] = ray_checkpointing.play(case, scratch / f"ray-{number}")
            _write(output, done, RAY)
            print(f"{case.name}, with Ray Data's own checkpointing: {counts[case.name]}", flush=True)


def total(counts: dict[str, Any]) -> dict[str, int]:
    """The sums of a suite's cells."""
    return {name: sum(cell[name] for cell in counts.values()) for name in COUNTED}


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


def expected_ends(kind: str) -> frozenset[str]:
    """How attempts may end on a cluster to which this happens."""
    return frozenset(EXPECTED_ENDS | ({RAY_GAVE_UP} if kind == "cluster killed" else set()))


@contextmanager
def _all_suites(scratch: Path, repeats: int) -> Iterator[_All]:
    job = small_job(scratch)
    protocol = ProtocolMatrix(job, scratch)
    cluster = ClusterMatrix(replace(job, rows_per_shard=2, lease_seconds=3.0, standstill_seconds=90.0), scratch)
    poisoned = PoisonMatrix(cluster, scratch)
    with s3_server() as settings, environment(settings), cluster.nodes.running():
        yield _All(Chaos(cluster, scratch), [
            Suite("protocol", [
                Cell(f"{point.name} / {kind}", repeats, partial(_play_protocol, protocol, scratch, point, kind))
                for point in POINTS for kind in point.kinds
            ]),
            Suite("cluster", [
                Cell(f"{point.name} / {kind}", 1, partial(_play_on_cluster, cluster, scratch, point, kind),
                     expected_ends(kind))
                for point in sorted(POINTS, key=lambda point: point.in_driver) for kind in kinds_at(point)
            ]),
            Suite("poison", [Cell(kind.name, 5, partial(poisoned.play, kind)) for kind in poison.KINDS]),
        ])  # fmt: skip


def _play_protocol(matrix: ProtocolMatrix, scratch: Path, point: Point, kind: str, repeat: int) -> Played:
    place = BUCKET if repeat % 2 and not point.on_disk_only else str(scratch)
    return matrix.play(point, kind, f"{place}/{_slug(point, kind)}-{repeat}", repeat=repeat)


def _play_on_cluster(matrix: ClusterMatrix, scratch: Path, point: Point, kind: str, repeat: int) -> Played:
    return matrix.play(point, kind, f"{scratch}/cluster-{_slug(point, kind)}-{repeat}", repeat=repeat)


def _slug(point: Point, kind: str) -> str:
    return f"{POINTS.index(point)}-{kind.replace(' ', '-')}"


def _played(cell: Cell) -> dict[str, Any]:
    started = time.monotonic()
    verdict, ends, struck = Verdict(), Counter[str](), 0
    for repeat in range(cell.runs):
        played = cell.play(repeat)
        verdict, ends, struck = verdict + played.verdict, ends + played.ends, struck + played.has_struck
    return {
        "runs": cell.runs,
        "struck": struck,
        **asdict(verdict),
        "unexpected": sum(count for end, count in ends.items() if end not in cell.ends),
        "attempts": dict(sorted(ends.items())),
        "seconds": round(time.monotonic() - started, 1),
        "commit": circumstances()["commit"],
    }


def _say(what: str, counts: dict[str, Any]) -> None:
    print(f"{what}: {', '.join(f'{name} {counts[name]}' for name in COUNTED)}", flush=True)


if __name__ == "__main__":
    typer.run(play)
