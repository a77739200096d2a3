"""Files of training samples, of which any sample can be read at any time: JSON lines, one JSON list, Parquet.

A sample is known by its number over all files, so that a run can be planned, cut off and resumed by numbers alone.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from skipvision.errors import ConfigError, SampleError
from skipvision.foreign_types import refuse_foreign_types

_WINDOW_ROWS = 4096
"""Rows that are shuffled together at least, where rows are stored in groups."""
_GROUPS_HELD = 8
"""Row groups of Parquet that a process keeps at hand: a shuffled window comes back to each of its groups."""


class SampleFile(Protocol):
    """One file of samples."""

    folder: Path
    """What relative image paths in it start from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """The sample as it was written.

        Raises:
            SampleError: it cannot be read.
        """
        ...

    def groups(self) -> Sequence[int]:
        """How many samples stand in each of the groups that are read at once, in order."""
        ...


class JsonLines:
    """A file with one JSON object per line; blank lines do not count."""

    def __init__(self, path: Path) -> None:
        self._path, self.folder = path, path.parent
        starts, at = [], 0
        with path.open("rb") as file:
            for line in file:
                if not line.isspace():
                    starts.append(at)
                at += len(line)
        self._starts = np.array(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Any:
        """See `SampleFile`."""
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            line = file.readline()
        try:
            return json.loads(line)
        except ValueError as error:
            raise SampleError("the line is not valid JSON") from error

    def groups(self) -> Sequence[int]:
        """See `SampleFile`."""
        return [1] * len(self)


class JsonList:
    """A file with one JSON list of samples, as LLaVA's are published; held in memory as a whole."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        try:
            self._samples = json.loads(path.read_bytes())
        except ValueError as error:
            raise ConfigError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(self._samples, list):
            raise ConfigError(f"{path} must hold a list of samples; for one sample per line, name it .jsonl")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        """See `SampleFile`."""
        return self._samples[index]

    def groups(self) -> Sequence[int]:
        """See `SampleFile`."""
        return [1] * len(self)


class ParquetRows:
    """A Parquet file; lists and structs come as Python's."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path, self.folder = path, path.parent
        try:
            with path.open("rb") as file:
                refuse_foreign_types(file, path)
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{path} is not a Parquet file") from error
        self._groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._ends = [*accumulate(self._groups)]

    def __len__(self) -> int:
        return sum(self._groups)

    def __getitem__(self, index: int) -> Any:
        """See `SampleFile`."""
        group = bisect_right(self._ends, index)
        row = index - (self._ends[group] - self._groups[group])
        return _row_group(self._path, group).slice(row, 1).to_pylist()[0]

    def groups(self) -> Sequence[int]:
        """See `SampleFile`."""
        return self._groups


@lru_cache(_GROUPS_HELD)
def _row_group(path: Path, group: int) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read_row_group(group)


KINDS: dict[str, type[JsonLines] | type[JsonList] | type[ParquetRows]] = {
    ".jsonl": JsonLines, ".ndjson": JsonLines, ".json": JsonList, ".parquet": ParquetRows,
}  # fmt: skip


class Samples:
    """All samples of a run."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._files = [_opened(Path(path)) for path in paths]
        self._ends = [*accumulate(map(len, self._files))]
        if not len(self):
            raise ConfigError(f"there is no sample in {', '.join(map(str, paths))}")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
        """The sample as it was written.

        Raises:
            SampleError: it cannot be read.
        """
        file, row = self._place(index)
        return file[row]

    def folder(self, index: int) -> Path:
        """What relative image paths of a sample start from."""
        return self._place(index)[0].folder

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """(samples,) int64: all sample numbers, shuffled for one epoch.

        Groups are shuffled, then their samples, some thousands at a time, so that few groups are read at once.
        """
        rng = np.random.default_rng([seed, epoch])
        sizes = np.concatenate([np.asarray(file.groups(), dtype=np.int64) for file in self._files])
        starts = np.cumsum(sizes) - sizes
        groups = rng.permutation(len(sizes))
        order = np.concatenate([np.arange(starts[group], starts[group] + sizes[group]) for group in groups])
        windows = np.cumsum(sizes[groups])
        start = 0
        while start < len(order):
            reached = int(np.searchsorted(windows, start + _WINDOW_ROWS))
            stop = int(windows[min(reached, len(windows) - 1)])
            rng.shuffle(order[start:stop])
            start = stop
        return order

    def _place(self, index: int) -> tuple[SampleFile, int]:
        at = bisect_right(self._ends, index)
        return self._files[at], index - (self._ends[at] - len(self._files[at]))


def _opened(path: Path) -> SampleFile:
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"data file {path} must end in one of {', '.join(KINDS)}")
    if not path.is_file():
        raise ConfigError(f"there is no data file {path}")
    return kind(path)
