"""A caller's say in what is chosen: code of its own between the logits and the choice, for one request alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from skipvision.errors import InputError

log = logging.getLogger(__name__)


class LogitsHook(Protocol):
    """Called once for each token of an answer, in order, before it is chosen: a grammar, a bias, a ban.

    It may keep state. A request that is put back for want of memory reads again what it has said; it is not asked
    again about that. It must not call the engine.
    """

    def __call__(self, output_ids: Sequence[int], logits: Tensor) -> Tensor:
        """The logits to choose from.

        Args:
            output_ids: what the answer has so far.
            logits: (vocab,) float32 on the model's device, the hook's own to change.

        Returns:
            (vocab,) float32 on the same device; minus infinity forbids a token.
        """
        ...


@runtime_checkable
class ForkableHook(LogitsHook, Protocol):
    """What a request with several answers needs, since each calls a hook of its own."""

    def fork(self) -> LogitsHook:
        """Another hook in the state of this one, sharing none of it."""
        ...


def apply_hooks(
    logits: Tensor, hooks: Sequence[LogitsHook | None], outputs: Sequence[Sequence[int]]
) -> tuple[Tensor, dict[int, InputError]]:
    """Let each row's hook have its say.

    Args:
        logits: (rows, vocab) float32; never changed.
        hooks: for each row, its hook or None.
        outputs: for each row, the output ids so far.

    Returns:
        The logits to choose from, and the rows whose hook failed with what is to be said of it; their logits stay the
        model's.
    """
    hooked = [row for row, hook in enumerate(hooks) if hook is not None]
    if not hooked:
        return logits, {}
    shaped, failures = logits.clone(), dict[int, InputError]()
    for row in hooked:
        hook = hooks[row]
        assert hook is not None
        try:
            returned = hook(tuple(outputs[row]), logits[row].clone())
            fault = _fault(returned, logits[row])
            if fault is None:
                shaped[row] = returned
        except Exception as error:  # a caller's code may raise anything; that is no reason to stop the others
            log.warning("a logits hook failed; its request ends", exc_info=error)
            fault = f"raised {type(error).__name__}: {error}"
        if fault is not None:
            failures[row] = InputError(f"the logits hook {fault}", code="logits_hook_failed")
    return shaped, failures


def _fault(returned: object, own: Tensor) -> str | None:
    """What is wrong with what a hook returned for the logits `own`; None: nothing."""
    if not isinstance(returned, Tensor):
        return f"returned {type(returned).__name__}, not a tensor"
    if (returned.shape, returned.dtype, returned.device) != (own.shape, own.dtype, own.device):
        found, wanted = (f"{x.dtype} {tuple(x.shape)} on {x.device}" for x in (returned, own))
        return f"returned {found}; it must return {wanted}"
    most = returned.max()  # NaN, if there is one anywhere
    if most == -torch.inf:
        return "forbade every token"
    if not most.isfinite():
        return f"returned {most.item()} among its logits; to force a token, forbid all others"
    return None
