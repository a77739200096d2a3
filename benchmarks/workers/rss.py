"""What this process holds in memory, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def rss_bytes() -> int:
    """Bytes of it that are in memory now."""
    return _read("VmRSS")


def peak_rss_bytes() -> int:
    """The most that were since the last `reset_peak_rss`."""
    return _read("VmHWM")


def reset_peak_rss() -> None:
    """Forget the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")


def _read(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
