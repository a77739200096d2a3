"""The processes that train together, as the trainer sees them; one process alone is a world too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Whose turn it is and what all have together. Every method that exchanges is called by all processes."""

    rank: int = 0
    size: int = 1
    sharding: Literal["ddp", "fsdp"] = "ddp"

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def sum(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Each of the values, added up over all processes."""
        if self.size == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(together)
        return together.tolist()

    def most(self, value: int, device: torch.device) -> int:
        """The largest of all processes' values."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, device=device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def gather(self, mine: Sequence[Any]) -> list[Any]:
        """What all have, in the order of ranks."""
        if self.size == 1:
            return list(mine)
        theirs: list[Sequence[Any]] = [()] * self.size
        dist.all_gather_object(theirs, list(mine))
        return [each for some in theirs for each in some]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def share(self, module: nn.Module, layers: Sequence[nn.Module], dtype: torch.dtype) -> nn.Module:
        """The module with its gradients exchanged, or sharded by layer.

        Args:
            module: on its device; of the same weights in every process.
            layers: parts that are gathered one at a time where weights are sharded.
            dtype: what sharded weights are multiplied in.
        """
        if self.size == 1:
            return module
        if self.sharding == "ddp":
            return DistributedDataParallel(module)
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in layers:
            fully_shard(layer, mp_policy=policy)
        fully_shard(module, mp_policy=policy)
        return module
