"""Every hazard of an image file, as data: name -> how it is made, and what becomes of it.

    cut_short.py   part of the file is missing
    damage.py      bits, checksums and structure are wrong
    claims.py      headers that promise what is not there, or too much of it
    strangers.py   other things under an image's name, formats that are not read, files that are two things at once
    plain.py       every ordinary way to store a picture
    depths.py      grey, palettes and deep pixels
    alpha.py       transparency
    colours.py     inks, LAB, and colour profiles
    metadata.py    orientation, EXIF and text
    frames.py      animations and pages

All names end like an image's, so that a job takes a folder of them.
"""

from __future__ import annotations

from pathlib import Path

from tests.image_catalogue import (
    alpha,
    claims,
    colours,
    cut_short,
    damage,
    depths,
    frames,
    metadata,
    plain,
    strangers,
)
from tests.image_catalogue.case import Case

__all__ = ["CATALOGUE", "READ", "REFUSED", "Case", "write"]

_PARTS = (cut_short, damage, claims, strangers, plain, depths, alpha, colours, metadata, frames)

CATALOGUE: dict[str, Case] = {name: case for part in _PARTS for name, case in part.CASES.items()}
REFUSED = {name: case for name, case in CATALOGUE.items() if case.code is not None}
READ = {name: case for name, case in CATALOGUE.items() if case.code is None}

assert len(CATALOGUE) == sum(len(part.CASES) for part in _PARTS), "no name stands for two cases"


def write(folder: Path, cases: dict[str, Case]) -> dict[str, str | None]:
    """Write cases into `folder` as files, and say with which code each must be refused; None: it is read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, case in cases.items():
        (folder / name).write_bytes(case.make())
    return {name: case.code for name, case in cases.items()}
