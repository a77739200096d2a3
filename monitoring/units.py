"""Numbers as people read them, by the units that the boards name."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_SUFFIXES = {"short": "", "reqps": " req/s", "flops": "FLOP/s"}
_SECONDS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def split(unit: str) -> tuple[str, str]:
    """A unit as one that is written beside every number, and one that is said once."""
    if unit.startswith("suffix:"):
        return "short", unit.removeprefix("suffix:")
    return ("short", "requests/s") if unit == "reqps" else (unit, "")


def scale(size: float, unit: str) -> float:
    """By what values of about this size are divided when they are shown."""
    if unit == "s":
        return next((length for length, _ in _SECONDS if size >= length), 1.0)
    if unit == "percentunit":
        return 0.01
    base = 1024.0 if unit in {"bytes", "binBps"} else 1000.0
    return base ** max(0, math.floor(math.log(size, base))) if size > 1 else 1.0


def shown(value: float, unit: str) -> str:
    """A value with its unit, in three or four digits."""
    if math.isnan(value):
        return "–"
    sign, size = ("-" if value < 0 else ""), abs(value)
    if unit == "percentunit":
        return f"{sign}{_digits(size * 100)}%"
    if unit == "currencyUSD":
        return f"{sign}${_dollars(size)}"
    if unit == "dateTimeAsIso":
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d")
    if unit == "s":
        return sign + _seconds(size)
    if unit in {"bytes", "binBps"}:
        return sign + _scaled(size, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB")) + ("/s" if unit == "binBps" else "")
    if unit == "flops":
        return sign + _scaled(size, 1000, ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s", "EFLOP/s"))
    kind, _, name = unit.partition(":")
    if kind == "suffix":
        return f"{sign}{_number(size)} {name}"
    return f"{sign}{_number(size)}{_SUFFIXES[unit]}"


def _number(size: float) -> str:
    return _scaled(size, 1000, ("", "K", "Mil", "Bil", "Tri")).rstrip()


def _dollars(size: float) -> str:
    if size >= 10_000:
        return _number(size)
    return f"{size:.2f}" if size >= 1 or size == 0 else f"{size:.2g}" if size >= 1e-4 else f"{size:.1e}"


def _seconds(size: float) -> str:
    for length, name in _SECONDS:
        if size >= length:
            return f"{_digits(size / length)} {name}"
    return f"{_digits(size * 1e6)} µs" if size else "0 s"


def _scaled(size: float, base: int, names: tuple[str, ...]) -> str:
    power = 0
    while size >= base and power < len(names) - 1:
        size, power = size / base, power + 1
    return f"{_digits(size)} {names[power]}"


def _digits(size: float) -> str:
    """Three digits or so, without zeros behind that say nothing."""
    if size and size < 0.001:
        return f"{size:.1e}"
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{size:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
