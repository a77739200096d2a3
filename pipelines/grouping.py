"""Which rows ask about the same images, and the order in which they stand side by side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.location import IMAGES


class ImageOrder:
    """Sees the rows of an input pass, and says afterwards how to put those about the same images together.

    Told apart by 64-bit hashes, 8 bytes a row: two images that share one would stand together without need, no more.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._seen: list[np.ndarray] = []

    def see(self, table: pa.Table) -> None:
        """The next rows, with their column `IMAGES`."""
        self._seen += [np.fromiter(self._hashes(chunk), np.int64, len(chunk)) for chunk in table.column(IMAGES).chunks]

    def regrouped(self) -> np.ndarray | None:
        """(rows,) int64: the numbers of the rows, those about the same images together, in the order in which the first
        of each came. None: they stand so already."""
        hashes = np.concatenate(self._seen) if self._seen else np.zeros(0, np.int64)
        _, first, kind = np.unique(hashes, return_index=True, return_inverse=True)
        if np.count_nonzero(np.diff(hashes)) + 1 <= len(first):
            return None
        return np.argsort(first[kind], kind="stable")

    def _hashes(self, rows: pa.ListArray) -> Iterator[int]:
        """For each row one of its images; for a row whose images are nobody else's, one that is nobody else's."""
        places = rows.flatten()
        # An image within a file is one of that file's rows alone; its reference is only its name there.
        outside = pc.if_else(pc.is_null(places.field("file")), places.field("reference"), None)
        references = iter(outside.to_pylist())
        for images in rows.value_lengths().to_pylist():
            named = tuple(next(references) for _ in range(images))
            shared = bool(named) and None not in named
            yield hash(named if shared else (None, self._rows))
            self._rows += 1
