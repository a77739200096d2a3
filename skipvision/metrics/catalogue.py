"""The catalogue: every number this project publishes, declared once.

Recording needs the declaration (`registry.add(ROWS, 1, outcome="ok")`), so a number that is not in the catalogue
cannot be published and a mistyped label is refused. `docs/metrics.md` is printed from here; dashboards and alerts
are held against `CATALOGUE`. What was saved is not a number of its own: what was spent and what all tokens would
have cost are both published, and the difference is taken where they are read, since it may be negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from skipvision.version import __version__

Kind = Literal["counter", "gauge", "histogram"]

# Prometheus and its exporters own these label names.
RESERVED_LABELS = frozenset({"job", "instance", "le", "quantile"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One published number: its name, meaning and the label values it may carry."""

    name: str
    """Prefix `skipvision_`, base unit in the name, `_total` at the end of a counter."""

    kind: Kind
    unit: str
    help: str

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Label name -> every value it may take: closed sets, so that each series exists from the start."""

    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending; the open one above them is implied."""

    def __post_init__(self) -> None:
        assert self.name.startswith("skipvision_"), self.name
        assert self.name.endswith("_total") == (self.kind == "counter"), self.name
        assert bool(self.buckets) == (self.kind == "histogram"), self.name
        assert not RESERVED_LABELS & self.labels.keys(), self.name

    def series(self) -> Iterator[tuple[str, ...]]:
        """Every combination of label values, in the order of `labels`."""
        return product(*self.labels.values())


STAGES = ("read", "prepare", "encode", "merge", "prefill", "decode", "sample", "write")
"""Where a row's time goes: bytes in, pixels ready, vision tower, visual tokens reduced, prompt, answer, token choice,
result out."""

ERROR_CODES = (
    "fetch_failed",
    "fetch_host_failing",
    "fetch_http_error",
    "fetch_not_found",
    "fetch_redirects",
    "fetch_timeout",
    "fetch_too_large",
    "fetch_unreachable",
    "image_bad_aspect",
    "image_bomb",
    "image_corrupt",
    "image_crashed_decoder",
    "image_empty",
    "image_format_unsupported",
    "image_is_archive",
    "image_is_html",
    "image_is_svg",
    "image_missing",
    "image_mode_unsupported",
    "image_out_of_memory",
    "image_too_complex",
    "image_too_large",
    "image_too_slow",
    "image_truncated",
    "image_unidentified",
    "image_unreadable",
    "input_invalid",
    "logits_hook_failed",
    "messages_invalid",
    "parameter_unsupported",
    "poison",
    "prompt_has_image_token",
    "prompt_missing",
    "prompt_too_long",
    "sample_images",
    "sample_invalid",
    "sample_too_long",
    "sample_turns",
    "sampling_invalid",
    "schema_invalid",
    "skip_does_not_fit",
    "skip_invalid",
    "url_invalid",
    "url_refused",
    "url_scheme",
)
"""Every `error_code` a row, a request or a training sample may end with; a test holds it against the codes that the
sources raise."""

STATUSES = ("200", "400", "403", "404", "408", "413", "415", "429", "499", "500", "503")
"""HTTP statuses that a chat request may end with; a test holds them against those that the service answers."""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

ROWS = Metric(
    name="skipvision_rows_total",
    kind="counter",
    unit="rows",
    help="Rows that left the job: answered, ended as a coded error, or taken over from an earlier attempt.",
    labels={"outcome": ("ok", "error", "resumed")},
)
IMAGES = Metric(
    name="skipvision_images_total",
    kind="counter",
    unit="images",
    help="Images by whether the model saw them (ok) or their row ended as an error.",
    labels={"outcome": ("ok", "error")},
)
VISUAL_TOKENS = Metric(
    name="skipvision_visual_tokens_total",
    kind="counter",
    unit="tokens",
    help="Visual tokens by fate: retained, skipped (attend, no feed-forward), merged into a skipped one, or dropped "
    "before the language model. The four add up to what the vision tower gives at full size.",
    labels={"fate": ("retained", "skipped", "merged", "dropped")},
)
SUMMARY_TOKENS = Metric(
    name="skipvision_summary_tokens_total",
    kind="counter",
    unit="tokens",
    help="Summary tokens that were added to the prompts, which the vision tower did not give.",
)
TEXT_TOKENS = Metric(
    name="skipvision_text_tokens_total",
    kind="counter",
    unit="tokens",
    help="Text tokens by direction: read as prompt, or generated.",
    labels={"direction": ("prompt", "generated")},
)
FLOPS = Metric(
    name="skipvision_flops_total",
    kind="counter",
    unit="floating-point operations",
    help="Operations of the language model, modelled by formula from the plans of the rows (causal count).",
    labels={"phase": ("prefill", "decode")},
)
BASELINE_FLOPS = Metric(
    name="skipvision_baseline_flops_total",
    kind="counter",
    unit="floating-point operations",
    help="Operations the same rows would take with all visual tokens, modelled by the same formula.",
    labels={"phase": ("prefill", "decode")},
)
KV_BYTES = Metric(
    name="skipvision_kv_cache_bytes_total",
    kind="counter",
    unit="bytes",
    help="Bytes of keys and values that rows held in memory once their prompt was read, added up.",
)
BASELINE_KV_BYTES = Metric(
    name="skipvision_baseline_kv_cache_bytes_total",
    kind="counter",
    unit="bytes",
    help="Bytes of keys and values the same rows would have held with all visual tokens.",
)
STAGE_SECONDS = Metric(
    name="skipvision_stage_seconds_total",
    kind="counter",
    unit="seconds",
    help="Time spent in each stage, added up over all tasks and workers, measured.",
    labels={"stage": STAGES},
)
ANSWERS = Metric(
    name="skipvision_answers_total",
    kind="counter",
    unit="answers",
    help="Answers by how they ended: the model's own end or a stop string, the limit of tokens, given up by whoever "
    "asked, or a request that turned out to be wrong.",
    labels={"finish_reason": ("stop", "length", "cancelled", "error")},
)
QUEUE_SECONDS = Metric(
    name="skipvision_queue_seconds",
    kind="histogram",
    unit="seconds",
    help="From the moment the engine was given a row to the step that began to read it, measured.",
    buckets=_SECONDS,
)
WORK_SECONDS = Metric(
    name="skipvision_row_work_seconds",
    kind="histogram",
    unit="seconds",
    help="A row's share of the model's work, measured: of the vision side's passes by the images each row had encoded, "
    "of the decoder's by the tokens each row had read.",
    labels={"stage": ("encode", "prefill", "decode")},
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, *_SECONDS),
)
FIRST_TOKEN_SECONDS = Metric(
    name="skipvision_first_token_seconds",
    kind="histogram",
    unit="seconds",
    help="From the moment the engine was given a row to its first token, measured.",
    buckets=_SECONDS,
)
TOKEN_GAP_SECONDS = Metric(
    name="skipvision_token_gap_seconds",
    kind="histogram",
    unit="seconds",
    help="From each token of a row to the next, measured.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ENGINE_STEPS = Metric(
    name="skipvision_engine_steps_total",
    kind="counter",
    unit="steps",
    help="Forward passes of the decoder, each for all running requests.",
)
BATCH_SLOTS = Metric(
    name="skipvision_batch_slots_total",
    kind="counter",
    unit="slots",
    help="Places for requests in the engine's steps, all of them in each step, by whether a request was read in them.",
    labels={"state": ("used", "empty")},
)
CACHE_PAGES = Metric(
    name="skipvision_cache_pages_total",
    kind="counter",
    unit="pages",
    help="Pages for keys and values, all of them in each step, by whether a request held them.",
    labels={"state": ("held", "free")},
)
PREEMPTIONS = Metric(
    name="skipvision_preemptions_total",
    kind="counter",
    unit="requests",
    help="How often a request gave its pages to an older one, and read its prompt and its output again later.",
)
SHARED_PROMPT_TOKENS = Metric(
    name="skipvision_shared_prompt_tokens_total",
    kind="counter",
    unit="tokens",
    help="Prompt tokens that were not read, because a request beside them began with the same.",
)
VISION_CACHE_LOOKUPS = Metric(
    name="skipvision_vision_cache_lookups_total",
    kind="counter",
    unit="images",
    help="Images that were about to be read, by whether their visual tokens were at hand.",
    labels={"result": ("hit", "miss")},
)
ROW_SECONDS = Metric(
    name="skipvision_row_seconds",
    kind="histogram",
    unit="seconds",
    help="From the moment the engine was given a row to its last token, measured.",
    buckets=_SECONDS,
)
ERRORS = Metric(
    name="skipvision_errors_total",
    kind="counter",
    unit="rows",
    help="Rows that ended as an error, by the code in their `error_code` column.",
    labels={"code": ERROR_CODES},
)
REQUESTS = Metric(
    name="skipvision_requests_total",
    kind="counter",
    unit="requests",
    help="Chat requests with a known key that a service has ended, by the HTTP status; 499: given up by whoever asked. "
    "A stream that fails after its first piece has the status of its error.",
    labels={"status": STATUSES},
)
REQUEST_SECONDS = Metric(
    name="skipvision_request_seconds",
    kind="histogram",
    unit="seconds",
    help="From the head of a chat request to the last byte of its answer, where that is 200, measured in the door.",
    buckets=_SECONDS,
)
REQUESTS_RUNNING = Metric(
    name="skipvision_requests_running",
    kind="gauge",
    unit="requests",
    help="Chat requests that have not ended.",
)
JOB_ROWS = Metric(
    name="skipvision_job_rows",
    kind="gauge",
    unit="rows",
    help="Rows of the running job by state. The three add up to the rows of its input.",
    labels={"state": ("waiting", "ok", "error")},
)
JOB_PROGRESS = Metric(
    name="skipvision_job_progress_ratio",
    kind="gauge",
    unit="share, 0 to 1",
    help="Share of the running job's rows whose results are committed.",
)
JOB_LAST_SUCCESS = Metric(
    name="skipvision_job_last_success_timestamp_seconds",
    kind="gauge",
    unit="seconds since 1970",
    help="When a job last finished in this process; 0 until one has.",
)
BUILD = Metric(
    name="skipvision_build_info",
    kind="gauge",
    unit="always 1",
    help="The version that publishes these numbers.",
    labels={"version": (__version__,)},
)

CATALOGUE: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        ROWS,
        IMAGES,
        VISUAL_TOKENS,
        SUMMARY_TOKENS,
        TEXT_TOKENS,
        FLOPS,
        BASELINE_FLOPS,
        KV_BYTES,
        BASELINE_KV_BYTES,
        STAGE_SECONDS,
        ROW_SECONDS,
        ANSWERS,
        QUEUE_SECONDS,
        WORK_SECONDS,
        FIRST_TOKEN_SECONDS,
        TOKEN_GAP_SECONDS,
        ENGINE_STEPS,
        BATCH_SLOTS,
        CACHE_PAGES,
        PREEMPTIONS,
        SHARED_PROMPT_TOKENS,
        VISION_CACHE_LOOKUPS,
        ERRORS,
        REQUESTS,
        REQUEST_SECONDS,
        REQUESTS_RUNNING,
        JOB_ROWS,
        JOB_PROGRESS,
        JOB_LAST_SUCCESS,
        BUILD,
    )
}


def catalogue_page() -> str:
    """The catalogue as a Markdown page: what `docs/metrics.md` holds."""
    rows = "\n".join(f"| `{m.name}` | {m.kind} | {m.unit} | {_labels_text(m)} | {m.help} |" for m in CATALOGUE.values())
    return (
        "# Metrics\n\n"
        "Every number that skipvision publishes, printed from the catalogue by `skipvision metrics`. All series exist\n"
        "from the start, at 0. A running job serves them where `skipvision run --metrics-port` says, a service where\n"
        "its setting `metrics_port` does, on a port of its own; its rows are requests.\n\n"
        f"| name | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n{rows}\n"
    )


def _labels_text(metric: Metric) -> str:
    return "; ".join(f"{name} = {', '.join(values)}" for name, values in metric.labels.items()) or "none"
