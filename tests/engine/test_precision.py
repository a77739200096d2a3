"""bfloat16 beside float32, on the model that ships: random weights would not say which differences matter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from skipvision.engine import Engine, Request, Sampling
from skipvision.scenes import scene

PICTURES = [np.asarray(scene(10**9 + i).render(256)) for i in range(16)]


class Forced:
    """Notes what the model would say, and has it say something else."""

    def __init__(self, say: Sequence[int] | None) -> None:
        self.say = say
        self.would_say: list[int] = []

    def __call__(self, output_ids: Sequence[int], logits: Tensor) -> Tensor:
        self.would_say.append(int(logits.argmax()))
        if self.say is None:
            return logits
        forced = torch.full_like(logits, -torch.inf)
        forced[self.say[len(output_ids)]] = 0
        return forced


def would_say(dtype: str, skip: str, answers: Sequence[Sequence[int]] | None) -> list[list[int]]:
    """What each picture's caption goes on with at every place, after its own words or after those of `answers`."""
    engine = Engine.load(None, dtype=dtype, device="cpu", skip=skip)
    hooks = [Forced(answer) for answer in answers or [None] * len(PICTURES)]
    engine.answer(
        [
            Request(
                prompt="Describe the image.",
                images=(engine.prepare(rgb),),
                sampling=Sampling(max_tokens=len(hook.say) if hook.say else 24),
                logits_hook=hook,
            )
            for rgb, hook in zip(PICTURES, hooks, strict=True)
        ]
    )
    return [hook.would_say for hook in hooks]


@pytest.mark.parametrize("skip", ["auto", "off"])
def test_bfloat16_goes_on_as_float32_does_in_99_of_100_places(skip: str) -> None:
    exact = would_say("float32", skip, None)
    rounded = would_say("bfloat16", skip, exact)
    same = [a == b for ours, theirs in zip(rounded, exact, strict=True) for a, b in zip(ours, theirs, strict=True)]
    assert len(same) > 200
    assert sum(same) >= 0.99 * len(same)
