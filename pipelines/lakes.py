"""Lance, Delta and Iceberg tables, through their projects' own libraries, at the version that is the newest now.

A job goes on with the version that it began with. Delta and Iceberg say which Parquet files make it up and which rows
of them are deleted; those are read as other Parquet is. Lance reads its rows itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.delta_tables import delta_source
from pipelines.iceberg_tables import CATALOG, METADATA, iceberg_source, newest_metadata
from pipelines.lance_tables import is_lance, lance_source, open_lance
from pipelines.source_files import Source
from pipelines.stores import Stores, in_store

DELTA_LOG = "_delta_log/"


def find_lake(pattern: str) -> Source | None:
    """The table that stands at a path or an address; None if none is seen there.

    Raises:
        ConfigError: it cannot be read, or what reads it is not installed.
    """
    place = pattern.rstrip("/")
    if place.endswith(".lance") and (in_store(place) or os.path.isdir(place)):
        return lance_source(place)
    if os.path.isdir(os.path.join(place, DELTA_LOG)):
        return delta_source(os.path.abspath(place))
    if place.startswith(CATALOG) or (place.endswith(METADATA) and os.path.isfile(place)):
        return iceberg_source(place)
    if os.path.isdir(place) and any(Path(place, "metadata").glob(f"*{METADATA}")):
        return iceberg_source(newest_metadata(Path(place, "metadata")))
    return None


def is_still_there(path: str) -> bool:
    """Whether a file that a table listed, or a version of a Lance table, can still be read."""
    if is_lance(path):
        try:
            open_lance(path)
        except ValueError:
            return False
        return True
    return Stores().head(path) is not None if in_store(path) else os.path.exists(path)
