"""Exercises written as data that fine-tuning reads."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipvision.cli import main
from skipvision.exercises import STRATA, TRAINING_SEEDS
from skipvision.exercises import exercises as about_one_picture
from skipvision.exercises.contact_sheet import COLUMNS
from skipvision.tuning.conversation import ImagePart, read_conversation
from skipvision.tuning.sources import Samples


@pytest.mark.parametrize("form", ["llava", "messages"])
@pytest.mark.parametrize("name", ["folder", "table.parquet"])
def test_what_is_written_is_what_fine_tuning_reads(tmp_path: Path, name: str, form: str) -> None:
    flags = ["--format", form, "--count", "6", "--first", "4", "--strata", "text", "--strata", "list", "--side", "64"]
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


def test_a_sheet_shows_every_picture_as_it_is(tmp_path: Path) -> None:
    assert main(["exercises", str(tmp_path / "sheet.png"), "--count", "9", "--side", "64"]) == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    rows, columns = math.ceil(9 / COLUMNS), COLUMNS
    height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
    for at, (seed, stratum) in enumerate(zip(TRAINING_SEEDS[:9], [*STRATA, *STRATA], strict=False)):
        tile = sheet[at // columns * height :, at % columns * width :][:height, :width]
        picture = np.asarray(about_one_picture(stratum, seed, questions=3)[0].picture.render(64))
        assert np.array_equal(tile[8:72, 8:72], picture)
        assert (tile[80:] < 128).any(), "questions and answers stand below"
    assert (sheet[-height:, width:] == 255).all(), "where there is no tenth picture nothing is drawn"


def test_more_pictures_than_anybody_looks_at_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exercises", str(tmp_path / "sheet.png")]) == 2
    assert "1000" in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()
