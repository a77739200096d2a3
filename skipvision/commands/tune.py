"""`skipvision tune`: fine-tune a checkpoint on conversations about images, with skipping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipvision.commands.output import print_json, print_table, say
from skipvision.config import load
from skipvision.errors import ConfigError

if TYPE_CHECKING:
    from skipvision.tuning.journal import StepRecord

_NEEDED = ("aiohttp", "matplotlib", "peft", "pyarrow", "tensorboardX")
_SECONDS_BETWEEN_LINES = 10.0


def tune(
    config: Annotated[Path, typer.Argument(help="The run's settings (YAML).")],
    output: Annotated[str | None, typer.Option(help="The run's folder, in place of the one in the settings.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run's report.json.")] = False,
) -> None:
    """Fine-tune a checkpoint on conversations about images. Killed and started again, a run goes on."""
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise ConfigError(f"fine-tuning needs {', '.join(missing)}: pip install 'skipvision[tune]'")
    from skipvision.tuning.run import MODEL, Run
    from skipvision.tuning.settings import TuneConfig

    settings = load(config, TuneConfig)
    run = Run.prepare(settings if output is None else replace(settings, output=output))
    report = _train(run)
    print_json(report) if json else _print_report(report, run.folder / MODEL)


def _train(run: Any) -> dict[str, Any]:
    if run.config.workers == 1:
        from skipvision.tuning.local import tune as train_here

        return train_here(run, _lines())
    if find_spec("ray") is None:
        raise ConfigError(
            "more than one worker run on Ray, which is not installed here: pip install 'skipvision[train]'"
        )
    from pipelines.finetune import finetune

    return finetune(run, _lines())


def _lines() -> Callable[[StepRecord, int], None]:
    """Tells of the first and the last step, and between them now and then."""
    told = 0.0

    def tell(record: StepRecord, steps: int) -> None:
        nonlocal told
        if record.step < steps and time.monotonic() - told < _SECONDS_BETWEEN_LINES:
            return
        told = time.monotonic()
        loss = "none learnt from" if record.loss is None else f"loss {record.loss:.4f}"
        speed = record.samples / record.seconds
        say(f"step {record.step}/{steps}  {loss}  rate {record.learning_rate:.2e}  {speed:.1f} samples/s")

    return tell


def _print_report(report: dict[str, Any], model: Path) -> None:
    rows = [
        ("steps", f"{report['steps']:,}"),
        ("samples learnt from", f"{report['samples']:,}"),
        ("samples set aside", f"{report['set_aside']:,}"),
        *((f"  {code}", f"{count:,}") for code, count in report["set_aside_by_code"].items()),
        ("skip", report["skip"]),
        ("first loss", f"{report['first_loss']:.4f}" if report["first_loss"] is not None else "–"),
        ("last loss", f"{report['last_loss']:.4f}" if report["last_loss"] is not None else "–"),
        ("seconds", f"{report['seconds']:.0f}"),
    ]
    print_table(f"{model} is done", ("", ""), rows)
