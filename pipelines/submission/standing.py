"""How far a job is, read from its output: nobody needs to ask the machines that work on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError

from pipelines.folder import JobFolder
from pipelines.layout import DATA, REPORT_HTML, REPORT_JSON, SUCCESS, has_plan, shard_of
from pipelines.plan import read_plan
from pipelines.stores import first_line
from skipvision.errors import ConfigError, SkipVisionError, StorageError

if TYPE_CHECKING:
    from pipelines.statistics import JobReport


_UNREADABLE = (SkipVisionError, BaseError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Standing:
    """Rows that are committed, of all."""

    rows: int
    all_rows: int

    def __str__(self) -> str:
        return f"{self.rows:,} of {self.all_rows:,}"


def read_standing(output: str) -> Standing | None:
    """How far the job at an address is; None if it has no plan yet, or cannot be seen from here."""
    try:
        if not has_plan(output):
            return None
        folder = JobFolder(output)
        plan = read_plan(folder)
        names = [name for name in folder.names(DATA) if name.endswith(".parquet")]
        return Standing(sum(plan.rows_in(shard_of(name)) for name in names), plan.rows)
    except _UNREADABLE:
        return None


def is_finished(output: str) -> bool:
    """Whether the job at an address is known to be done."""
    return _success(output) is not None


def read_report(output: str) -> JobReport | None:
    """What a finished job did; None if it is not finished, or cannot be seen from here."""
    from pipelines.statistics import JobReport  # takes seconds, which a look at a job need not

    content = _success(output)
    return None if content is None else JobReport.from_json(content)


def _success(output: str) -> bytes | None:
    try:
        return JobFolder(output).read(SUCCESS) if has_plan(output) else None
    except _UNREADABLE:
        return None


def fetch_report(output: str, target: Path) -> list[Path]:
    """Copy a finished job's report here.

    Args:
        target: `….json` or `….html` for that file alone; else a folder for both.

    Returns:
        What was written.

    Raises:
        ConfigError: it cannot be written here.
        StorageError: the output cannot be read from here, or has no report.
    """
    files = {".json": [REPORT_JSON], ".html": [REPORT_HTML]}.get(target.suffix, [REPORT_JSON, REPORT_HTML])
    try:
        contents = {name: JobFolder(output).read(name) for name in files} if has_plan(output) else {}
    except (ConfigError, BaseError, ValueError) as error:
        raise StorageError(f"the report in {output} cannot be read from here: {first_line(error)}") from error
    if not contents or None in contents.values():
        raise StorageError(f"there is no report in {output}, as far as can be seen from here")
    return [
        _written(target if len(files) == 1 else target / name, content or b"") for name, content in contents.items()
    ]


def _written(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {path}: {error}") from error
    return path
