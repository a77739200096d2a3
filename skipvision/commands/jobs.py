"""`skipvision jobs`: what was sent to a cluster, how far it is, and how it is stopped and started again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from skipvision.commands.output import print_json, print_table, say
from skipvision.commands.places import Address, Context, Kubernetes, Namespace, place_of
from skipvision.commands.submit import Json, Report, Wait, finish
from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.submission.place import Place, SubmittedJob

jobs = typer.Typer(
    no_args_is_help=True, help="Jobs that were sent to a cluster: list them, stop them, go on with them."
)

Job = Annotated[str, typer.Argument(help="Its id, or its output.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@jobs.command("list")
def list_jobs(
    address: Address = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    json: AsJson = False,
) -> None:
    """All jobs there, the oldest first: status, rows that are committed, when it started last, output."""
    found = place_of(address, kubernetes, namespace, context).jobs()
    told = [_told(job) for job in found]
    if json:
        print_json({"jobs": told})
        return
    header = ("id", "name", "status", "rows", "started", "output")
    print_table(
        f"{len(found)} jobs",
        header,
        [[str(row[name] if row[name] is not None else "–") for name in header] for row in told],
    )


@jobs.command()
def show(
    job: Job,
    address: Address = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    json: AsJson = False,
) -> None:
    """One job, with its settings."""
    found = _found(place_of(address, kubernetes, namespace, context), job)
    told = _told(found) | {"message": found.message or None, "settings": dict(found.request.settings)}
    if json:
        print_json(told)
        return
    settings = [(name, str(value)) for name, value in found.request.settings.items() if name != "output"]
    rows = [(name, str(value)) for name, value in told.items() if value is not None and name not in ("id", "settings")]
    print_table(found.id, ("", ""), rows + settings)


@jobs.command()
def cancel(
    job: Job,
    address: Address = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Stop a job. What it committed stays, and it can go on from there."""
    place = place_of(address, kubernetes, namespace, context)
    found = _found(place, job)
    if found.status.is_over:
        say(f"{found.id} is over: {found.status}")
        return
    ended = place.stop(found)
    rows = _rows(ended)
    say(
        f"{ended.id} is {ended.status}{f', {rows} rows are committed' if rows else ''}; go on with it: skipvision jobs "
        f"resume {ended.id} {place.flags}"
    )


@jobs.command()
def resume(
    job: Job,
    address: Address = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
    context: Context = None,
    wait: Wait = True,
    report: Report = None,
    json: Json = False,
) -> None:
    """Start a job again as it was sent; it goes on from what it committed. One that runs is followed."""
    from pipelines.submission.place import submit

    place = place_of(address, kubernetes, namespace, context)
    started, was_there = submit(place, _found(place, job).request)
    say(f"{started.id} {'was there already' if was_there else 'goes on'}")
    finish(place, started, wait=wait, report=report, json=json)


def _found(place: Place, name: str) -> SubmittedJob:
    outputs = (name, name.rstrip("/"))
    for job in place.jobs():
        if name in (job.id, job.handle) or job.request.output.rstrip("/") in outputs:
            return job
    raise ConfigError(f"there is no job {name}; see skipvision jobs list {place.flags}")


def _told(job: SubmittedJob) -> dict[str, object]:
    return {
        "id": job.id,
        "name": job.request.name,
        "status": str(job.status),
        "rows": _rows(job),
        "started": job.started and job.started.strftime("%Y-%m-%d %H:%M:%SZ"),
        "output": job.request.output,
    }


def _rows(job: SubmittedJob) -> str | None:
    """Committed rows of all, as far as can be seen from here."""
    from pipelines.submission.standing import read_standing

    standing = read_standing(job.request.output)
    return None if standing is None else str(standing)
