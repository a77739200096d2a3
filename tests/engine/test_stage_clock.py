from __future__ import annotations

from time import sleep

import pytest
import torch

from skipvision.engine.stage_clock import STAGES, StageClock

HERE = torch.device("cpu")


def test_a_block_is_shared_out_and_the_seconds_add_up() -> None:
    clock = StageClock(HERE)
    for _ in range(2):
        with clock.timing(decode=0.25, prefill=0.75):
            sleep(0.01)
    seconds = clock.seconds()
    assert seconds["prefill"] == pytest.approx(3 * seconds["decode"])
    assert seconds["prefill"] + seconds["decode"] >= 0.02
    assert [stage for stage in STAGES if not seconds[stage]] == ["encode", "merge", "sample"]


def test_reading_it_counts_nothing_twice() -> None:
    clock = StageClock(HERE)
    with clock.timing(encode=1):
        sleep(0.001)
    assert clock.seconds() == clock.seconds()


def test_a_block_that_fails_is_no_work() -> None:
    clock = StageClock(HERE)
    with pytest.raises(ZeroDivisionError), clock.timing(sample=1):
        1 / 0  # noqa: B018
    assert clock.seconds()["sample"] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_it_is_the_work_that_counts_and_not_the_asking_for_it() -> None:
    clock = StageClock(torch.device("cuda"))
    square = torch.randn(4096, 4096, device="cuda")
    with clock.timing(prefill=1):
        for _ in range(20):
            square @ square
    assert clock.seconds()["prefill"] > 20 * 2 * 4096**3 / 1e15
