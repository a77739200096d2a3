"""The rooms keep their doors one-way, and importing costs nothing."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import skipvision

ROOT = Path(__file__).parents[1]
ROOMS = ("skipvision", "pipelines", "service", "monitoring")
SOURCES = sorted(path for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def modules_loaded_by(statement: str) -> set[str]:
    """Top-level packages in a fresh process after one statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.splitlines()[-1].split())


def test_doors_open_downward_only():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


def test_every_room_has_its_place_in_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    placed = {room for layer in contracts[0]["layers"] for room in layer.split(" | ")}
    files = {path.stem for path in ROOT.glob("skipvision/[a-z]*.py")}
    folders = {path.parent.name for path in ROOT.glob("skipvision/*/__init__.py")}
    assert {f"skipvision.{room}" for room in files | folders} <= placed


@pytest.mark.parametrize(
    ("module", "line", "named"),
    [
        ("skipvision/method/plan.py", "import ray", "skipvision.method.plan -> ray"),
        ("skipvision/engine/request.py", "import ray", "skipvision.engine.request -> ray"),
        (
            "skipvision/families/prompt.py",
            "import skipvision.engine",
            "skipvision.families.prompt -> skipvision.engine",
        ),
        ("skipvision/engine/request.py", "import pipelines", "skipvision.engine.request -> pipelines"),
        ("monitoring/expressions.py", "import service", "monitoring.expressions -> service"),
        ("monitoring/expressions.py", "import ray", "monitoring.expressions -> ray"),
    ],
)
def test_a_door_that_opens_upward_is_caught_and_named(tmp_path, module, line, named):
    for path in SOURCES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert named in result.stdout


def test_importing_the_package_loads_neither_ray_nor_torch():
    assert not modules_loaded_by("import skipvision") & {"ray", "torch", "transformers"}


def test_the_method_needs_torch_and_no_platform():
    names = ("plan", "flops", "merge", "select", "split", "summary", "skip_ffn", "kv_removal")
    loaded = modules_loaded_by("\n".join(f"import skipvision.method.{name}" for name in names))
    assert "torch" in loaded
    assert not loaded & {"ray", "transformers", "fastapi", "pydantic"}


def test_the_engine_runs_without_ray():
    assert "ray" not in modules_loaded_by("from skipvision import Engine, Request, Sampling, SkipConfig, skipping")


def test_asking_for_help_loads_neither_ray_nor_torch():
    assert not modules_loaded_by("from skipvision.cli import main\nmain(['run', '--help'])") & {"ray", "torch"}


@pytest.mark.parametrize("name", skipvision.__all__)
def test_what_the_package_offers_can_be_had(name):
    assert getattr(skipvision, name) is not None


def test_a_name_that_the_package_does_not_offer_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Engin'"):
        skipvision.Engin  # noqa: B018


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_first_what_lives_in_it(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} has no docstring"
