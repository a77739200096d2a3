"""What docs/rows.md shows is run, each command on the line that stands under it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pyarrow.dataset
import pytest

from skipvision.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "rows.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_answers_the_line_under_it(folder, local_ray):
    shown = [(kind, text) for kind, text in BLOCKS if kind in ("sh", "json")]
    assert [kind for kind, _ in shown] == ["sh", "json"] * 3
    for (_, commands), (_, line) in zip(shown[::2], shown[1::2], strict=True):
        first, *others = [shlex.split(command)[1:] for command in commands.splitlines()]
        (folder / first[first.index("--input") + 1]).write_text(line)
        for arguments in (first, *others):
            assert main(arguments) == 0, arguments
        output = first[first.index("--output") + 1]
        [row] = pyarrow.dataset.dataset(f"{output}/data", format="parquet").to_table().to_pylist()
        assert (row["error_code"], row["visual_tokens"]) == (None, 256), row
        assert row["answer"]
    [answer] = map(json.loads, (folder / "answers.jsonl").read_text().splitlines())
    assert (answer["custom_id"], answer["response"]["status_code"]) == ("one", 200)
    assert (folder / "answers.errors.jsonl").read_text() == ""


def test_the_processor_of_the_page_runs(folder, local_ray, capsys):
    [program] = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(program, "rows.md", "exec"), {})
    assert "'answer': '" in capsys.readouterr().out
