"""From the host to the model's device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on a device, in order with the work that is queued there. The host waits for nothing."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    # Out of ordinary memory a copy would wait for all work before it. Torch keeps the pinned copy until it is read.
    return tensor.pin_memory().to(device, non_blocking=True)
