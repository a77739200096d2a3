"""A finished job compared with one that nobody disturbed."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pipelines.folder import JobFolder
from pipelines.layout import MANIFEST, SUCCESS

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Rows by what is wrong with them."""

    lost: int = 0
    doubled: int = 0
    different: int = 0
    """Answers, outcomes or columns, `seconds` excepted."""
    unfinished: int = 0
    """1: the job has no success or no manifest, its manifest names other files, or notes were left."""

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            self.lost + other.lost,
            self.doubled + other.doubled,
            self.different + other.different,
            self.unfinished + other.unfinished,
        )

    @property
    def is_clean(self) -> bool:
        return self == Verdict()


def rows_of(folder: JobFolder) -> list[Row]:
    """All committed rows without the seconds they took, in order."""
    files = [folder.read(name) or b"" for name in folder.names("data")]
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for content in files
        for row in pq.read_table(io.BytesIO(content)).to_pylist()
    ]


def judge(folder: JobFolder, undisturbed: Sequence[Row], *, codes: Mapping[str, str] | None = None) -> Verdict:
    """What is wrong with a finished job.

    Args:
        codes: row key -> error code, of rows that must have ended as that error, whatever they were undisturbed.
    """
    codes = codes or {}
    found, wanted = rows_of(folder), {row["row_key"]: row for row in undisturbed}
    times = Counter(row["row_key"] for row in found)
    return Verdict(
        lost=len(wanted.keys() - times.keys()),
        doubled=sum(count - 1 for count in times.values()) + len(times.keys() - wanted.keys()),
        different=sum(not _same(row, wanted[row["row_key"]], codes) for row in found if row["row_key"] in wanted),
        unfinished=int(not _is_finished(folder)),
    )


def _same(row: Row, wanted: Row, codes: Mapping[str, str]) -> bool:
    if row["row_key"] in codes:
        return bool(row["error_code"] == codes[row["row_key"]])
    return row == wanted


def _is_finished(folder: JobFolder) -> bool:
    manifest = json.loads(folder.read(MANIFEST) or b"null")
    if manifest is None or folder.read(SUCCESS) is None:
        return False
    return [file["path"] for file in manifest["files"]] == folder.names("data")
