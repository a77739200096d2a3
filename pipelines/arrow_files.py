"""Arrow files in the stream format, as `datasets` saves them: read batch by batch, and from a disk without copying.

A damaged one may lead whoever reads it anywhere in memory, so each batch is checked before a value of it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from skipvision.foreign_types import refuse_foreign_types_in_stream


def arrow_schema(source: Any) -> pa.Schema:
    """The columns of a file: a path, or what is open."""
    with _stream(source) as stream:
        return stream.schema


def read_arrow(source: Any, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Some columns of all rows, at most so many rows at a time.

    Raises:
        pyarrow.ArrowException: the file is damaged.
    """
    with _stream(source) as stream:
        for batch in stream:
            chosen = batch.select([name for name in columns if name in batch.schema.names])
            chosen.validate(full=True)
            for first in range(0, len(batch), rows):
                yield chosen.slice(first, rows)


def _stream(source: Any) -> Any:
    if not isinstance(source, str):
        return pa.ipc.open_stream(source)
    with open(source, "rb") as file:
        refuse_foreign_types_in_stream(file, source)
    return pa.ipc.open_stream(pa.memory_map(source))
