"""The same engine on the GPU and on the CPU, where there is a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from skipvision.engine import Engine
from skipvision.engine.cuda.probe import probe
from skipvision.families import Family, load_family
from tests.engine.subjects import CARRIED
from tests.engine.test_equivalence import NARROW, mixed, outputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.fixture(scope="module")
def on_gpu(folder: Path) -> Family:
    torch.backends.cudnn.allow_tf32 = False  # as it is by default, convolutions round float32 to 10 bits
    return load_family(folder, device="cuda", dtype="float32")


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("limits", [{}, *NARROW.values()], ids=["roomy", *NARROW])
def test_in_float32_it_says_what_the_cpu_says(
    family: Family, on_gpu: Family, limits: dict[str, int], cuda_graphs: bool
) -> None:
    expected = Engine(family, skip=CARRIED)
    engine = Engine(on_gpu, skip=CARRIED, cache_tokens=1024, cuda_graphs=cuda_graphs, **limits)
    assert (engine._runner._decode_steps is not None) == cuda_graphs
    assert outputs(engine, mixed(engine)) == outputs(expected, mixed(expected))


def test_both_fast_forms_work_in_bfloat16(on_gpu: Family) -> None:
    assert probe(on_gpu.shape, device=on_gpu.device, dtype=torch.bfloat16).notes == ()
