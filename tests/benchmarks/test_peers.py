"""A peer's environment is mended where it has to be, and nowhere else."""

from __future__ import annotations

from typing import ClassVar

import pytest

from benchmarks.peers.mend_torchvision import OPERATORS, mended
from benchmarks.work import Work, draw_pictures

SOURCE = "\n".join(
    f'@torch.library.register_fake("torchvision::{name}")\ndef meta_{name}(boxes):\n    return boxes\n'
    for name in OPERATORS
)


@pytest.mark.parametrize(
    ("has_operators", "described"), [(True, ["torchvision::nms", "torchvision::qnms"]), (False, [])]
)
def test_operators_are_described_only_where_they_are_there(has_operators, described):
    class Recorder:
        """Stands for torch and for torchvision, of which the source uses this much."""

        names: ClassVar[list[str]] = []
        library = extension = None

        @classmethod
        def register_fake(cls, name):
            cls.names.append(name)
            return lambda fake: fake

        @staticmethod
        def _has_ops():
            return has_operators

    Recorder.library = Recorder.extension = Recorder
    exec(mended(SOURCE), {"torch": Recorder, "torchvision": Recorder})
    assert Recorder.names == described


def test_another_torchvision_is_refused():
    with pytest.raises(SystemExit, match="pin the version"):
        mended("nothing of the kind")


def test_every_engine_sees_the_same_images_and_no_image_twice(tmp_path):
    draw_pictures(tmp_path, count=4, side=8)
    first, second = (Work(folder=str(tmp_path), requests=2, images_each=2, new_tokens=1).pictures() for _ in range(2))
    flat = [image.tobytes() for request in first for image in request]
    assert flat == [image.tobytes() for request in second for image in request]
    assert len(set(flat)) == 4


def test_work_that_needs_more_images_than_were_drawn_is_refused(tmp_path):
    draw_pictures(tmp_path, count=1, side=8)
    with pytest.raises(ValueError, match="needs 2 images and 1 were drawn"):
        Work(folder=str(tmp_path), requests=2, new_tokens=1).pictures()


@pytest.mark.parametrize(("processes", "sizes"), [(1, [5]), (2, [2, 3]), (8, [1, 1, 1, 1, 1])])
def test_processes_that_share_work_answer_every_request_once(tmp_path, processes, sizes):
    draw_pictures(tmp_path, count=6, side=8)
    whole = Work(folder=str(tmp_path), requests=5, new_tokens=1, first=1)
    parts = whole.shared_by(processes)
    assert [part.requests for part in parts] == sizes
    seen = [image.tobytes() for part in parts for (image,) in part.pictures()]
    assert seen == [image.tobytes() for (image,) in whole.pictures()]
