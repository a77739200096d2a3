"""What the README shows is run, and what it says is measured was printed from the measurement."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from benchmarks.print_tables import PAGES, printed
from skipvision.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder to run the README's commands in, with the example files where it says they are."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs_and_leaves_what_the_text_promises(checkout):
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) >= 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "skipvision"
        assert main(arguments) == 0, command
    assert list((checkout / "answers" / "data").glob("*.parquet"))
    assert (checkout / "answers" / "report.html").is_file()
    assert (checkout / "answers.csv").is_file()


def test_every_python_block_runs(checkout, capsys):
    programs = blocks("python")
    assert programs
    for program in programs:
        exec(compile(program, "README.md", "exec"), {})
    assert "SkipPlan(" in capsys.readouterr().out


def test_the_two_commands_of_the_first_screen_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= shown <= targets


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_printed_from_the_measurements(page):
    text = (ROOT / page).read_text()
    assert printed(text, PAGES[page], ROOT / "benchmarks" / "results") == text, "run: make tables"


LINKING = ["README.md", "k8s/README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", LINKING)
def test_every_link_to_a_file_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
