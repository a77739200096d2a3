"""What runs in the child process that looks at images: bytes in, checked, decoded and resized pixels out.

Decoders are the largest part of this program that was not written for hostile input. Here nothing is lost when one of
them crashes, hangs or takes all memory: the process holds one image and nothing else.
"""

from __future__ import annotations

import ctypes
import resource
import signal
import time
from pathlib import Path

import numpy as np

from skipvision.errors import ImageError
from skipvision.failpoints import failpoint
from skipvision.families import ImagePreparer, load_preparer
from skipvision.image_decoders import decode_on_one_core, decoder_of
from skipvision.images import ImageLimits, RgbPixels, decode_image, read_image
from skipvision.sandbox import DEFAULT_LIMITS, Encoded, Limits, Prepared

_PR_SET_PDEATHSIG = 1
_preparer: ImagePreparer | None = None
_limits: Limits = DEFAULT_LIMITS


def begin(model: str, limits: Limits) -> None:
    """Prepare this process: it gets so much memory beside what its code takes, and ends with who started it."""
    global _preparer, _limits
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _preparer, _limits = load_preparer(model), limits
    decode_on_one_core(limits.image_formats)
    for image_format in limits.image_formats:
        decoder_of(image_format)  # so that its code does not count as an image's memory
    most = _address_space() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected, and its memory image is of no use


def prepare(image: Encoded) -> Prepared:
    """An image as the model's processor prepares it, or why it cannot."""
    assert _preparer is not None, "the process was begun"
    started = time.perf_counter()
    try:
        failpoint("decode", image.name if isinstance(image, Path) else "")
        made: np.ndarray | ImageError = _preparer.prepare(_decoded(image, _preparer))
    except ImageError as error:
        made = error
    except MemoryError:
        made = ImageError("decoding the image takes more memory than it may have", code="image_out_of_memory")
    return made, time.perf_counter() - started


def _decoded(image: Encoded, preparer: ImagePreparer) -> RgbPixels:
    limits = ImageLimits(image_formats=_limits.image_formats)
    target = preparer.target_size if _limits.reduced_decoding else None
    if isinstance(image, Path):
        return read_image(image, limits=limits, target=target)
    return decode_image(image, limits=limits, target=target)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
