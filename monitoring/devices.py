"""What a process computes on, as Ray knows it: a GPU of some kind, or so many CPU cores, on demand or spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray

from skipvision.prices import CPU, GPU

KIND, MARKET = "ray.io/accelerator-type", "ray.io/market-type"
"""Labels that Ray, or whoever makes its nodes, gives to a node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What one engine holds."""

    kind: str
    """`cpu`, or a kind of GPU in lower case; `gpu` where Ray does not know which."""
    capacity: str
    """`on_demand` or `spot`."""
    units: float
    """GPUs, or CPU cores."""


def device_of_this_process(*, on_gpu: bool) -> Device:
    """What Ray has given to this process; to one that is none of Ray's workers, one core or GPU, on demand."""
    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return Device(kind=GPU if on_gpu else CPU, capacity="on_demand", units=1.0)
    context = ray.get_runtime_context()
    labels: dict[str, Any] = context.get_node_labels()  # annotated as lists, and texts
    capacity = "spot" if labels.get(MARKET) == "spot" else "on_demand"
    held: dict[str, float] = context.get_assigned_resources()  # type: ignore[no-untyped-call]
    if on_gpu:
        return Device(kind=str(labels.get(KIND, GPU)).lower(), capacity=capacity, units=held.get("GPU") or 1.0)
    return Device(kind=CPU, capacity=capacity, units=held.get("CPU") or 1.0)
