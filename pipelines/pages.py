"""Pages of one file: templates with everything escaped, pictures inside, and a write that is whole or not at all."""

from __future__ import annotations

import base64
import io
import os
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import jinja2
from PIL import Image

from pipelines.plots import number

_FLOPS = ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs", "EFLOPs")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def render(template: str, **values: Any) -> str:
    """Fill in one of the templates beside this file. Values are escaped; a value that is missing is an error."""
    return _environment().get_template(template).render(values)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is, at any moment, as it was or complete.

    Raises:
        OSError: the file cannot be written; what was there is untouched.
    """
    # Unique, so that two writers at once never share a half-written file; the last rename wins.
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def picture_uri(picture: Image.Image, *, side: int) -> str:
    """A `data:` URI of an RGB picture, reduced to fit a square of `side` pixels."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    memory = io.BytesIO()
    small.save(memory, "WEBP", quality=82)
    return f"data:image/webp;base64,{base64.b64encode(memory.getvalue()).decode()}"


def flops_text(flops: float) -> str:
    """Operations with a decimal prefix: 1,234,000 -> `1.23 MFLOPs`."""
    return _scaled(flops, 1000, _FLOPS)


def bytes_text(size: float) -> str:
    """Bytes with a binary prefix: 1,536 -> `1.5 KiB`."""
    return _scaled(size, 1024, _BYTES)


def seconds_text(seconds: float) -> str:
    """A duration for reading: `3.21 s`, `4 min 12 s`, `2 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def usd_text(usd: float) -> str:
    """Dollars: `$1,234.57`; of less than ten cents, two digits that say something."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.2g}"


def share_text(part: float, whole: float) -> str:
    """`part` of `whole` as a percentage; a dash when there is no whole."""
    return f"{100 * part / whole:.1f}%" if whole else "–"


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    scaled, place = float(value), 0
    while abs(scaled) >= base and place < len(units) - 1:
        scaled, place = scaled / base, place + 1
    return f"{number(scaled)} {units[place]}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "flops": flops_text,
        "bytes": bytes_text,
        "seconds": seconds_text,
    }
    environment.globals |= {"share": share_text}
    return environment
