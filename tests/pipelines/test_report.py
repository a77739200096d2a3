"""The report: its numbers are the job's, its text is harmless, and it needs nothing but itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.folder import JobFolder
from pipelines.freeze import freeze, parquet_bytes
from pipelines.frozen import frozen_name, read_table
from pipelines.layout import shard_name
from pipelines.model import ChosenModel
from pipelines.plots import Part, number, part_bar, rates, ticks
from pipelines.report import report_page, write_report
from pipelines.report_rows import ANSWERED_SHOWN, ERRORS_SHOWN
from pipelines.result_rows import result_schema
from pipelines.sources import find_source
from pipelines.statistics import Comparison, Cost, DeviceSeconds, JobReport, RowSeconds, TokenCounts
from pipelines.tables import open_table
from skipvision.config import JobConfig
from skipvision.engine import EngineCounts
from skipvision.method.plan import SkipConfig

HOSTILE = "<script>alert(1)</script>\"' onerror=x </style><img src=http://evil.example/x>{{ 7 * 7 }}"
TOKENS = {
    "text_tokens": 9,
    "visual_tokens": 256,
    "retained_tokens": 44,
    "skipped_tokens": 69,
    "merged_tokens": 143,
    "dropped_tokens": 0,
}


class Page(HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[str]:
        return [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]


def job_over(folder: Path, source: Path, outcomes: list[dict[str, Any]], **settings: Any) -> JobFolder:
    """A job whose rows ended as `outcomes` say, committed in shards of four."""
    config = JobConfig(input=str(source), output=str(folder), rows_per_shard=4, **settings)
    job = JobFolder(str(folder))
    model = ChosenModel(location="zoo", name="zoo", skip=SkipConfig.parse("44/69"), identity={})
    plan = freeze(open_table(find_source(str(source)), config), config, model, job)
    endings = iter(outcomes)
    for shard in range(plan.shards):
        frozen = read_table(job, frozen_name(plan.input_id, shard)).to_pylist()
        rows = [row | next(endings) for row in frozen]
        job.create(shard_name(shard), parquet_bytes(pa.Table.from_pylist(rows, result_schema(plan.schema))))
    return job


def answered(text: str) -> dict[str, Any]:
    return {"answer": text, "finish_reason": "stop", **TOKENS}


def failed(code: str, message: str = "it is broken") -> dict[str, Any]:
    return {"error_code": code, "error_message": message}


def report_of(**changes: Any) -> JobReport:
    values: dict[str, Any] = {
        "rows": 12345,
        "ok": 12000,
        "errors_by_code": {"image_bomb": 45, "image_truncated": 300},
        "tokens": TokenCounts(text=1, visual=2560, retained=440, skipped=690, merged=1430, summary=20, output=777),
        "actual": Cost(prefill_flops=30_000_000, decode_flops=8_000_000, kv_bytes=1536),
        "all_tokens": Cost(prefill_flops=90_000_000, decode_flops=10_000_000, kv_bytes=6144),
        "stage_seconds": {"decode": 61.5, "read": 2.5},
        "finish_reasons": {"length": 2000, "stop": 10000},
        "row_seconds": RowSeconds(total=24000, queue=6000, first_token=9000, between_tokens=15000),
        "engine": EngineCounts(steps=4321, slots=400, slots_used=300, pages=1000, pages_held=125, preemptions=98765),
        "wall_seconds": 61.7,
        "rows_per_second": 200.08,
        "timeline": ((20.0, 4000), (60.0, 12345)),
        "shards": 49,
        "resumed_shards": 0,
        "other_files": 3,
        "model": "zoo",
        "skip": "44/69",
        "settings": {"input": "pictures", "prompt": "Describe the image.", "stop": []},
    }
    return JobReport(**values | changes)


HELD = DeviceSeconds(device="h200", capacity="spot", engine=90.0, prepare=0.0, compare=6.0, idle=14.0, extra=70.0)
MONEY = {"prices": "example of 2026-11-01", "usd": {"spent": 1234.567, "modelled": 0.0123, "measured": 2000.0}}


def written(job: JobFolder, report: JobReport) -> Page:
    write_report(job, report)
    assert job.path is not None
    return Page((job.path / "report.html").read_text("utf-8"))


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place in range(6):
        Image.new("RGB", (40 + place, 30), (40 * place, 90, 160)).save(folder / f"{place}.png")
    return folder


@pytest.fixture
def job(tmp_path, pictures) -> JobFolder:
    outcomes = [answered(f"answer {place}") for place in range(5)]
    return job_over(tmp_path / "job", pictures, [*outcomes, failed("image_truncated")])


def test_the_page_shows_the_numbers_of_report_json(job):
    text = written(job, report_of()).text
    numbers = json.loads((job.path / "report.json").read_text())
    assert numbers["rows"] == 12345
    for count in (numbers["ok"], numbers["rows"], *numbers["tokens"].values(), *numbers["errors_by_code"].values()):
        assert number(count) in text
    for code in numbers["errors_by_code"]:
        assert code in text
    assert "38 MFLOPs" in text
    assert "100 MFLOPs" in text
    assert "38.0% of all tokens" in text
    assert "1.5 KiB" in text
    assert "25.0% of all tokens" in text
    assert "Modelled, causal" in text
    for fact in ("in line, mean0.500 s", "to the first token, mean0.750 s", "places taken in them75.0%"):
        assert fact in "".join(line.strip() for line in text.splitlines())
    assert "cache pages held12.5%" in text
    assert "requests put back98,765" in text


def test_report_json_gives_the_report_back(job):
    report = report_of()
    written(job, report)
    again = json.loads((job.path / "report.json").read_text())
    assert again["timeline"] == [[20.0, 4000], [60.0, 12345]]
    assert again == json.loads(report.to_json())


def test_the_page_needs_no_network_and_runs_no_script(job):
    page = written(job, report_of())
    html = (job.path / "report.html").read_text()
    assert not re.search(r"https?://", html)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert "@import" not in html
    assert "url(" not in html
    assert len(page.pictures()) == 5
    assert all(source.startswith("data:image/") for source in page.pictures())


def test_hostile_text_stays_text(tmp_path):
    source = tmp_path / "in.jsonl"
    Image.new("RGB", (8, 8)).save(tmp_path / "a <b>&'.png")
    rows = [{"image": "a <b>&'.png", "ask": HOSTILE}, {"image": f"http://x.example/{HOSTILE}", "ask": HOSTILE}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcomes = [answered(HOSTILE), failed(HOSTILE, HOSTILE)]
    job = job_over(tmp_path / f"job {HOSTILE[:8]}", source, outcomes, prompt_column="ask")
    report = report_of(errors_by_code={HOSTILE: 1}, settings={"prompt": HOSTILE, HOSTILE: HOSTILE}, model=HOSTILE)
    page = written(job, report)
    assert "script" not in {tag for tag, _ in page.tags}
    assert [tag for tag, _ in page.tags].count("style") == 1
    [picture] = page.pictures()
    assert picture.startswith("data:image/")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE) >= 8


def test_a_text_that_no_encoding_holds_is_written_all_the_same(job):
    page = written(job, report_of(settings={"prompt": "half \ud83d a pair"}))
    assert "half \\ud83d a pair" in page.text


def test_pictures_in_parquet_and_rows_with_errors_are_shown(tmp_path, pictures):
    images = [path.read_bytes() for path in sorted(pictures.iterdir())]
    pq.write_table(pa.table({"image": images}), tmp_path / "in.parquet", row_group_size=2)
    outcomes = [answered("first"), failed("image_empty", "the file is empty"), *map(answered, "abcd")]
    page = written(job_over(tmp_path / "job", tmp_path / "in.parquet", outcomes), report_of())
    assert len(page.pictures()) == 5
    assert "the file is empty" in page.text
    assert "in.parquet, row 6" in page.text


def test_a_row_whose_picture_has_gone_is_shown_without_it(job, pictures):
    (pictures / "2.png").unlink()
    page = written(job, report_of())
    assert len(page.pictures()) == 4
    assert "answer 2" in page.text


def test_the_number_of_rows_on_the_page_is_bounded(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    total = 2 * (ANSWERED_SHOWN + ERRORS_SHOWN)
    for place in range(total):
        Image.new("RGB", (4, 4)).save(folder / f"{place:03}.png")
    half = total // 2
    outcomes = [answered(f"answer {place}") for place in range(half)] + [failed("image_bomb")] * (half - 1)
    page = written(job_over(tmp_path / "job", folder, [*outcomes, failed("image_truncated", "late")]), report_of())
    figures = [tag for tag, _ in page.tags if tag == "figure"]
    assert len(figures) == ANSWERED_SHOWN + ERRORS_SHOWN
    assert "late" in page.text, "every code has its example, though its row is not among the figures"


def test_the_same_job_gives_the_same_page(job):
    write_report(job, report_of())
    first = (job.path / "report.html").read_bytes()
    write_report(job, report_of())
    assert (job.path / "report.html").read_bytes() == first
    assert not list(job.path.glob("_staging/*"))


def test_a_job_that_did_nothing_and_had_nothing_has_a_page(job):
    nothing = report_of(
        rows=0, ok=0, errors_by_code={}, tokens=TokenCounts(), actual=Cost(), all_tokens=Cost(), timeline=(),
        rows_per_second=0.0, wall_seconds=0.0,
    )  # fmt: skip
    text = written(job, nothing).text
    assert "Nothing was left to do" in text
    assert "No row ended as an error" in text


def test_rates_spread_what_was_committed_and_lose_none_of_it():
    points = rates([(1.0, 10), (4.0, 40), (4.0, 50), (10.0, 90)], bins=7)
    assert sum(rate * 10 / 7 for _, rate in points) == pytest.approx(90)
    assert points[-1][0] == pytest.approx(10)
    assert all(rate >= 0 for _, rate in points)


def test_a_resumed_job_does_not_claim_the_rows_of_an_earlier_attempt():
    points = rates([(0.0, 5000), (10.0, 5100)], bins=5)
    assert [rate for _, rate in points] == pytest.approx([10.0] * 5)


@pytest.mark.parametrize("most", [0.003, 0.7, 1, 4.2, 99, 100, 12345])
def test_ticks_are_few_and_reach_the_data(most):
    levels = ticks(most)
    assert levels[0] == 0
    assert levels[-1] >= most
    assert levels[-2] < most
    assert 3 <= len(levels) <= 7


def test_the_parts_of_a_bar_fill_it_in_proportion():
    drawn = str(part_bar([Part("retained", 44), Part("skipped", 69), Part("merged", 143)], label="<fates>"))
    widths = [float(width) for width in re.findall(r' width="([\d.]+)"', drawn)]
    assert sum(widths) == pytest.approx(1000, abs=0.05)
    assert widths[0] / widths[2] == pytest.approx(44 / 143, rel=1e-3)
    assert "&lt;fates&gt;" in drawn


def test_what_was_measured_and_what_it_cost_are_told_with_the_name_of_the_prices(tmp_path):
    report = report_of(
        devices=(HELD,), comparison=Comparison(rows=64, same=60, seconds=2.0, seconds_all_tokens=5.0), money=MONEY
    )
    text = Page(report_page("job", report, [])).text
    assert "64 rows were also answered by an engine that did nothing else" in text
    assert "60 of the answers are the same text (93.8%); 4 differ" in text
    assert "40.0% of all tokens" in text
    assert "h200, spot" in text
    assert "by the price list example of 2026-11-01" in text
    assert "spent $1,234.57" in text
    assert "with all tokens, measured $2,000.00" in text
    assert "with all tokens, modelled $0.012" in text


def test_what_was_not_measured_is_not_told_as_a_number(tmp_path):
    text = Page(report_page("job", report_of(devices=(HELD,), money=None), [])).text
    assert "No rows were answered both ways" in text
    assert "$" not in text
    unmeasured = {**MONEY, "usd": {**MONEY["usd"], "measured": None}}
    assert "all tokens, measured" not in Page(report_page("job", report_of(money=unmeasured), [])).text


def test_a_report_of_an_earlier_version_is_read():
    old = {k: v for k, v in report_of().to_dict().items() if k not in {"devices", "comparison", "money"}}
    assert JobReport.from_dict(old) == report_of()
