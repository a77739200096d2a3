"""Which rows of a step belong to which adapter, in each of the selections that the decoder makes of them."""

from __future__ import annotations

import numpy as np

from skipvision.engine.packing import PackedStep
from skipvision.engine.scheduler import Step
from skipvision.families.adapters import RowKind


def find_adapter_rows(step: Step, packed: PackedStep) -> dict[RowKind, dict[str, np.ndarray]]:
    """For each selection, and each adapter in this step: the places of its rows in the selection, int64."""
    names = [reading.request.adapter for reading in step.readings]
    known = sorted({name for name in names if name is not None})
    of_reading = [known.index(name) if name is not None else len(known) for name in names]
    of_row = np.repeat(of_reading, [reading.stop - reading.start for reading in step.readings])
    everything = slice(None)
    selections: dict[RowKind, np.ndarray | slice] = {
        "all": everything,
        "ffn": everything if packed.ffn_rows is None else packed.ffn_rows,
        "wanted": packed.wanted_rows,
    }
    return {
        kind: {name: np.flatnonzero(of_row[rows] == place) for place, name in enumerate(known)}
        for kind, rows in selections.items()
    }
