"""Exercises written as data that fine-tuning reads."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipvision.cli import main
from skipvision.exercises import TRAINING_SEEDS
from skipvision.exercises import exercises as about_one_picture
from skipvision.tuning.conversation import ImagePart, read_conversation
from skipvision.tuning.sources import Samples


@pytest.mark.parametrize("name", ["folder", "table.parquet"])
def test_what_is_written_is_what_fine_tuning_reads(tmp_path: Path, name: str) -> None:
    flags = ["--count", "6", "--first", "4", "--strata", "text", "--strata", "list", "--side", "64"]
    assert main(["exercises", str(tmp_path / name), *flags]) == 0
    samples = Samples([tmp_path / name if "." in name else tmp_path / name / "samples.jsonl"])
    assert len(samples) == 6
    for at in range(6):
        asked = about_one_picture(("text", "list")[at % 2], TRAINING_SEEDS[4 + at], questions=3)
        first, *others = read_conversation(samples[at])
        [image] = first.images
        assert isinstance(image, ImagePart)
        encoded = image.source if isinstance(image.source, bytes) else (samples.folder(at) / image.source).read_bytes()
        assert np.array_equal(Image.open(BytesIO(encoded)), asked[0].picture.render(64))
        said = [part for message in (first, *others) for part in message.parts if isinstance(part, str)]
        assert said == [text for each in asked for text in (each.question, each.answer)]


def test_what_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert main(["exercises", str(tmp_path / "there")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["exercises", str(tmp_path / "new"), "--strata", "poetry"]) == 2
    assert "there is no stratum" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
