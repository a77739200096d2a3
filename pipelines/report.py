"""What a finished job says of itself: `report.json` for programs and `report.html`, one file, for people."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

from markupsafe import Markup

from pipelines.folder import JobFolder, name_of
from pipelines.layout import REPORT_HTML, REPORT_JSON
from pipelines.pages import bytes_text, flops_text, render, share_text, usd_text
from pipelines.plots import Part, part_bar, rates, step_plot
from pipelines.report_rows import ReportRow, rows_for_report
from pipelines.statistics import JobReport
from skipvision.version import __version__

PACKAGES = ("torch", "transformers", "ray", "pyarrow", "pillow")


@dataclass(frozen=True, slots=True)
class CostCard:
    """One kind of cost beside what all tokens would have cost, in words and as bars of one scale."""

    title: str
    actual: str
    all_tokens: str
    ratio: str
    actual_bar: Markup
    all_bar: Markup


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """One error code, its rows, and one of them."""

    code: str
    rows: int
    message: str | None
    where: str


def write_report(folder: JobFolder, report: JobReport) -> None:
    """Write both files; each is at any moment as it was or complete."""
    folder.replace(REPORT_JSON, report.to_json().encode())
    page = report_page(name_of(folder.address), report, rows_for_report(folder))
    # An answer can hold half a surrogate pair, which no encoding has.
    folder.replace(REPORT_HTML, page.encode("utf-8", "backslashreplace"))


def report_page(name: str, report: JobReport, rows: Iterable[ReportRow]) -> str:
    """The page as text. A function of its arguments and the installed versions."""
    rows = list(rows)
    tokens = report.tokens
    fate_parts = [
        Part("retained", tokens.retained),
        Part("skipped", tokens.skipped),
        Part("merged", tokens.merged),
        Part("dropped", tokens.dropped),
    ]
    return render(
        "report.html.j2",
        name=name,
        report=report,
        throughput=_throughput(report),
        fates=part_bar(fate_parts, label="visual tokens by fate"),
        fate_parts=fate_parts,
        costs=_costs(report),
        measured=_measured(report),
        money=_money(report),
        errors=_errors(report, rows),
        rows=[row for row in rows if row.shown],
        settings=[(key, value) for key, value in sorted(report.settings.items()) if value is not None],
        facts=_facts(report),
    )


def _throughput(report: JobReport) -> Markup | None:
    points = rates(report.timeline)
    if not points:
        return None
    return step_plot(points, mean=report.rows_per_second, label="rows a second over time", unit="rows/s")


def _costs(report: JobReport) -> list[CostCard]:
    actual, full = report.actual, report.all_tokens
    return [
        _cost(
            "FLOPs of the language model", actual.flops, full.flops, flops_text(actual.flops), flops_text(full.flops)
        ),
        _cost(
            "Keys and values held",
            actual.kv_bytes,
            full.kv_bytes,
            bytes_text(actual.kv_bytes),
            bytes_text(full.kv_bytes),
        ),
    ]


def _measured(report: JobReport) -> CostCard | None:
    """Seconds of the rows that were answered both ways. None: there were none."""
    compared = report.comparison
    if not compared.rows:
        return None
    job, full = compared.seconds, compared.seconds_all_tokens
    return _cost("Seconds that they took", job, full, f"{job:.2f} s", f"{full:.2f} s")


def _money(report: JobReport) -> list[tuple[str, str]]:
    """What was spent, and what all tokens would have cost. Nothing where no price list was named."""
    if report.money is None:
        return []
    usd = report.money["usd"]
    named = {
        "spent": usd["spent"],
        "with all tokens, measured": usd["measured"],
        "with all tokens, modelled": usd["modelled"],
    }
    return [(name, usd_text(amount)) for name, amount in named.items() if amount is not None]


def _cost(title: str, actual: float, full: float, actual_text: str, full_text: str) -> CostCard:
    most = max(actual, full)
    return CostCard(
        title=title,
        actual=actual_text,
        all_tokens=full_text,
        ratio=share_text(actual, full),
        actual_bar=part_bar([Part("job", actual)], label=f"{title}, this job", most=most),
        all_bar=part_bar([Part("all", full)], label=f"{title}, all tokens", most=most),
    )


def _errors(report: JobReport, rows: list[ReportRow]) -> list[ErrorLine]:
    examples: dict[str, ReportRow] = {}
    for row in rows:
        if row.error_code is not None:
            examples.setdefault(row.error_code, row)
    most_first = sorted(report.errors_by_code.items(), key=lambda found: (-found[1], found[0]))
    return [
        ErrorLine(code, count, examples[code].error_message, examples[code].title)
        if code in examples
        else ErrorLine(code, count, None, "")
        for code, count in most_first
    ]


def _facts(report: JobReport) -> list[tuple[str, str]]:
    stages = [(f"{stage}, all workers", f"{seconds:.1f} s") for stage, seconds in report.stage_seconds.items()]
    rows, engine = max(report.ok, 1), report.engine
    gaps = max(report.tokens.output - report.ok, 1)
    packages = [(package, version(package)) for package in PACKAGES]
    return [
        ("shards", f"{report.shards:,}"),
        ("of an earlier attempt", f"{report.resumed_shards:,}"),
        ("files passed over", f"{report.other_files:,}"),
        *stages,
        ("in line, mean", f"{report.row_seconds.queue / rows:.3f} s"),
        ("to the first token, mean", f"{report.row_seconds.first_token / rows:.3f} s"),
        ("between tokens, mean", f"{report.row_seconds.between_tokens / gaps:.4f} s"),
        ("engine steps", f"{engine.steps:,}"),
        ("places taken in them", share_text(engine.slots_used, engine.slots)),
        ("cache pages held", share_text(engine.pages_held, engine.pages)),
        ("requests put back", f"{engine.preemptions:,}"),
        ("prompt tokens shared", f"{engine.shared_prompt_tokens:,}"),
        ("images at hand", f"{engine.vision_cache_hits:,}"),
        ("skipvision", __version__),
        ("Python", platform.python_version()),
        *packages,
    ]
