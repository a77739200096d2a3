"""The same engine on the GPU and on the CPU, where there is a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from skipvision.engine import Engine, Request, Sampling
from skipvision.engine.cuda.probe import probe
from skipvision.families import Family, load_family
from skipvision.families.layer_math import FusedMath
from skipvision.method.plan import SkipConfig
from tests.engine.subjects import CARRIED, picture
from tests.engine.test_adapters import CONFIGS, ask, save_adapter
from tests.engine.test_decoders import KINDS, build
from tests.engine.test_equivalence import NARROW, mixed, outputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

SETTINGS = {"all tokens": SkipConfig(), "skipping": SkipConfig(retain=4, merge_skipped_to=6, forget_skipped=True)}


@pytest.fixture(autouse=True, scope="module")
def exact_convolutions() -> None:
    torch.backends.cudnn.allow_tf32 = False  # as it is by default, convolutions round float32 to 10 bits


@pytest.fixture(scope="module")
def on_gpu(folder: Path) -> Family:
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


@pytest.mark.parametrize("skip", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_decoder_says_what_it_says_on_a_cpu(tmp_path: Path, kind: str, skip: SkipConfig) -> None:
    folder = build(tmp_path, kind)
    families = [load_family(folder, device=device, dtype="float32") for device in ("cpu", "cuda")]
    assert isinstance(families[1]._math, FusedMath)  # type: ignore[attr-defined]
    said = []
    for family in families:
        engine = Engine(family, skip=skip, cache_tokens=1024)
        asked = [
            Request(
                prompt="what is " * seed, images=(engine.prepare(picture(seed)),),
                sampling=Sampling(max_tokens=8, ignore_eos=True),
            )
            for seed in range(1, 6)
        ]  # fmt: skip
        said.append(outputs(engine, asked))
    assert len(set(said[0])) > 1, "the requests must not all say the same"
    assert said[1] == said[0]


def test_adapters_side_by_side_say_what_they_say_on_a_cpu(
    family: Family, on_gpu: Family, folder: Path, tmp_path: Path
) -> None:
    adapters = {name: save_adapter(folder, config, tmp_path / name, seed=1) for name, config in CONFIGS.items()}
    said = []
    for each in (family, on_gpu):
        engine = Engine(each, skip=CARRIED, adapters=adapters, cache_tokens=1024)
        asked = [ask(engine, name, pictures=pictures) for pictures in (0, 1, 2) for name in (None, *CONFIGS, None)]
        said.append(outputs(engine, asked))
    assert said[1] == said[0]


def test_both_fast_forms_work_in_bfloat16(on_gpu: Family) -> None:
    assert probe(on_gpu.shape, device=on_gpu.device, dtype=torch.bfloat16).notes == ()
