"""A job is there once: what happens when it is sent again, followed, and left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.submission.place import Status, must_be_done, submit
from pipelines.submission.request import JobRequest
from pipelines.submission.standing import fetch_report, read_standing
from skipvision.commands import submit as command
from skipvision.config import JobConfig
from skipvision.errors import ConfigError, JobStoppedError, StorageError
from tests.pipelines.submission.hand_made import Memory, commit_rows, finish


@pytest.fixture
def request_here(tmp_path) -> JobRequest:
    return JobRequest.of(JobConfig(input="s3://pictures", output=str(tmp_path / "job")))


def test_a_job_that_runs_is_found_instead_of_started_again(request_here):
    place = Memory()
    started, was_there = submit(place, request_here)
    assert (submit(place, request_here), was_there, place.starts) == ((started, True), False, 1)


def test_a_job_that_runs_with_other_settings_is_refused_naming_them_and_the_remedy(request_here, tmp_path):
    place = Memory()
    submit(place, request_here)
    other = JobRequest.of(JobConfig(input="s3://pictures", output=str(tmp_path / "job"), seed=3, workers=2))
    with pytest.raises(
        ConfigError, match=r"another seed and another workers.*jobs cancel job-\w+ --address http://there"
    ):
        submit(place, other)


@pytest.mark.parametrize("ended", [Status.FAILED, Status.CANCELLED])
def test_a_job_that_did_not_end_well_is_started_again(request_here, ended):
    place = Memory()
    place.ended(submit(place, request_here)[0].id, ended)
    assert submit(place, request_here)[1] is False
    assert place.starts == 2


def test_a_job_that_is_done_is_found_as_long_as_its_output_stands(request_here, tmp_path):
    place = Memory()
    place.ended(submit(place, request_here)[0].id, Status.DONE)
    finish(tmp_path)
    assert submit(place, request_here)[1] is True
    (tmp_path / "job" / "_SUCCESS").unlink()
    assert submit(place, request_here)[1] is False


def test_an_interrupt_leaves_the_job_and_says_how_to_look_at_it_stop_it_and_go_on(request_here, capsys):
    place = Memory()
    job, _ = submit(place, request_here)
    with pytest.raises(KeyboardInterrupt):
        command.finish(place, job, wait=True, report=None, json=False)
    said = capsys.readouterr().err
    for verb in ("show", "cancel", "resume"):
        assert f"skipvision jobs {verb} {job.id} --address http://there:8265" in said
    assert place.find(job.id).status is Status.RUNNING


@pytest.mark.parametrize(
    ("status", "exit_code", "error"),
    [
        (Status.FAILED, 2, ConfigError),
        (Status.FAILED, 3, JobStoppedError),
        (Status.FAILED, None, JobStoppedError),
        (Status.CANCELLED, None, JobStoppedError),
    ],
)
def test_how_a_job_ended_decides_how_the_command_does(request_here, status, exit_code, error):
    place = Memory()
    job = replace(submit(place, request_here)[0], status=status, exit_code=exit_code, message="the disk is full")
    with pytest.raises(error, match="the disk is full"):
        must_be_done(job, place)
    must_be_done(replace(job, status=Status.DONE), place)


def test_progress_is_read_from_the_output(tmp_path):
    output = str(tmp_path / "job")
    assert read_standing(output) is None
    assert not (tmp_path / "job").exists(), "looking creates nothing"
    commit_rows(tmp_path, 1)
    assert str(read_standing(output)) == "2 of 5"
    commit_rows(tmp_path, 3)
    assert str(read_standing(output)) == "5 of 5"


def test_a_report_is_fetched_whole_or_one_file_of_it(tmp_path):
    output = str(tmp_path / "job")
    with pytest.raises(StorageError, match="no report"):
        fetch_report(output, tmp_path / "here")
    finish(tmp_path)
    fetch_report(output, tmp_path / "here" / "too")
    assert (tmp_path / "here" / "too" / "report.html").read_text() == "<html>the report</html>"
    [written] = fetch_report(output, tmp_path / "mine.json")
    assert written.read_bytes() == (tmp_path / "job" / "report.json").read_bytes()
