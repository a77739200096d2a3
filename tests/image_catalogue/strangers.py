"""Other things under an image's name, formats that are not read, and files that are two things at once."""

from __future__ import annotations

import gzip

import numpy as np

from tests.image_catalogue.case import Case, read, refused
from tests.image_files import picture, saved, zip_archive

HTML_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not found</body></html>"
SVG_DRAWING = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><title>dot</title><circle r="4"/></svg>'
SVG_READING_A_FILE = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/hostname">]><svg><text>&x;</text></svg>'
)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/hostname) (r) file\n"


def _boxes(brand: bytes, *compatible: bytes) -> bytes:
    body = brand + bytes(4) + b"".join(compatible)
    return (8 + len(body)).to_bytes(4, "big") + b"ftyp" + body + bytes(64)


CASES: dict[str, Case] = {
    "text.png": refused("image_unidentified", lambda: b"404 page not found\n"),
    "text-about-cars.bmp": refused("image_unidentified", lambda: b"BMW makes cars, and this is a text about them."),
    "zeros.jpg": refused("image_unidentified", lambda: bytes(1000)),
    "noise.jpg": refused("image_unidentified", lambda: np.random.default_rng(1).bytes(1000)),
    "document.png": refused("image_unidentified", lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"),
    "sound.webp": refused("image_unidentified", lambda: b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28)),
    "film.avif": refused("image_unidentified", lambda: _boxes(b"isom", b"mp42")),
    "program.png": refused("image_unidentified", lambda: b"\x7fELF\x02\x01\x01" + bytes(60)),
    "list-of-numbers.gif": refused("image_unidentified", lambda: b'{"image": null}'),
    "targa.png": refused("image_unidentified", lambda: saved(picture(), "TGA")),
    "portable.png": refused("image_unidentified", lambda: saved(picture(), "PPM")),
    "page.png": refused("image_is_html", lambda: HTML_PAGE),
    "page-in-utf-16.jpg": refused("image_is_html", lambda: HTML_PAGE.decode().encode("utf-16")),
    "page-after-comment.gif": refused("image_is_html", lambda: b"\xef\xbb\xbf\n <!-- gone --><HTML><svg/></HTML>"),
    "drawing.png": refused("image_is_svg", lambda: SVG_DRAWING),
    "drawing-reading-a-file.png": refused("image_is_svg", lambda: SVG_READING_A_FILE),
    "archive.png": refused("image_is_archive", zip_archive),
    "compressed.png": refused("image_is_archive", lambda: gzip.compress(saved(picture(), "PNG"))),
    "phone.heic": refused("image_format_unsupported", lambda: _boxes(b"heic", b"mif1", b"heic")),
    "collection.heic": refused("image_format_unsupported", lambda: _boxes(b"mif1", b"heic")),
    "picture.avif": refused("image_format_unsupported", lambda: saved(picture(), "AVIF")),
    "collection.avif": refused("image_format_unsupported", lambda: _boxes(b"mif1", b"avif")),
    "layers.png": refused("image_format_unsupported", lambda: b"8BPS\x00\x01" + bytes(64)),
    "icon.png": refused("image_format_unsupported", lambda: saved(picture(), "ICO")),
    "cursor.png": refused("image_unidentified", lambda: b"\x00\x00\x02\x00\x01\x00" + bytes(40)),
    "printout.png": refused("image_format_unsupported", lambda: POSTSCRIPT),
    "printout-with-preview.png": refused("image_format_unsupported", lambda: b"\xc5\xd0\xd3\xc6" + bytes(60)),
    "telescope.png": refused("image_format_unsupported", lambda: b"SIMPLE  =                    T" + bytes(60)),
    "wavelets.jp2": refused("image_format_unsupported", lambda: saved(picture(), "JPEG2000")),
    "wavelets-bare.jpg": refused("image_format_unsupported", lambda: b"\xff\x4f\xff\x51" + bytes(60)),
    "newer.jxl": refused("image_format_unsupported", lambda: b"\xff\x0a" + bytes(60)),
    "texture.png": refused("image_format_unsupported", lambda: saved(picture(), "DDS")),
    "film-frame.png": refused("image_format_unsupported", lambda: b"\x76\x2f\x31\x01" + bytes(60)),
    "jpeg-named.png": read(lambda: saved(picture(), "JPEG", quality=95), within=12),
    "png-named.jpg": read(lambda: saved(picture(), "PNG")),
    "tiff-named.bmp": read(lambda: saved(picture(), "TIFF")),
    "webp-named.gif": read(lambda: saved(picture(), "WEBP", lossless=True)),
    "archive-behind.jpg": read(lambda: saved(picture(), "JPEG", quality=95) + zip_archive(), within=12),
    "archive-behind.png": read(lambda: saved(picture(), "PNG") + zip_archive()),
    "page-behind.gif": read(lambda: saved(picture(), "GIF") + HTML_PAGE, within=12),
    "script-in-comment.jpg": read(
        lambda: saved(picture(), "JPEG", quality=95, comment=b"<script>alert(1)</script>"), within=12
    ),
    "zeros-behind.jpg": read(lambda: saved(picture(), "JPEG", quality=95) + bytes(1000), within=12),
    "second-picture-behind.jpg": read(
        lambda: saved(picture(), "JPEG", quality=95) + saved(picture(1), "JPEG"), within=12
    ),
}
