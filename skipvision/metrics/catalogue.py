"""The catalogue: every number this project publishes, declared once.

Recording needs the declaration (`registry.add(ROWS, 1, outcome="ok", …)`), so a number that is not in the catalogue
cannot be published and a mistyped label is refused. `docs/metrics.md` is printed from here; dashboards, rules and
alerts are held against `CATALOGUE`. What was saved is not a number of its own: what was spent and what all tokens would
have cost are both published, and the difference is taken where they are read, since it may be negative.
"""

from __future__ import annotations

from collections.abc import Mapping

from skipvision.metrics.labels import ERROR_CODES, ERROR_STAGES, SERVICE_CODES, STAGES, STATUSES, error_stage
from skipvision.metrics.metric import Metric
from skipvision.version import __version__

WORK = ("workload", "model", "skip")
"""What work was done for: `workload` is batch or online; `skip` is the setting, `request` where a request brought its
own."""
DEVICE = (*WORK, "device", "capacity")
"""And on what: `device` is cpu, a kind of GPU that the price list knows, or gpu; `capacity` is on_demand or spot."""
JOB = ("job_name",)

BASES = ("measured", "modelled")
"""Whether a number was measured or comes from a formula. The two are never one series."""
_MODELLED = {"basis": ("modelled",)}
_MEASURED = {"basis": ("measured",)}

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# --- rows, requests, errors -------------------------------------------------------------------------------------------

ROWS = Metric(
    name="skipvision_rows_total",
    kind="counter",
    unit="rows",
    help="Rows that left a job, each counted once, by whichever attempt: answered, or ended as a coded error.",
    named=WORK,
    labels={"outcome": ("ok", "error")},
)
IMAGES = Metric(
    name="skipvision_images_total",
    kind="counter",
    unit="images",
    help="Images by whether the model saw them (ok) or their row ended as an error.",
    named=WORK,
    labels={"outcome": ("ok", "error")},
)
ANSWERS = Metric(
    name="skipvision_answers_total",
    kind="counter",
    unit="answers",
    help="Answers by how they ended: the model's own end or a stop string, the limit of tokens, given up by whoever "
    "asked, or a request that turned out to be wrong.",
    named=WORK,
    labels={"finish_reason": ("stop", "length", "cancelled", "error")},
)
ERRORS = Metric(
    name="skipvision_errors_total",
    kind="counter",
    unit="rows or requests",
    help="Rows and requests that ended as an error, by where they failed and the code that their sender was told.",
    named=("workload", "model"),
    labels={"stage": ERROR_STAGES, "code": (*ERROR_CODES, *SERVICE_CODES)},
    pairs=tuple((error_stage(code), code) for code in (*ERROR_CODES, *SERVICE_CODES)),
)
REQUESTS = Metric(
    name="skipvision_requests_total",
    kind="counter",
    unit="requests",
    help="Chat requests with a known key that a service has ended, by the HTTP status; 499: given up by whoever asked. "
    "A stream that fails after its first piece has the status of its error. `model` is none where it named no model "
    "that is offered.",
    named=("model",),
    labels={"status": STATUSES},
)
REQUEST_SECONDS = Metric(
    name="skipvision_request_seconds",
    kind="histogram",
    unit="seconds",
    help="From the head of a chat request to the last byte of its answer, where that is 200, measured in the door.",
    named=("model",),
    buckets=_SECONDS,
)
REQUESTS_RUNNING = Metric(
    name="skipvision_requests_running",
    kind="gauge",
    unit="requests",
    help="Chat requests that have not ended.",
)
TENANT_REQUESTS = Metric(
    name="skipvision_tenant_requests_total",
    kind="counter",
    unit="requests",
    help="Chat requests of each tenant, by how they ended: answered, refused as wrong, told to come again (429), given "
    "up by whoever asked, or failed by the service.",
    named=("tenant",),
    labels={"outcome": ("ok", "refused", "limited", "left", "failed")},
)
TENANT_TOKENS = Metric(
    name="skipvision_tenant_tokens_total",
    kind="counter",
    unit="tokens",
    help="Tokens of each tenant's answered requests: read as prompt, visual tokens included, or generated.",
    named=("tenant",),
    labels={"direction": ("prompt", "generated")},
)
TENANT_WORK_SECONDS = Metric(
    name="skipvision_tenant_work_seconds_total",
    kind="counter",
    unit="seconds",
    help="The share of the model's work that each tenant's answered requests had, measured: what costs are split by.",
    named=("tenant",),
)

# --- tokens, operations, bytes ----------------------------------------------------------------------------------------

VISUAL_TOKENS = Metric(
    name="skipvision_visual_tokens_total",
    kind="counter",
    unit="tokens",
    help="Visual tokens by fate: retained, skipped (attend, no feed-forward), merged into a skipped one, or dropped "
    "before the language model. The four add up to what the vision tower gives at full size.",
    named=WORK,
    labels={"fate": ("retained", "skipped", "merged", "dropped")},
)
RETENTION_TARGET = Metric(
    name="skipvision_retention_target_ratio",
    kind="gauge",
    unit="share, 0 to 1",
    help="Share of an image's visual tokens that the setting retains; what is retained should stay near it.",
    named=WORK,
    merge="max",
)
SUMMARY_TOKENS = Metric(
    name="skipvision_summary_tokens_total",
    kind="counter",
    unit="tokens",
    help="Summary tokens that were added to the prompts, which the vision tower did not give.",
    named=WORK,
)
TEXT_TOKENS = Metric(
    name="skipvision_text_tokens_total",
    kind="counter",
    unit="tokens",
    help="Text tokens by direction: read as prompt, or generated.",
    named=WORK,
    labels={"direction": ("prompt", "generated")},
)
FLOPS = Metric(
    name="skipvision_flops_total",
    kind="counter",
    unit="floating-point operations",
    help="Operations of the language model, by formula from the plans of the rows (causal count).",
    named=WORK,
    labels={"phase": ("prefill", "decode"), **_MODELLED},
)
BASELINE_FLOPS = Metric(
    name="skipvision_baseline_flops_total",
    kind="counter",
    unit="floating-point operations",
    help="Operations the same rows would take with all visual tokens, by the same formula.",
    named=WORK,
    labels={"phase": ("prefill", "decode"), **_MODELLED},
)
KV_BYTES = Metric(
    name="skipvision_kv_cache_bytes_total",
    kind="counter",
    unit="bytes",
    help="Bytes of keys and values that rows held in memory once their prompt was read, added up, by formula.",
    named=WORK,
    labels=_MODELLED,
)
BASELINE_KV_BYTES = Metric(
    name="skipvision_baseline_kv_cache_bytes_total",
    kind="counter",
    unit="bytes",
    help="Bytes of keys and values the same rows would have held with all visual tokens, by the same formula.",
    named=WORK,
    labels=_MODELLED,
)

# --- seconds ----------------------------------------------------------------------------------------------------------

STAGE_SECONDS = Metric(
    name="skipvision_stage_seconds_total",
    kind="counter",
    unit="seconds",
    help="Time spent in each stage, added up over all tasks, workers, doors and replicas, measured: read is fetching "
    "bytes, prepare is decoding them to pixels.",
    named=WORK,
    labels={"stage": STAGES},
)
QUEUE_SECONDS = Metric(
    name="skipvision_queue_seconds",
    kind="histogram",
    unit="seconds",
    help="From the moment the engine was given a row to the step that began to read it, measured.",
    named=WORK,
    buckets=_SECONDS,
)
WORK_SECONDS = Metric(
    name="skipvision_row_work_seconds",
    kind="histogram",
    unit="seconds",
    help="A row's share of the model's work, measured: of the vision side's passes by the images each row had encoded, "
    "of the decoder's by the tokens each row had read.",
    named=WORK,
    labels={"stage": ("encode", "prefill", "decode")},
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, *_SECONDS),
)
FIRST_TOKEN_SECONDS = Metric(
    name="skipvision_first_token_seconds",
    kind="histogram",
    unit="seconds",
    help="From the moment the engine was given a row to its first token, measured.",
    named=WORK,
    buckets=_SECONDS,
)
TOKEN_GAP_SECONDS = Metric(
    name="skipvision_token_gap_seconds",
    kind="histogram",
    unit="seconds",
    help="From each token of a row to the next, measured.",
    named=WORK,
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ROW_SECONDS = Metric(
    name="skipvision_row_seconds",
    kind="histogram",
    unit="seconds",
    help="From the moment the engine was given a row to its last token, measured.",
    named=WORK,
    buckets=_SECONDS,
)

# --- the engines ------------------------------------------------------------------------------------------------------

ENGINE_STEPS = Metric(
    name="skipvision_engine_steps_total",
    kind="counter",
    unit="steps",
    help="Forward passes of the decoder, each for all running requests.",
    named=WORK,
)
BATCH_SLOTS = Metric(
    name="skipvision_batch_slots_total",
    kind="counter",
    unit="slots",
    help="Places for requests in the engine's steps, all of them in each step, by whether a request was read in them.",
    named=WORK,
    labels={"state": ("used", "empty")},
)
CACHE_PAGES = Metric(
    name="skipvision_cache_pages_total",
    kind="counter",
    unit="pages",
    help="Pages for keys and values, all of them in each step, by whether a request held them.",
    named=WORK,
    labels={"state": ("held", "free")},
)
PREEMPTIONS = Metric(
    name="skipvision_preemptions_total",
    kind="counter",
    unit="requests",
    help="How often a request gave its pages to an older one, and read its prompt and its output again later.",
    named=WORK,
)
SHARED_PROMPT_TOKENS = Metric(
    name="skipvision_shared_prompt_tokens_total",
    kind="counter",
    unit="tokens",
    help="Prompt tokens that were not read, because a request beside them began with the same.",
    named=WORK,
)
VISION_CACHE_LOOKUPS = Metric(
    name="skipvision_vision_cache_lookups_total",
    kind="counter",
    unit="images",
    help="Images that were about to be read, by whether their visual tokens were at hand.",
    named=WORK,
    labels={"result": ("hit", "miss")},
)
QUEUE_DEPTH = Metric(
    name="skipvision_queue_depth",
    kind="gauge",
    unit="rows or requests",
    help="What waits: rows of a job that are not committed (job), requests in engines' lines (engine).",
    named=WORK,
    labels={"stage": ("job", "engine")},
)
QUEUE_OLDEST = Metric(
    name="skipvision_queue_oldest_seconds",
    kind="gauge",
    unit="seconds",
    help="How long the one that has waited longest in an engine's line has waited; 0: nobody waits.",
    named=WORK,
    merge="max",
)
ENGINES = Metric(
    name="skipvision_engines",
    kind="gauge",
    unit="engines",
    help="Engines of a service that report.",
    named=WORK,
)
REPLICAS = Metric(
    name="skipvision_replicas",
    kind="gauge",
    unit="replicas",
    help="Replicas of each model: how many there should be, and how many run, start, or neither.",
    named=("model",),
    labels={"state": ("wanted", "running", "starting", "other")},
)

# --- devices and money ------------------------------------------------------------------------------------------------

DEVICE_SECONDS = Metric(
    name="skipvision_device_seconds_total",
    kind="counter",
    unit="GPU-seconds or core-seconds",
    help="Seconds that GPUs and CPU cores were held, by whether the model or the preparation of images worked on them. "
    "Work of a job's engine that was killed before it committed is idle, and counted when the job is finished.",
    named=DEVICE,
    labels={"state": ("busy", "idle"), **_MEASURED},
)
BASELINE_DEVICE_SECONDS = Metric(
    name="skipvision_baseline_device_seconds_total",
    kind="counter",
    unit="GPU-seconds or core-seconds",
    help="Seconds that would have been held with all visual tokens. Measured: the engine's by how much longer rows "
    "took that were answered both ways; a series that stays at 0 was not measured. Modelled: prefill and decode "
    "by FLOPs.",
    named=DEVICE,
    labels={"basis": BASES},
)
COST = Metric(
    name="skipvision_cost_usd_total",
    kind="counter",
    unit="US dollars",
    help="Device seconds at the price list's prices; 0 where a job or service names no price list.",
    named=DEVICE,
    labels=_MEASURED,
)
BASELINE_COST = Metric(
    name="skipvision_baseline_cost_usd_total",
    kind="counter",
    unit="US dollars",
    help="What the baseline's device seconds would have cost at the same prices.",
    named=DEVICE,
    labels={"basis": BASES},
)
PRICE = Metric(
    name="skipvision_price_usd_per_hour",
    kind="gauge",
    unit="US dollars an hour",
    help="What one GPU or one CPU core costs, by the price list.",
    named=("device", "capacity"),
    merge="latest",
)
PRICE_LIST = Metric(
    name="skipvision_price_list_timestamp_seconds",
    kind="gauge",
    unit="seconds since 1970",
    help="The date of the price list that costs are counted with.",
    named=("price_list",),
    merge="latest",
)
BUDGET = Metric(
    name="skipvision_budget_usd_per_day",
    kind="gauge",
    unit="US dollars a day",
    help="What may be spent in a day, by the price list; there is no series where it names no budget.",
    merge="latest",
)
COMPARED_ROWS = Metric(
    name="skipvision_compared_rows_total",
    kind="counter",
    unit="rows",
    help="Rows of jobs that were also answered with all visual tokens, by whether the answers were the same.",
    named=WORK,
    labels={"answer": ("same", "different")},
)
COMPARED_SECONDS = Metric(
    name="skipvision_compared_seconds_total",
    kind="counter",
    unit="seconds",
    help="Seconds that the compared rows took an engine that did nothing else, with the job's setting and with all "
    "visual tokens, measured.",
    named=WORK,
    labels={"setting": ("job", "all_tokens")},
)

# --- jobs -------------------------------------------------------------------------------------------------------------

JOB_ROWS = Metric(
    name="skipvision_job_rows",
    kind="gauge",
    unit="rows",
    help="Rows of a job by state. The three add up to the rows of its input.",
    named=JOB,
    labels={"state": ("waiting", "ok", "error")},
    merge="latest",
)
JOB_RUNNING = Metric(
    name="skipvision_job_running",
    kind="gauge",
    unit="1 or 0",
    help="1 from the start of an attempt until it ends, well or not; an attempt that was killed leaves it at 1.",
    named=JOB,
    merge="latest",
)
JOB_PROGRESS = Metric(
    name="skipvision_job_progress_ratio",
    kind="gauge",
    unit="share, 0 to 1",
    help="Share of a job's rows whose results are committed.",
    named=JOB,
    merge="latest",
)
JOB_REMAINING = Metric(
    name="skipvision_job_remaining_seconds",
    kind="gauge",
    unit="seconds",
    help="How long the rest of a job will take at the speed of the attempt so far; NaN until it has committed rows.",
    named=JOB,
    merge="latest",
)
JOB_LAST_COMMIT = Metric(
    name="skipvision_job_last_commit_timestamp_seconds",
    kind="gauge",
    unit="seconds since 1970",
    help="When a job last committed rows; until it has, when its attempt began.",
    named=JOB,
    merge="latest",
)
JOB_LAST_SUCCESS = Metric(
    name="skipvision_job_last_success_timestamp_seconds",
    kind="gauge",
    unit="seconds since 1970",
    help="When a job was finished.",
    named=JOB,
    merge="latest",
)

# --- the numbers themselves -------------------------------------------------------------------------------------------

HUB_REPORTS = Metric(
    name="skipvision_hub_reports_total",
    kind="counter",
    unit="reports",
    help="Reports that came in: counted, or known already and counted no second time.",
    labels={"result": ("counted", "repeated")},
)
HUB_LAST_REPORT = Metric(
    name="skipvision_hub_last_report_timestamp_seconds",
    kind="gauge",
    unit="seconds since 1970",
    help="When the last report came in.",
    merge="max",
)
HUB_SOURCES = Metric(
    name="skipvision_hub_sources",
    kind="gauge",
    unit="processes",
    help="Processes that report.",
)
BUILD = Metric(
    name="skipvision_build_info",
    kind="gauge",
    unit="always 1",
    help="The version that publishes these numbers.",
    labels={"version": (__version__,)},
    merge="max",
)

CATALOGUE: Mapping[str, Metric] = {each.name: each for each in tuple(globals().values()) if isinstance(each, Metric)}


def catalogue_page() -> str:
    """The catalogue as a Markdown page: what `docs/metrics.md` holds."""
    rows = "\n".join(f"| `{m.name}` | {m.kind} | {m.unit} | {_labels_text(m)} | {m.help} |" for m in CATALOGUE.values())
    return (
        "# Metrics\n\n"
        "Every number that skipvision publishes, printed from the catalogue by `skipvision metrics`.\n"
        "[monitoring.md](monitoring.md) says where they are read, and what watches them. Counters and histograms\n"
        "exist from the start of the work that they are about, at 0; gauges from when there is something to say.\n"
        "Labels without values take theirs from settings.\n\n"
        f"| name | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n{rows}\n"
    )


def _labels_text(metric: Metric) -> str:
    closed = (f"{name} = {', '.join(values)}" for name, values in metric.labels.items())
    return "; ".join([*metric.named, *closed]) or "none"
