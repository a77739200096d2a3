"""`skipvision run`: one batch job, from a job file, from flags, or from both.

The flags are made from the fields of `JobConfig`, so that a setting has one name, one meaning and one check.
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, Field, asdict, fields
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

import typer
from pydantic import TypeAdapter

from skipvision.commands.output import print_json, print_table
from skipvision.config import JobConfig, check, load
from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.statistics import JobReport


def run(job_file: Path | None, json: bool, **flags: Any) -> None:
    """Answer for every image of a dataset. Flags stand above what the job file says.

    Killed and started again with the same settings, a job goes on from what it committed.
    """
    settings = settings_of(job_file, flags)
    if find_spec("ray") is None:
        raise ConfigError("a job runs on Ray, which is not installed here: pip install 'skipvision[ray]'")
    from pipelines.job import run as run_job

    report = run_job(settings)
    print_json(report.to_dict()) if json else print_report(report, settings.output)


def settings_of(job_file: Path | None, flags: dict[str, Any]) -> JobConfig:
    """The job's settings: the file's, with every flag that was given in its place.

    Args:
        flags: field of `JobConfig` -> value; None or empty where the flag was not given.

    Raises:
        ConfigError: naming every setting that is wrong or missing.
    """
    given = {name: value for name, value in flags.items() if value not in (None, [])}
    if job_file is None:
        return check(given, JobConfig, origin="the command line")
    if not given:
        return load(job_file, JobConfig)
    return check(asdict(load(job_file, JobConfig)) | given, JobConfig, origin=f"{job_file} with the flags")


def print_report(report: JobReport, output: str) -> None:
    """The report's sums as a table; `--json` prints them with everything else."""
    tokens, spent, whole = report.tokens, report.actual, report.all_tokens
    counts = {"rows": report.rows, "answered": report.ok, "errors": report.errors, **report.errors_by_code}
    rows = [(name, f"{count:,}", "") for name, count in counts.items()]
    rows += [("visual tokens", f"{tokens.visual:,}", "")]
    rows += [
        (fate, f"{count:,}", _share(count, tokens.visual))
        for fate, count in (
            ("retained", tokens.retained),
            ("skipped", tokens.skipped),
            ("merged", tokens.merged),
            ("dropped", tokens.dropped),
        )
    ]
    rows += [
        ("FLOPs (modelled, causal)", f"{spent.flops:.4g}", _share(spent.flops, whole.flops)),
        ("KV bytes (modelled)", f"{spent.kv_bytes:,}", _share(spent.kv_bytes, whole.kv_bytes)),
        ("rows/s (measured)", f"{report.rows_per_second:.2f}", ""),
    ]
    if (compared := report.comparison).rows:
        share = _share(compared.seconds, compared.seconds_all_tokens)
        rows += [
            (f"seconds of {compared.rows:,} rows answered both ways (measured)", f"{compared.seconds:.2f}", share),
            ("of these, the same answer", f"{compared.same:,}", ""),
        ]
    if report.money is not None:
        usd, by = report.money["usd"], f"dollars, prices {report.money['prices']}"
        rows += [
            (f"{by} ({basis})", f"{usd['spent']:.4g}", _share(usd["spent"], usd[basis]))
            for basis in ("measured", "modelled") if usd[basis] is not None
        ]  # fmt: skip
    state = "was done already" if report.already_done else "is done"
    print_table(f"{output} {state}: see report.html there", ("", "", "of all tokens"), rows)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _signature() -> inspect.Signature:
    """The command's parameters: the job file, a flag for each setting, and `--json`."""
    types = get_type_hints(JobConfig)
    described = TypeAdapter(JobConfig).json_schema()["properties"]
    job_file = typer.Argument(help="A job file (YAML) with the same settings as the flags.", show_default=False)
    as_json = typer.Option("--json", help="Print the job's report.json.")
    flags = [
        _parameter(
            field.name,
            _flag_type(types[field.name]) | None,
            typer.Option(_flag(field.name, types[field.name]), help=_help(described[field.name]["description"], field)),
        )
        for field in fields(JobConfig)
    ]
    return inspect.Signature(
        [_parameter("job_file", Path | None, job_file), *flags, _parameter("json", bool, as_json, default=False)]
    )


def _parameter(name: str, kind: Any, option: Any, *, default: Any = None) -> inspect.Parameter:
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _help(description: str, field: Field[Any]) -> str:
    """The field's docstring, and its default where it has one that says something."""
    return description if field.default in (None, MISSING, ()) else f"{description} Default: {field.default}."


def _flag(setting: str, hint: Any) -> str:
    """`--some-setting`; of one that is on or off, both ways."""
    name = setting.replace("_", "-")
    return f"--{name}/--no-{name}" if hint is bool else f"--{name}"


def _flag_type(hint: Any) -> Any:
    """What one flag takes for a field of type `hint`: `int` for `int | None`, a repeated flag for a tuple."""
    if get_origin(hint) is tuple:
        return list[str]
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if kinds else hint


# typer reads a command's flags from its signature and its annotations.
vars(run)["__signature__"] = _signature()
run.__annotations__ = {name: parameter.annotation for name, parameter in inspect.signature(run).parameters.items()}
