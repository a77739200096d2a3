"""The small model that ships with the package: where it is, how it was made, what it can do."""

from __future__ import annotations

from pathlib import Path

from skipvision.families.checkpoint import SHIPPED_MODEL


def path() -> Path:
    """Folder of the shipped checkpoint; any command takes it as `zoo`."""
    return SHIPPED_MODEL
