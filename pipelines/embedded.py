"""Images in the rows of tables, by the numbers of their files and rows: Parquet by row group, Arrow, Lance."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.arrow_files import read_arrow
from pipelines.lance_tables import is_lance, lance_rows
from pipelines.stores import Stores, in_store, is_damage, store_failures
from skipvision.errors import ImageError
from skipvision.foreign_types import refuse_foreign_types

_ROWS_AT_ONCE = 32
_DAMAGED = ImageError("the table is damaged where the image should be", code="image_unreadable")


class Column(Protocol):
    """One column of one file."""

    def values(self, rows: Sequence[int]) -> Iterable[tuple[int, Any]]:
        """The values of some rows, ascending, with their numbers; those of rows that are not there are left out."""


class Columns:
    """The image column of all source files, each opened once.

    Args:
        paths: all source files.
    """

    def __init__(self, paths: Sequence[str], column: str) -> None:
        self._paths, self._column = paths, column
        self._opened: dict[str, Column] = {}
        self._stores = Stores()

    def values(self, file: int, rows: set[int]) -> dict[int, Any]:
        """The values of some rows of a file; for rows that it does not give, an error.

        Raises:
            StorageError: the file cannot be read now.
        """
        path = self._paths[file]
        found: dict[int, Any] = dict.fromkeys(rows, _DAMAGED)
        with store_failures(f"{path} cannot be read"):
            try:
                if path not in self._opened:
                    self._opened[path] = self._open(path)
                found.update(self._opened[path].values(sorted(rows)))
            except (pa.ArrowException, OSError) as error:
                self._opened.pop(path, None)
                if not is_damage(error):
                    raise
        return found

    def _open(self, path: str) -> Column:
        if is_lance(path):
            return _LanceColumn(path, self._column)
        if path.endswith(".arrow"):
            return _ArrowColumn(path, self._column)
        file = self._stores.open(path) if in_store(path) else pa.OSFile(path, "rb")
        refuse_foreign_types(file, path)  # it may be another file than the one that was planned with
        return _ParquetColumn(file, self._column)


class _LanceColumn:
    def __init__(self, path: str, column: str) -> None:
        self._path, self._column = path, column

    def values(self, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        yield from lance_rows(self._path, self._column, list(rows))


class _ArrowColumn:
    def __init__(self, path: str, column: str) -> None:
        self._path, self._column = path, column

    def values(self, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """All batches up to the last are passed, which costs little: they are mapped, and looked at only on the way."""
        waiting, at = iter(rows), 0
        row = next(waiting, None)
        for batch in read_arrow(self._path, [self._column], _ROWS_AT_ONCE):
            while row is not None and row < at + len(batch):
                yield row, batch.column(0)[row - at].as_py()
                row = next(waiting, None)
            if row is None:
                return
            at += len(batch)


class _ParquetColumn:
    """Only row groups that hold a row are read. What was reached in one is kept, so that it is read once for all who
    ask for its rows bit by bit, forward."""

    def __init__(self, source: Any, column: str) -> None:
        self._file, self._column = pq.ParquetFile(source), column
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._group, self._at = -1, 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._reached: Any = ()

    def values(self, rows: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for row in rows:
            if row < self._starts[-1]:
                self._go_to(row)
                yield row, self._reached[row - self._at].as_py()

    def _go_to(self, row: int) -> None:
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._at:
            self._group, self._at, self._reached = group, self._starts[group], ()
            self._batches = self._file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[self._column])
        while row >= self._at + len(self._reached):
            self._at += len(self._reached)
            self._reached = next(self._batches).column(0)
