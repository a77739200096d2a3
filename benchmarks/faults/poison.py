"""Jobs with rows that end the process which looks at them, wherever and however often they are tried."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.cluster import ClusterMatrix
from benchmarks.faults.protocol import Played
from benchmarks.faults.verdict import judge
from pipelines.folder import JobFolder
from skipvision.config import JobConfig
from skipvision.scenes import scene

ROWS = 24
MOST_POISON = 2
_POISON = "poison"


@dataclass(frozen=True, slots=True)
class PoisonKind:
    """What a row does."""

    name: str
    place: str
    what: str
    code: str
    """Of the row's error."""


KINDS = (
    PoisonKind("its image crashes the decoder", "decode", "segfault", "image_crashed_decoder"),
    PoisonKind("its image ends the decoder", "decode", "exit", "image_crashed_decoder"),
    PoisonKind("its image is decoded without end", "decode", "hang", "image_too_slow"),
    PoisonKind("its image takes all memory", "decode", "memory", "image_out_of_memory"),
    PoisonKind("its worker crashes", "answer", "segfault", "poison"),
    PoisonKind("its worker is killed", "answer", "kill", "poison"),
    PoisonKind("its engine ends", "step", "exit", "poison"),
    PoisonKind("its engine hangs", "step", "hang", "poison"),
)


class PoisonMatrix:
    """Plays jobs with poison rows on the cluster of a `ClusterMatrix`."""

    def __init__(self, cluster: ClusterMatrix, scratch: Path) -> None:
        self._cluster, self._folder = cluster, scratch / "poison"
        self._folder.mkdir()

    def play(self, kind: PoisonKind, repeat: int) -> Played:
        """Run a job in which some rows, which `repeat` draws, are of this kind."""
        rng = random.Random(f"{kind.name} {repeat}")
        poison = set(rng.sample(range(ROWS), 1 + repeat % MOST_POISON))
        config = self._job(f"{KINDS.index(kind)}-{repeat}", poison)
        undisturbed = self._cluster.undisturbed_rows(config, f"poison-{KINDS.index(kind)}-{repeat}-undisturbed")
        ends = self._cluster.play_wishes(config, {kind.place: {"what": kind.what, "match": _POISON}})
        keys = {row["row_key"]: kind.code for row in undisturbed if _POISON in row["prompt"]}
        assert len(keys) == len(poison), keys
        return Played(judge(JobFolder(config.output), undisturbed, codes=keys), has_struck=True, ends=ends)

    def _job(self, name: str, poison: set[int]) -> JobConfig:
        """A job whose poison rows are called so, in their prompts and in the names of their images."""
        images = self._folder / name
        images.mkdir()
        lines: list[dict[str, Any]] = []
        for row in range(ROWS):
            called = _POISON if row in poison else "sound"
            scene(row).render(128).save(images / f"{called}-{row}.png")
            lines.append({"image": f"{name}/{called}-{row}.png", "prompt": f"What is it? {called}"})
        listing = self._folder / f"{name}.jsonl"
        listing.write_text("\n".join(map(json.dumps, lines)))
        return JobConfig(
            input=str(listing), output=str(self._folder / f"{name}-out"), prompt_column="prompt", max_tokens=4,
            rows_per_shard=8, dtype="float32", decode_seconds=20.0, decode_memory_mib=512, stall_seconds=10.0,
        )  # fmt: skip
