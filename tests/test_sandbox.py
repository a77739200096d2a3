"""An image that crashes, hangs or floods its decoder is an error of its row, and nobody else hears of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skipvision.errors import ConfigError
from skipvision.failpoints import VARIABLE
from skipvision.families import load_preparer
from skipvision.images import ImageLimits, decode_image
from skipvision.sandbox import Limits, Sandbox
from tests.image_catalogue import CATALOGUE
from tests.image_files import picture, saved, write_good

LIMITS = Limits(seconds=5.0, memory_bytes=512 << 20)

SCRIPT = """
import json, sys
from pathlib import Path
from skipvision.sandbox import Limits, Sandbox

model, *names = sys.argv[1:]
sandbox = Sandbox(model, Limits(seconds=5.0, memory_bytes=512 << 20))
made = sandbox.prepare([Path(name) for name in names])
print(json.dumps([getattr(each, "code", None) for each, _ in made]))
"""


@pytest.fixture
def codes(tmp_path: Path, tiny_model: Path) -> Callable[..., list[str | None]]:
    """What becomes of images in a process where a decoder fails, by their error codes."""

    def prepared(names: list[str], **wish: Any) -> list[str | None]:
        variables = os.environ | {VARIABLE: json.dumps({"decode": wish}), "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", SCRIPT, str(tiny_model), *(str(tmp_path / name) for name in names)]
        told = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=200, check=True).stdout
        return json.loads(told.splitlines()[-1])  # type: ignore[no-any-return]

    return prepared


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("segfault", "image_crashed_decoder"),
        ("kill", "image_crashed_decoder"),
        ("exit", "image_crashed_decoder"),
        ("hang", "image_too_slow"),
        ("memory", "image_out_of_memory"),
    ],
)
def test_a_decoder_that_fails_costs_one_image(
    tmp_path: Path, codes: Callable[..., list[str | None]], what: str, code: str
) -> None:
    names = write_good(tmp_path, 5)
    assert codes(names, what=what, match=names[2]) == [None, None, code, None, None]


def test_an_image_that_was_near_when_a_decoder_died_is_tried_again(
    tmp_path: Path, codes: Callable[..., list[str | None]]
) -> None:
    names = write_good(tmp_path, 3)
    once = {"times": 1, "count_in": str(tmp_path / "counts")}
    assert codes(names, what="segfault", match=names[1], **once) == [None, None, None]


def test_images_are_prepared_as_outside(tiny_model: Path) -> None:
    sandbox, preparer = Sandbox(str(tiny_model), LIMITS), load_preparer(tiny_model)
    images = [saved(picture(seed), "PNG") for seed in range(3)]
    (first, seconds), *others = sandbox.prepare([*images, CATALOGUE["bomb.png"].make()])
    assert np.array_equal(first, preparer.prepare(decode_image(images[0])))
    assert seconds > 0
    assert [getattr(each, "code", None) for each, _ in others] == [None, None, "image_bomb"]
    assert sandbox.prepare([]) == []


def test_formats_and_smaller_jpegs_reach_the_child(tiny_model: Path) -> None:
    limits = Limits(seconds=60.0, image_formats=("AVIF",), reduced_decoding=True)
    avif, jpeg = saved(picture(), "AVIF"), saved(picture(width=1024, height=1024).effect_spread(9), "JPEG")
    (read, _), (reduced, _) = Sandbox(str(tiny_model), limits).prepare([avif, jpeg])
    preparer = load_preparer(tiny_model)
    whole = decode_image(avif, limits=ImageLimits(image_formats=("AVIF",)))
    assert np.array_equal(read, preparer.prepare(whole))
    assert np.array_equal(reduced, preparer.prepare(decode_image(jpeg, target=preparer.target_size)))
    assert not np.array_equal(reduced, preparer.prepare(decode_image(jpeg)))


def test_a_machine_without_a_decoder_says_so_instead_of_trying_for_ever(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipvision.image_decoders._is_installed", lambda _: False)
    with pytest.raises(ConfigError, match="image_formats names HEIC"):
        Sandbox(str(tiny_model), Limits(image_formats=("HEIC",)))


def test_the_child_ends_with_the_process_that_began_it(tmp_path: Path, tiny_model: Path) -> None:
    names = write_good(tmp_path, 1)
    hang = {VARIABLE: json.dumps({"decode": {"what": "hang"}}), "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.replace("5.0", "500.0"), str(tiny_model), str(tmp_path / names[0])],
        env=os.environ | hang, start_new_session=True,
    )  # fmt: skip
    while len(group := members(parent.pid)) < 3:  # itself, the server that forks, and the child
        assert parent.poll() is None
        time.sleep(0.1)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while members(parent.pid):
        assert time.monotonic() < deadline, f"of {group}, {members(parent.pid)} live on"
        time.sleep(0.1)


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_child_that_cannot_begin_says_why_instead_of_being_replaced_for_ever(tmp_path: Path) -> None:
    sandbox = Sandbox(str(tmp_path / "no-model"), LIMITS)
    for _ in range(2):
        with pytest.raises(ConfigError, match="no-model"):
            sandbox.prepare([saved(picture(), "PNG")])
