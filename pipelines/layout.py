"""What stands where in a job's folder, and whether a folder is a job's.

plan.json                 what the job is; whoever creates it first decides
input/<id>/               the frozen input: thin tables without image bytes, and the list of its files
data/shard-00000.parquet  a shard's rows; that the file exists is the commit
report.json, report.html
_MANIFEST.json, _SUCCESS  last: the files with their rows, and what the job adds up to
lease.json                who works on the job now; see `lease`
windows/                  notes of windows that were measured, until the job is done; see `windows`
held/                     notes of engines that hold devices, until the job is done; see `held`
attempts/                 notes of shards that are being worked on, until the job is done
_staging/                 unfinished files, on local disks only; see `folder`
"""

from __future__ import annotations

import os
from pathlib import Path

from obstore.exceptions import BaseError

from pipelines.folder import STAGING, JobFolder
from pipelines.stores import first_line
from skipvision.errors import ConfigError, StorageError

PLAN, MANIFEST, SUCCESS = "plan.json", "_MANIFEST.json", "_SUCCESS"
REPORT_JSON, REPORT_HTML = "report.json", "report.html"
DATA, INPUT = "data", "input"


def shard_name(shard: int) -> str:
    """The file that holds a shard's rows, and whose existence is its commit."""
    return f"{DATA}/shard-{shard:05d}.parquet"


def shard_of(name: str) -> int:
    """The inverse of `shard_name`."""
    return int(Path(name).stem.removeprefix("shard-"))


def has_plan(address: str) -> bool:
    """Whether a job stands at `address`; looks only, and creates nothing.

    Raises:
        ConfigError: the store at `address` cannot be read.
    """
    if "://" in address:
        try:
            return JobFolder(address).read(PLAN) is not None
        except (BaseError, ValueError, StorageError) as error:
            raise ConfigError(f"output {address} cannot be read: {first_line(error)}") from error
    return os.path.lexists(os.path.join(address, PLAN))


def refuse_foreign_folder(address: str) -> None:
    """Refuse a local folder with anything in it that no job put there, before it is touched.

    Raises:
        ConfigError: it holds other files, or is one.
    """
    if "://" in address or not os.path.lexists(address):
        return
    if not os.path.isdir(address):
        raise ConfigError(f"output {address} is a file; name a folder that is new, empty or a job's")
    present = set(os.listdir(address))
    if PLAN not in present and present - {INPUT, STAGING}:
        raise ConfigError(
            f"output {address} exists and is no job: it holds {_some(present)}; name a folder that is new, empty or "
            "a job's"
        )


def sweep(folder: JobFolder, *, keep_input: str) -> None:
    """Remove what killed attempts left behind: unfinished files, and frozen inputs that no plan names.

    Safe beside another running attempt: see `JobFolder.remove_unfinished`.
    """
    unnamed = [name for name in folder.names(INPUT) if not name.startswith(f"{INPUT}/{keep_input}/")]
    folder.remove_unfinished()
    folder.remove(unnamed)


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
