"""Which decoder of Pillow reads a format, and whether those that are optional are installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, get_args

from PIL.ImageFile import ImageFile

from skipvision.errors import ConfigError
from skipvision.image_formats import Format, OptionalFormat

OPTIONAL_FORMATS: tuple[OptionalFormat, ...] = get_args(OptionalFormat)

_DECODERS: dict[Format, tuple[str, str]] = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
}
ALWAYS_READ: tuple[Format, ...] = tuple(name for name in _DECODERS if name not in OPTIONAL_FORMATS)
_REMEDIES: dict[OptionalFormat, str] = {
    "AVIF": "this Pillow was built without libavif; install one of its own wheels: pip install pillow",
    "HEIC": "its decoder is not installed here: pip install 'skipvision[heif]'",
}


def decoder_of(image_format: Format) -> type[ImageFile]:
    """The class that reads this format and no other. It is called by itself, never found through a registry."""
    module, name = _DECODERS[image_format]
    decoder: type[ImageFile] = getattr(import_module(module), name)
    return decoder


def check_optional(formats: Iterable[str]) -> None:
    """Refuse a format that is not optional, or whose decoder is not installed.

    Raises:
        ConfigError: naming it, with the remedy.
    """
    for name in formats:
        if name not in OPTIONAL_FORMATS:
            known = ", ".join(OPTIONAL_FORMATS)
            raise ConfigError(f"image_formats may name {known}, beside those that are always read; got {name!r}")
        if not _is_installed(name):
            raise ConfigError(f"image_formats names {name}, and {_REMEDIES[name]}")


def decode_on_one_core(formats: Iterable[str]) -> None:
    """Let the optional decoders start no threads in this process, for one that decodes image after image.

    By default they start one for each core of the machine, and the memory that threads reserve counts against the
    limit of a process that has one.
    """
    if "AVIF" in formats:
        _settings("PIL.AvifImagePlugin").DEFAULT_MAX_THREADS = 1
    if "HEIC" in formats:
        _settings("pillow_heif.options").DECODE_THREADS = 1


def _is_installed(name: OptionalFormat) -> bool:
    if name == "AVIF":
        return bool(_settings("PIL.AvifImagePlugin").SUPPORTED)
    return find_spec("pillow_heif") is not None


def _settings(module: str) -> Any:
    return import_module(module)
