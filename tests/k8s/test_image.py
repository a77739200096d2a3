"""The Dockerfile is one that its linter passes, its context holds what it copies, and what can be run of it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from k8s.rendering import HERE, ROOT, UNITS, read

IMAGE = HERE / "image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
EXTRAS = ["ray", "serve", "heif", "trace"]


def instructions(text: str = DOCKERFILE) -> list[tuple[str, str]]:
    """Each instruction and what follows it, comments left out and lines joined."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def lint(text: str) -> str:
    hadolint = Path(sys.executable).parent / "hadolint"
    program = str(hadolint) if hadolint.is_file() else shutil.which("hadolint")
    assert program, "hadolint is one of the development requirements"
    return subprocess.run([program, "--no-color", "-"], input=text, capture_output=True, text=True).stdout


def test_the_linter_finds_nothing_and_passes_over_one_rule_with_its_reason():
    assert lint(DOCKERFILE) == ""
    assert re.findall(r"^# hadolint ignore=(.*)$", DOCKERFILE, re.M) == ["DL3008"]


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("ARG BASE=python:3.11.14-slim-bookworm\n", "RUN true\n", "DL3061"),
        ("FROM ${BASE} AS build", "FROM python AS build", "DL3006"),
        ("FROM ${BASE} AS build", "FROM python:latest AS build", "DL3007"),
        ("WORKDIR /build", "WORKDIR build", "DL3000"),
        ("--no-install-recommends bash", "bash", "DL3015"),
        ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "DL3009"),
        ("apt-get install -y", "apt-get install", "DL3014"),
        ("RUN apt-get update", "RUN sudo apt-get update", "DL3004"),
        ("USER 1000:1000", "USER root", "DL3002"),
        ('CMD ["skipvision", "--help"]', "CMD skipvision --help", "DL3025"),
    ],
)
def test_the_linter_notices(old, new, rule):
    assert old in DOCKERFILE
    assert rule in lint(DOCKERFILE.replace(old, new))


def test_the_image_is_not_root_and_says_so_by_number():
    assert [rest for word, rest in instructions() if word == "USER"] == ["1000:1000"]
    users = {
        pod["spec"]["securityContext"]["runAsUser"]
        for unit in UNITS
        for api in unit.manifests()
        if api["kind"] == "RayService"
        for pod in [api["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]]
    }
    assert users == {1000}


def test_probes_of_the_operator_find_what_they_are_written_with():
    [installed] = [rest for word, rest in instructions() if word == "RUN" and "apt-get" in rest]
    always, _, for_cuda = installed.partition('if [ "${VARIANT}" = cuda ]')
    assert {"bash", "wget"} <= set(always.split())
    assert {"gcc", "libc6-dev"} <= set(re.findall(r"[\w-]+", for_cuda))
    assert "gcc" not in always


def test_the_base_is_a_python_that_the_project_is_for():
    [base] = [rest for word, rest in instructions() if word == "ARG" and rest.startswith("BASE=")]
    version = re.fullmatch(r"BASE=python:(\d+\.\d+)\.\d+-slim-\w+", base)
    assert version is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Requirement(f"x{project['requires-python']}").specifier.contains(version[1])


def _copied() -> list[str]:
    """What comes from the repository."""
    plain = [rest.split() for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [source for words in plain for source in [word for word in words if not word.startswith("--")][:-1]]


def test_the_builder_is_given_what_the_file_copies_and_nothing_else():
    lines = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    for source in _copied():
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in kept), source
    for each in kept:
        assert any(source == each or source.startswith(f"{each}/") for source in _copied()), each


def _requirements(*extras: str) -> list[str]:
    command = [sys.executable, str(IMAGE / "requirements.py"), str(ROOT / "pyproject.toml"), *extras]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_dockerfile_installs_the_extras_that_are_tested_here():
    assert f"requirements.py pyproject.toml {' '.join(EXTRAS)} >" in DOCKERFILE


def test_requirements_are_the_projects_with_its_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = _requirements("serve")
    assert set(project["dependencies"]) <= set(found)
    assert "ray[serve]>=2.60,<3" in found
    assert "ray[data]>=2.60,<3" in found, "an extra brings along those that it names"
    assert not [each for each in found if each.startswith("skipvision")]
    with pytest.raises(subprocess.CalledProcessError):
        _requirements("surve")


def test_everything_that_comes_into_the_image_has_a_tested_version():
    """But libraries of CUDA, whose versions torch's wheel for CUDA names itself."""
    pinned = {
        canonicalize_name(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    left, seen = [Requirement(each) for each in _requirements(*EXTRAS)], set()
    while left:
        each = left.pop()
        name = canonicalize_name(each.name)
        environments = [{**default_environment(), "extra": extra} for extra in (each.extras or {""})]
        if (key := (name, *sorted(each.extras))) in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add(key)
        assert name in pinned, name
        for text in metadata.requires(name) or ():
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate(environment) for environment in environments):
                left.append(inner)
    assert len(seen) > 60


def test_the_project_becomes_a_wheel_in_a_folder_that_holds_what_is_copied(tmp_path):
    """The build's own steps, in a clean folder; the environment is this one's, since nothing is fetched here."""
    build = tmp_path / "build"
    build.mkdir()
    for source in _copied():
        target = build / source if (ROOT / source).is_dir() else build / Path(source).name
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    [step] = [rest for word, rest in instructions() if word == "RUN" and "pip wheel" in rest]
    step = step.replace("/opt/skipvision/bin/pip", f"{sys.executable} -m pip")
    made = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", step.replace("--no-deps", "--no-deps --no-index")],
        cwd=build, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    [wheel] = (build / "wheels").glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for needed in ("service/page/index.html", "service/application.py", "monitoring/hub.py", "pipelines/job.py"):
        assert needed in inside
    assert any(name.startswith("skipvision/zoo/") and name.endswith(".safetensors") for name in inside)
    assert not [name for name in inside if name.startswith(("tests/", "k8s/", "benchmarks/"))]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    ran = subprocess.run(
        [sys.executable, "-c", "import skipvision.cli as cli; print(cli.__file__)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")}, capture_output=True, text=True,
    )  # fmt: skip
    assert str(tmp_path / "installed") in ran.stdout, ran.stderr


@pytest.fixture
def drain(tmp_path, monkeypatch):
    """The script beside a `ray` that notes how it is called, and how that ends is the test's to say."""

    def run(*words: str, ray_ends_with: int = 0) -> subprocess.CompletedProcess[str]:
        for name, line in {
            "ray": f'echo "$@" > {tmp_path}/told; exit {ray_ends_with}',
            "sleep": 'echo "slept $1"',
        }.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
            (tmp_path / name).chmod(0o755)
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run([IMAGE / "drain.sh", *words], env=environment, capture_output=True, text=True)

    return run


def test_draining_tells_ray_and_waits(drain, tmp_path):
    assert drain("75").stdout == "slept 75\n"
    assert "drain-node --reason DRAIN_NODE_REASON_PREEMPTION" in (told := (tmp_path / "told").read_text())
    assert "--deadline-remaining-seconds 75" in told


def test_draining_waits_although_ray_refuses(drain):
    ran = drain("75", ray_ends_with=1)
    assert ran.stdout == "slept 75\n"
    assert "Ray did not take the node out" in ran.stderr


@pytest.mark.parametrize("words", [[], ["soon"], ["75s"]])
def test_draining_for_no_number_of_seconds_is_refused(drain, words):
    assert drain(*words).returncode != 0
    assert "slept" not in drain(*words).stdout


def test_ray_knows_the_command_that_drains():
    from ray.autoscaler._private.cli_logger import cli_logger  # noqa: F401 - the group below needs it first
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason
    from ray.scripts.scripts import cli

    given = {option for parameter in cli.commands["drain-node"].params for option in parameter.opts}
    text = (IMAGE / "drain.sh").read_text()
    assert set(re.findall(r"--[a-z-]+", text.replace("drain-node", ""))) <= given
    assert "DRAIN_NODE_REASON_PREEMPTION" in set(DrainNodeReason.keys())


def test_the_script_is_where_pods_call_it():
    assert ("COPY", "--chmod=755 k8s/image/drain.sh /usr/local/bin/skipvision-drain") in instructions()
    commands = re.findall(r"skipvision-drain", "".join(unit.committed.read_text() for unit in UNITS))
    assert len(commands) >= 6


def test_the_example_of_secrets_holds_none():
    for each in read((HERE / "secrets.example.yaml").read_text()):
        assert set(each["stringData"].values()) == {""}


def test_redis_reads_its_settings_and_the_password_from_standard_input_and_is_the_process_that_is_told_to_end(tmp_path):
    store = next(each for unit in UNITS for each in unit.manifests() if each["kind"] == "StatefulSet")
    [container] = store["spec"]["template"]["spec"]["containers"]
    settings = HERE / "components/fault-tolerance/redis.conf"
    shell, flag, script = container["command"]
    (tmp_path / "redis-server").write_text('#!/bin/sh\necho "$$ $@"\ncat\n')
    (tmp_path / "redis-server").chmod(0o755)
    environment = {"REDISCLI_AUTH": "s3cret", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [shell, flag, script.replace("/etc/redis/redis.conf", str(settings))],
        env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        told = process.communicate()[0].splitlines()
    assert told[0] == f"{process.pid} -"
    assert told[1:] == [*settings.read_text().splitlines(), "requirepass s3cret"]
