"""The few rows that a report shows: a bounded number from the beginning of the input, with their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from PIL import Image

from pipelines.encoded import Source
from pipelines.folder import JobFolder
from pipelines.frozen import frozen_name, read_table, sources_name
from pipelines.layout import shard_name
from pipelines.location import IMAGES, Location
from pipelines.pages import picture_uri
from pipelines.plan import JobPlan, read_plan
from pipelines.plots import Part, part_bar
from pipelines.stores import in_store
from skipvision.errors import ImageError, InputError, StorageError
from skipvision.fetch import is_address
from skipvision.images import ImageLimits, RgbPixels, decode_image, read_image

ANSWERED_SHOWN, ERRORS_SHOWN = 18, 6
SHARDS_READ = 16
"""Error rows are looked for in this many shards, so that a report on a large job stays quick to make."""
PICTURE_SIDE = 320
MOST_CHARACTERS = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRow:
    """One row as the page shows it."""

    title: str
    """What the row's image is called."""
    prompt: str | None = None
    """None where all rows have the same."""
    answer: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    picture: str | None = None
    """`data:` URI; None for rows with an error, and for images that are not on a disk."""
    fates: Markup | None = None
    shown: bool = True
    """False: read only as an example of its error code."""


def rows_for_report(folder: JobFolder) -> list[ReportRow]:
    """The first answered rows and the first with an error, in input order, and one more row for each other code."""
    plan = read_plan(folder)
    assert plan is not None, "a report is written after its plan"
    chosen = list(_choose(_committed(folder, plan)))
    pictures = _Pictures(read_table(folder, sources_name(plan.input_id))["path"].to_pylist(), plan)
    return [_report_row(row, shown, plan, pictures) for row, shown in chosen]


def _committed(folder: JobFolder, plan: JobPlan) -> Iterator[dict[str, Any]]:
    """Rows of the first shards, results and where the image is; not image bytes."""
    for shard in range(min(plan.shards, SHARDS_READ)):
        frozen = read_table(folder, frozen_name(plan.input_id, shard)).select([IMAGES])
        results = read_table(folder, shard_name(shard))
        for result, place in zip(results.to_pylist(), frozen.to_pylist(), strict=True):
            yield result | place


def _choose(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bool]]:
    answered, errors, codes = 0, 0, set[str]()
    for row in rows:
        code = row["error_code"]
        if code is None:
            if answered < ANSWERED_SHOWN:
                yield row, True
            answered += 1
            continue
        if errors < ERRORS_SHOWN or code not in codes:
            yield row, errors < ERRORS_SHOWN
        errors += 1
        codes.add(code)


def _report_row(row: Mapping[str, Any], shown: bool, plan: JobPlan, pictures: _Pictures) -> ReportRow:
    column = plan.settings["prompt_column"]
    prompt = row[column] if column is not None else None
    title = _title(row, pictures)
    if row["error_code"] is not None:
        message = _clip(row["error_message"] or "")
        return ReportRow(
            title=title, prompt=_clip(prompt or ""), error_code=row["error_code"], error_message=message, shown=shown
        )
    fates = [Part(fate, row[f"{fate}_tokens"]) for fate in ("retained", "skipped", "merged", "dropped")]
    return ReportRow(
        title=title,
        prompt=_clip(prompt or ""),
        answer=_clip(row["answer"]),
        picture=pictures.of(row),
        fates=part_bar(fates, label=", ".join(f"{part.amount:,} {part.name}" for part in fates)),
    )


def _title(row: Mapping[str, Any], pictures: _Pictures) -> str:
    image = _first_image(row)
    if image is None:
        return "text alone"
    if image.row is not None and image.file is not None:
        return f"{Path(pictures.sources[image.file]).name}, row {image.row + 1:,}"
    if image.reference is None:
        return "an image" if image.content is not None else "no image named"
    if is_address(image.reference) and not in_store(image.reference):
        return _clip(image.reference, 120)
    return Path(image.reference).name


def _first_image(row: Mapping[str, Any]) -> Location | None:
    return next(map(Location.of, row[IMAGES]), None)


def _clip(text: str, most: int = MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


class _Pictures:
    """Pictures of rows, read again from where the input is. What cannot be read any more has none."""

    def __init__(self, sources: list[str], plan: JobPlan) -> None:
        self.sources = sources
        self._source = Source(sources, plan.embedded_column, policy=None)
        self._limits = ImageLimits(image_formats=tuple(plan.settings["image_formats"]))

    def of(self, row: Mapping[str, Any]) -> str | None:
        """The first, as a `data:` URI; None for an image at a web address, which is not fetched a second time."""
        location = _first_image(row)
        if location is None:
            return None
        try:
            [image] = self._source.read([location])
            if isinstance(image, InputError):
                return None
            pixels = self._decoded(image)
        except (ImageError, StorageError, OSError, ValueError, pa.ArrowException):
            # The input has changed or gone since the row was answered; that is no reason to end without a report.
            return None
        return picture_uri(Image.fromarray(np.ascontiguousarray(pixels)), side=PICTURE_SIDE)

    def _decoded(self, image: bytes | Path) -> RgbPixels:
        if isinstance(image, bytes):
            return decode_image(image, limits=self._limits, target=_as_shown)
        return read_image(image, limits=self._limits, target=_as_shown)


def _as_shown(height: int, width: int) -> tuple[int, int]:
    """The most that the page shows of a picture."""
    return PICTURE_SIDE, PICTURE_SIDE
