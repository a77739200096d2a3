"""ICC profiles made by hand, and what their colours are in sRGB by arithmetic of our own."""

from __future__ import annotations

import struct

import numpy as np

Matrix = tuple[tuple[float, float, float], ...]

SRGB: Matrix = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
"""X, Y and Z of red, green and blue, under the profiles' own light (D50)."""
ADOBE: Matrix = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3: Matrix = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SWAPPED: Matrix = (SRGB[1], SRGB[2], SRGB[0])
"""Red is shown as sRGB's green, green as its blue, blue as its red."""
ADOBE_GAMMA = 563 / 256

_WHITE = (0.9642, 1.0, 0.8249)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def rgb_profile(primaries: Matrix, gamma: float | None = None, *, kind: bytes = b"mntr") -> bytes:
    """A profile of three primaries and one curve.

    Args:
        gamma: None: sRGB's curve.
    """
    curve = _parametric(*_SRGB_CURVE) if gamma is None else _gamma(gamma)
    colours = {name: _xyz(values) for name, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve), kind=kind, space=b"RGB ")


def grey_profile(gamma: float) -> bytes:
    return _profile({b"kTRC": _gamma(gamma)}, space=b"GRAY")


def ink_profile() -> bytes:
    """Of a press on which only the first ink shows, and that one as black."""
    ramp = bytes(range(256))
    nodes = b"".join(
        bytes([0 if number >= 8 else 255, 128, 128]) for number in range(16)
    )  # the first ink varies slowest
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + nodes + ramp * 3
    return _profile({b"A2B0": table, b"A2B1": table}, kind=b"scnr", space=b"CMYK", connection=b"Lab ")


def in_srgb(colour: tuple[int, int, int], primaries: Matrix, gamma: float | None = None) -> np.ndarray:
    """(3,) levels of 255, not rounded: a colour of `rgb_profile(primaries, gamma)`."""
    levels = np.array(colour) / 255
    linear = _srgb_to_linear(levels) if gamma is None else levels**gamma
    of_srgb = np.linalg.solve(np.array(SRGB).T, np.array(primaries).T @ linear).clip(0, 1)
    return np.where(of_srgb <= 0.0031308, of_srgb * 12.92, 1.055 * of_srgb ** (1 / 2.4) - 0.055) * 255


def _srgb_to_linear(levels: np.ndarray) -> np.ndarray:
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def _profile(tags: dict[bytes, bytes], *, space: bytes, kind: bytes = b"mntr", connection: bytes = b"XYZ ") -> bytes:
    """Header, table and tags of a profile of version 2.4."""
    text = b"text" + bytes(4) + b"made for a test\x00"
    described = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\x00" + bytes(79)
    tags = {b"desc": described, b"cprt": text, b"wtpt": _xyz(_WHITE)} | tags
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4xI4s4s4s", at + len(body), 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*_WHITE)
    return head.ljust(128, b"\x00") + table + body


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def _parametric(*values: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(*values)


def _fixed(*values: float) -> bytes:
    """Numbers with 16 bits behind the point."""
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))
