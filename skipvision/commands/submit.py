"""`skipvision submit`: the same job file as `skipvision run` takes, sent to a cluster."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipvision.commands.output import print_json, say
from skipvision.commands.places import Address, Context, Kubernetes, Namespace, place_of
from skipvision.commands.run import print_report
from skipvision.config import JobConfig, load
from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.submission.place import Place, SubmittedJob

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job until it is over.")]
Report = Annotated[
    Path | None, typer.Option(help="Fetch report.json and report.html into this folder, or one to a file of its kind.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the job's report.json.")]


def submit(
    job_file: Annotated[Path, typer.Argument(help="A job file (YAML), as `skipvision run` takes it.")],
    address: Address = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    template: Annotated[
        Path | None,
        typer.Option(
            help="A RayJob (YAML) with image, machines and deadlines, with --kubernetes. Default: skipvision-batch, if "
            "it waits in the namespace."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the manifests and leave, with --kubernetes.")
    ] = False,
    shared_files: Annotated[
        bool, typer.Option("--shared-files", help="The cluster has this machine's folders under the same paths.")
    ] = False,
    wait: Wait = True,
    report: Report = None,
    json: Json = False,
) -> None:
    """Run a job on a Ray cluster, or as a RayJob on Kubernetes. Sent again, a job that is there is found."""
    config = load(job_file, JobConfig)
    if find_spec("pyarrow") is None:
        raise ConfigError("submitting needs pyarrow, which is not installed here: pip install 'skipvision[submit]'")
    from pipelines.submission.checks import check_settings, request_for
    from pipelines.submission.place import submit as start

    check_settings(config)
    if dry_run:
        _print_manifests(config, kubernetes, template, namespace, shared_files)
        return
    place = place_of(address, kubernetes, namespace, context, template=template)
    request = request_for(config, is_this_machine=place.is_this_machine, shared_files=shared_files)
    job, was_there = start(place, request)
    say(f"{job.id} {'was there already' if was_there else 'is sent'}")
    finish(place, job, wait=wait, report=report, json=json)


def finish(place: Place, job: SubmittedJob, *, wait: bool, report: Path | None, json: bool) -> None:
    """Follow a job to its end and print its report, or leave it.

    Raises:
        ConfigError: it was refused where it ran.
        JobStoppedError: it failed, or was stopped.
    """
    from pipelines.submission.place import must_be_done
    from pipelines.submission.standing import fetch_report, read_report

    hints = "\n".join(f"  skipvision jobs {command} {job.id} {place.flags}" for command in ("show", "cancel", "resume"))
    if not job.status.is_over:
        if not wait:
            say(f"{job.id} is {job.status}; look at it, stop it or go on with it:\n{hints}")
            return
        try:
            job = place.follow(job, say)
        except KeyboardInterrupt:
            say(f"\n{job.id} goes on; look at it, stop it or go on with it:\n{hints}")
            raise
    must_be_done(job, place)
    if report is not None:
        say("fetched " + ", ".join(map(str, fetch_report(job.request.output, report))))
    done = read_report(job.request.output)
    if done is None:
        say(f"{job.id} is done; {job.request.output} cannot be seen from here, its report is there")
    elif json:
        print_json(done.to_dict())
    else:
        print_report(done, job.request.output)


def _print_manifests(
    config: JobConfig, kubernetes: bool, template: Path | None, namespace: str | None, shared_files: bool
) -> None:
    from pipelines.submission.checks import request_for
    from pipelines.submission.rayjob import manifests_text, read_template

    if not kubernetes or template is None:
        raise ConfigError("--dry-run prints what --kubernetes would be told: it needs both, and --template rayjob.yaml")
    rayjob = read_template(template)
    request = request_for(config, is_this_machine=lambda: False, shared_files=shared_files)
    print(manifests_text(request, rayjob, namespace=namespace), end="")
