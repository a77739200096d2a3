"""Render the example images: real JPEG and PNG files whose truth is known, and two files that are broken on purpose.

`python examples/make_images.py` writes, beside itself, `images/`, and the same as `images.parquet` (bytes in a
column) and `images.jsonl` (relative paths). The scenes' seeds are far from those that the shipped model saw.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from skipvision.scenes import BACKGROUNDS, Scene, scene

FOLDER = Path(__file__).parent
HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>No such picture.</body></html>\n"
ORIGIN = "The pictures in this folder are rendered by examples/make_images.py. This file is here to be passed over.\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One file: which scene, in what shape and encoding."""

    name: str
    seed: int
    side: int = 384
    """Side in pixels of the square that is rendered, before cropping."""
    aspect: float = 1.0
    """Width / height; other than 1, the empty margins of the square are cropped, so every object stays in its place
    once the processor has padded the picture to a square again."""

    def picture(self) -> Image.Image:
        """The upright picture: a square, or its middle."""
        square = self.truth.render(self.side)
        width, height = round(self.side * min(1, self.aspect)), round(self.side * min(1, 1 / self.aspect))
        left, top = (self.side - width) // 2, (self.side - height) // 2
        return square.crop((left, top, left + width, top + height))

    def encode(self) -> bytes:
        """The file's bytes, in the format that its name says."""
        picture, memory, options = self.picture(), io.BytesIO(), dict[str, Any]()
        match self.name:
            case "palette.png":
                picture = picture.quantize(64)
            case "transparent.png":
                picture = _without_background(picture, BACKGROUNDS[self.truth.background])
            case "rotated-by-exif.jpg":
                picture, options["exif"] = _stored_on_its_side(picture)
            case "progressive.jpg":
                options["progressive"] = True
        if self.name.endswith(".jpg"):
            picture.save(memory, "JPEG", quality=85, **options)
        else:
            picture.save(memory, "PNG", optimize=True)
        return memory.getvalue()

    @property
    def truth(self) -> Scene:
        return scene(self.seed)


EXAMPLES = (
    Example(name="banner-3x1.jpg", seed=9000185, side=720, aspect=3),
    Example(name="landscape-4x3.jpg", seed=9000441, side=640, aspect=4 / 3),
    Example(name="large.jpg", seed=9000008, side=1024),
    Example(name="palette.png", seed=9000024),
    Example(name="portrait-3x4.jpg", seed=9000588, side=640, aspect=3 / 4),
    Example(name="progressive.jpg", seed=9000015),
    Example(name="rotated-by-exif.jpg", seed=9000269, side=512, aspect=4 / 3),
    Example(name="small.png", seed=9000014, side=128),
    Example(name="square.png", seed=9000001),
    Example(name="text.jpg", seed=9000029, side=300),
    Example(name="transparent.png", seed=9000021),
    Example(name="widescreen-16x9.png", seed=9000046, side=480, aspect=16 / 9),
)
CUT_OFF = Example(name="cut-off.jpg", seed=9000038)
"""Half of this one's bytes are written, as when a download breaks off."""
SAVED_PAGE = "saved-page.png"


def make(folder: Path) -> None:
    """Write the image folder, the Parquet file and the JSONL file into `folder`."""
    truths: dict[str, str | None] = {example.name: example.truth.caption() for example in EXAMPLES}
    files = {example.name: example.encode() for example in EXAMPLES}
    whole = CUT_OFF.encode()
    files |= {CUT_OFF.name: whole[: len(whole) // 2], SAVED_PAGE: HTML_PAGE}
    names = sorted(files)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / "images" / name).write_bytes(files[name])
    (folder / "images" / "ORIGIN.txt").write_text(ORIGIN)
    rows = [{"image": f"images/{name}", "truth": truths.get(name)} for name in names]
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pa.table(
        {"name": names, "image": [files[name] for name in names], "truth": [truths.get(name) for name in names]},
        schema=pa.schema([("name", pa.string()), ("image", pa.binary()), ("truth", pa.string())]),
    )
    pq.write_table(table, folder / "images.parquet", compression="none")  # the images are compressed already


def _without_background(picture: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """RGBA, with every pixel of exactly the background's colour fully transparent."""
    red, green, blue = picture.split()
    clear = bytes(pixel == colour for pixel in picture.get_flattened_data())
    alpha = Image.frombytes("L", picture.size, bytes(0 if gone else 255 for gone in clear))
    return Image.merge("RGBA", (red, green, blue, alpha))


def _stored_on_its_side(picture: Image.Image) -> tuple[Image.Image, Image.Exif]:
    """The picture as a camera held upright stores it, and the EXIF note that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    return picture.transpose(Image.Transpose.ROTATE_90), exif


if __name__ == "__main__":
    make(FOLDER)
