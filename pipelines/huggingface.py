"""Folders as Hugging Face's `datasets` writes and reads them: what `save_to_disk` left, and images beside a table.

Nothing of the library itself is used. Folders as they stand on the hub, Parquet beside a README, need nothing of this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from skipvision.errors import ConfigError

FILE_NAME = "file_name"
"""Column of an image folder's table with the images' names."""

_METADATA = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def saved_files(names: Sequence[str], read: Callable[[str], bytes], folder: str) -> list[str] | None:
    """The files that hold the rows of a dataset that was saved to a disk, in order; None if the folder is none.

    Args:
        names: all files below the folder, relative to it.
        read: gives the content of one of them.

    Raises:
        ConfigError: it holds several splits, or what describes it is damaged.
    """
    if _SPLITS in names:
        splits = sorted(name.removesuffix(f"/{_STATE}") for name in names if name.endswith(f"/{_STATE}"))
        raise ConfigError(f"input {folder} holds several splits; name one: {', '.join(splits)}, as in {folder}/train")
    if not {_STATE, _INFO} <= set(names):
        return None
    try:
        state = json.loads(read(_STATE))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"input {folder} is damaged: its {_STATE} is not JSON") from error
    files = _listed(state)
    if missing := [file for file in files or [""] if file not in names]:
        raise ConfigError(f"input {folder} is damaged: its {_STATE} names {missing[0]!r} as a file of rows")
    return files


def metadata_files(names: Sequence[str]) -> list[str]:
    """The tables of an image folder that say more of its images; none if it has none."""
    return [name for name in names if PurePosixPath(name).name in _METADATA]


def _listed(state: Any) -> list[str]:
    """What a `state.json` lists; nothing if it is of another shape."""
    entries = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(entries, list):
        return []
    return [str(entry.get("filename")) if isinstance(entry, dict) else "" for entry in entries]
