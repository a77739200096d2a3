"""Images per second of one core, from bytes to what the model takes: ours, exact and reduced, beside plain Pillow.

`python -m benchmarks.decoding`. Beside us, Pillow opens the file and converts it to RGB, and transformers' processor
does the rest: no check of the bytes, no limit, no turn, no profile; but it also rescales and normalises, which here
the device does. Seconds are the processor's own, in turns, so that a machine with other work to do measures the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from transformers import LlavaConfig, LlavaNextConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from benchmarks.machine import ROOT, spread, versions_of, write_result
from benchmarks.photographs import page, photo
from benchmarks.random_llava import small, small_tiled
from benchmarks.workers.rss import peak_rss_bytes, reset_peak_rss, rss_bytes
from skipvision.families import ImagePreparer
from skipvision.families.llava import LlavaPreparer
from skipvision.families.llava_next import LlavaNextPreparer
from skipvision.images import decode_image

RESULT = ROOT / "benchmarks" / "results" / "decoding.json"
Act = Callable[[bytes], np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Images of one format and size, for one family."""

    image_format: str
    width: int
    height: int
    tiled: bool = False
    images: int = 1
    """Decoded in one turn, so that it takes long enough to be measured."""

    def encoded(self, draw: Callable[[int, int], Image.Image]) -> bytes:
        file = BytesIO()
        options = {"quality": 90} if self.image_format == "JPEG" else {}
        draw(self.width, self.height).save(file, self.image_format, **options)
        return file.getvalue()


KINDS = (
    Kind(image_format="JPEG", width=640, height=480, images=10),
    Kind(image_format="JPEG", width=1920, height=1080, images=3),
    Kind(image_format="JPEG", width=4000, height=3000),
    Kind(image_format="JPEG", width=4000, height=3000, tiled=True),
    Kind(image_format="PNG", width=640, height=480, images=10),
    Kind(image_format="PNG", width=1920, height=1080, images=3),
)


def measure(
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    output: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULT,
) -> None:
    """Measure, and write one JSON file."""
    kinds = [compare(kind, rounds=rounds) for kind in KINDS]
    write_result(output, "decoding", {"rounds": rounds, "decoder_versions": versions_of("pillow"), "kinds": kinds})


def compare(kind: Kind, *, rounds: int) -> dict[str, Any]:
    """One kind of image by each way: images per second of a core, memory, and how far reduced pixels are from exact."""
    ways, data = ways_of(small_tiled() if kind.tiled else small()), kind.encoded(photo)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, act in ways.items():
            started = process_time()
            for _ in range(kind.images):
                act(data)
            rates[name].append(kind.images / (process_time() - started))
    return {
        "format": kind.image_format,
        "width": kind.width,
        "height": kind.height,
        "family": "llava_next" if kind.tiled else "llava",
        "file_bytes": len(data),
        "ways": {
            name: {"images_per_core_second": spread(rates[name][1:]), "peak_bytes": _peak_bytes(act, data)}
            for name, act in ways.items()
        },
        "reduced_from_exact": {
            drawn.__name__: _difference(ways, kind.encoded(drawn), lines=int(small().vision_config.image_size))
            for drawn in (photo, page)
        },
    }


def ways_of(config: LlavaConfig | LlavaNextConfig) -> dict[str, Act]:
    """From bytes to what each gives to the device."""
    processor = _processor(config)
    preparer: ImagePreparer = (
        LlavaNextPreparer(processor, config)
        if isinstance(config, LlavaNextConfig)
        else LlavaPreparer(processor, config)
    )

    def plain(data: bytes) -> np.ndarray:
        image = Image.open(BytesIO(data)).convert("RGB")
        pixels: np.ndarray = processor(images=[image], return_tensors="np")["pixel_values"]
        return pixels

    return {
        "plain": plain,
        "exact": lambda data: preparer.prepare(decode_image(data)),
        "reduced": lambda data: preparer.prepare(decode_image(data, target=preparer.target_size)),
    }


def _processor(config: LlavaConfig | LlavaNextConfig) -> Any:
    side = int(config.vision_config.image_size)
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    if isinstance(config, LlavaNextConfig):
        return LlavaNextImageProcessorPil(**sizes, image_grid_pinpoints=config.image_grid_pinpoints)
    return CLIPImageProcessorPil(**sizes)


def _difference(ways: dict[str, Act], data: bytes, *, lines: int) -> dict[str, float]:
    """Levels of 255 over all prepared pixels, without the line in which tiles note their picture's size."""
    exact, reduced = (ways[name](data).astype(int) for name in ("exact", "reduced"))
    whole = exact.shape[1] // lines * lines
    difference = np.abs(exact[:, :whole] - reduced[:, :whole])
    return {"max": int(difference.max()), "mean": float(difference.mean())}


def _peak_bytes(act: Act, data: bytes) -> int:
    """What one image adds at its most to a process that holds nothing of those before."""
    Image.core.clear_cache()
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak_rss()
    before = rss_bytes()
    act(data)
    return peak_rss_bytes() - before


if __name__ == "__main__":
    typer.run(measure)
