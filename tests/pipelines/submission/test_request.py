"""What is sent: its id, its files, and what is refused before anything is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.submission.checks import check_settings, request_for
from pipelines.submission.ray_jobs import entrypoint
from pipelines.submission.request import MAX_ID, JobRequest, job_id
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError

ROOT = Path(__file__).parents[3]
PRICES = ROOT / "examples" / "prices.yaml"
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def config_of(**settings: object) -> JobConfig:
    return check({"input": "s3://pictures/2026", "output": "s3://answers/2026", **settings}, JobConfig, origin="a test")


def request_of(**settings: object) -> JobRequest:
    return JobRequest.of(config_of(**settings))


@pytest.mark.parametrize(
    "output",
    [
        "s3://b/answers",
        "s3://b",
        "/srv/Captions 2026",
        "s3://b/2026",
        "s3://b/" + "long-" * 30,
        "s3://b/Ä",
        "/",
        "a" * 99,
    ],
)
def test_an_id_is_a_name_that_kubernetes_and_ray_take(output):
    assert DNS_1035.fullmatch(job_id(output))
    assert len(job_id(output)) <= MAX_ID


def test_the_same_output_has_the_same_id_and_another_one_another():
    assert job_id("s3://b/answers") == job_id("s3://b/answers/")
    assert job_id("s3://b/answers") != job_id("s3://c/answers")
    assert request_of(seed=1, name="one").id == request_of(seed=2, name="two").id, "settings do not make another job"


def test_a_job_comes_out_as_it_was_sent():
    sent = request_of(prompt="What is it?\nJOB\nPRICES\n", stop=["a", "$HOME `x` 'y'"], skip="off", prices=str(PRICES))
    read = JobRequest.from_files(sent.job_file(), sent.price_file())
    assert read == sent
    assert not sent.differences(read)
    assert request_of().differences(sent) == ["prompt", "skip", "stop", "prices"]


def test_only_settings_that_were_set_are_sent_so_that_another_version_may_read_them():
    assert dict(request_of(seed=0, max_tokens=5).settings) == {
        "input": "s3://pictures/2026",
        "output": "s3://answers/2026",
        "max_tokens": 5,
    }


@pytest.mark.parametrize("prices", [None, str(PRICES)])
def test_the_driver_is_told_the_job_through_its_shell_to_the_letter(tmp_path, prices):
    sent = request_of(prompt="Is it 5 $ or `5`?\n\nJOB\nPRICES\n'\"\\", prices=prices)
    (tmp_path / "skipvision").mkdir()
    (tmp_path / "skipvision" / "cli.py").write_text(
        "import sys\nfrom pathlib import Path\n"
        "job = Path(sys.argv[-1]).read_text()\n"
        "Path('job').write_text(job)\n"
        "if '/dev/fd/3' in job: Path('prices').write_text(Path('/dev/fd/3').read_text())\n"
    )
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(entrypoint(sent), shell=True, cwd=tmp_path, env={"PATH": path}, check=True)
    told = yaml.safe_load((tmp_path / "job").read_text())
    assert told["ray_address"] == "auto"
    assert check(told, JobConfig, origin="the driver").prompt == sent.settings["prompt"]
    if prices is not None:
        assert yaml.safe_load((tmp_path / "prices").read_text()) == yaml.safe_load(PRICES.read_text())


def test_paths_of_this_machine_are_refused_with_a_remedy_where_the_cluster_is_elsewhere(tmp_path):
    local = config_of(input=str(tmp_path), output="answers", model="./model")
    with pytest.raises(ConfigError) as refused:
        request_for(local, is_this_machine=lambda: False, shared_files=False)
    for word in ("input: ", "output: answers", "model: ./model", "s3://bucket/folder", "--shared-files"):
        assert word in str(refused.value)


def test_paths_that_the_cluster_has_are_sent_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sent = request_for(config_of(output="answers", model="org/there"), is_this_machine=lambda: False, shared_files=True)
    assert sent.output == str(tmp_path / "answers")
    assert not (tmp_path / "answers").exists(), "looking creates nothing"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ray_address": "ray://elsewhere:10001"}, "ray_address"),
        ({"allow_networks": ["10.0.0.0/99"]}, "10.0.0.0/99"),
        ({"prices": "no/such/prices.yaml"}, "no/such/prices.yaml"),
        ({"skip": "9999/1"}, "9999"),
        ({"max_tokens": 10**6}, "max_tokens"),
    ],
)
def test_what_run_would_refuse_is_refused_before_it_is_sent(settings, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        check_settings(config_of(**settings))


def test_more_than_a_command_line_takes_is_refused_with_a_remedy():
    with pytest.raises(ConfigError, match="prompt_column"):
        request_of(prompt="why? " * 20_000)


def test_an_input_that_is_not_here_is_refused_only_where_the_cluster_is_this_machine(tmp_path):
    absent = config_of(input=str(tmp_path / "absent"), output=str(tmp_path / "out"), model="org/there")
    assert request_for(absent, is_this_machine=lambda: False, shared_files=True)
    with pytest.raises(ConfigError, match="absent does not exist"):
        request_for(absent, is_this_machine=lambda: True, shared_files=False)
