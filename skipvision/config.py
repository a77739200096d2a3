"""Settings of a batch job, and the one place where a YAML file becomes settings.

Values are checked here once, strictly: an unknown key is refused with its path. Whether they fit the input and the
model is found out by the job, before anything starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from skipvision.errors import ConfigError
from skipvision.image_formats import OptionalFormat
from skipvision.tracing import check_address

T = TypeVar("T")

DEFAULT_PROMPT = "Describe the image."

MAX_DEPTH = 32
"""Values inside one another in a file of settings."""


def _off_is_a_word(value: Any) -> Any:
    return "off" if value is False else value


Skip = Annotated[str, BeforeValidator(_off_is_a_word)]  # YAML reads a bare `off` as the truth value
Store = Annotated[str, Field(pattern=r"^(s3|gs|az)://[A-Za-z0-9._-]+(/[^/]+)*/?$")]
JobName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
StopText = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobConfig:
    """One batch job: which images, which question, which model, and where the answers go."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    input: str
    """Image folder, Parquet file or folder, JSONL or CSV file, one image, or a glob of any one of these; on a disk or
    in a store (s3://, gs://, az://). Or the web address of one file."""

    output: str
    """The job's folder: a local path, or an object store address such as s3://bucket/folder."""

    prompt: str | None = None
    """One text for every row. None: `prompt_column`, or a request to describe the image."""

    prompt_column: str | None = None
    """Column of the input that holds each row's prompt."""

    image_column: str | None = None
    """Column that holds the image: bytes, a path or an address. None: the one with a usual name."""

    messages_column: str | None = None
    """Column of chat messages, in which each row brings its images and its question; settings of a row may stand beside
    it in `sampling_params`. None: `messages`, where the input has no image column. Lines of an OpenAI batch are known
    by their `custom_id` and `body`."""

    key_column: str | None = None
    """Column that names each row: no nulls, no duplicates. None: keys are made from place and content."""

    model: str | None = None
    """Checkpoint folder or hub id. None: the model that ships with the package."""

    skip: Skip = "auto"
    """`off`, `R/S` such as `100/156`, a reduction such as `uniform:64`, or `auto`: what the checkpoint carries."""

    max_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest answer, in tokens."""

    temperature: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """0 always takes the likeliest token."""

    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Sample from the likeliest tokens that together have this probability."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    """Sample from this many likeliest tokens. None: from all."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """With the row's key, decides what is sampled for a row."""

    stop: tuple[StopText, ...] = ()
    """An answer ends before any of these."""

    group_images: bool = True
    """Put rows that ask about the same image side by side in the job's files, so that it is fetched, prepared and read
    by the model once. Results are exported in the order of the input either way."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Engines side by side. None: one per GPU of the cluster, or one."""

    rows_per_shard: Annotated[int, Field(ge=1, le=4096)] = 256
    """Rows that are committed together; what a kill can cost."""

    max_running: Annotated[int, Field(ge=1)] = 32
    """Rows that one engine works on at a time."""

    device: str = "auto"
    """`auto`: a GPU where the cluster has any, else the CPU; or a torch device name."""

    dtype: str = "auto"
    """`auto`, `float32`, `bfloat16` or `float16`."""

    allow_networks: tuple[str, ...] = ()
    """Private networks, such as 10.1.0.0/16, that image addresses may point into. Public ones always may."""

    deny_networks: tuple[str, ...] = ()
    """Networks that image addresses may not point into although they are public, such as one's own; these stand above
    `allow_networks`."""

    allow_stores: tuple[Store, ...] = ()
    """Folders in object stores, such as s3://bucket/folder, that image addresses may point into. The input's own folder
    always may be."""

    image_formats: tuple[OptionalFormat, ...] = ()
    """Formats to read beside JPEG, PNG, WebP, GIF, BMP and TIFF: AVIF, and HEIC, which needs `skipvision[heif]`."""

    reduced_decoding: bool = False
    """Decode a JPEG at a half, a quarter or an eighth of its size where the model needs less: several times as fast for
    large photos, and near to the exact pixels."""

    decode_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Longest time that one image may take to decode; longer, and its row is an error."""

    decode_memory_mib: Annotated[int, Field(ge=64)] = 2048
    """Most memory that decoding one image may take; more, and its row is an error."""

    stall_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Longest step of an engine; longer, and its process is taken for hung and replaced."""

    standstill_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """A job of which no shard comes to its end for so long is stopped, to be started again. None: 120 seconds for each
    row of a shard, and at least 1800."""

    lease_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """A run of the same job that gives no sign of life for so long is taken for gone; until then, another one waits."""

    max_poison_rows: Annotated[int, Field(ge=0)] = 16
    """Rows that may be given up because each ended its engine again and again; with more, the job stops."""

    ray_address: str | None = None
    """A running Ray cluster. None: start Ray on this machine for the time of the job."""

    name: JobName | None = None
    """What dashboards call the job. None: the last part of the output's address."""

    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Serve the job's metrics here while it runs; 0 takes any free port. On a cluster (`ray_address`) it is the port of
    the cluster's metrics hub, which stays when the job is done."""

    metrics_host: str = "127.0.0.1"
    """Address of that port."""

    metrics_totals: str | None = None
    """File that the totals of metrics are kept in, from one job, or one start of the hub, to the next."""

    prices: str | None = None
    """A price list (YAML), by which the job's money is counted. None: seconds are counted, and money is not."""

    compared_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Share of the rows that are answered twice more, with the job's setting and with all visual tokens, by an engine
    that does nothing else, to measure what is saved and what changes. They are taken as whole windows of up to twice
    `max_running` rows; a job that is too small for one is not measured unless the share is raised."""

    traces: str | None = None
    """Address of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318, to which workers
    send traces of rows. None: none are made."""

    traces_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Of the rows."""

    def __post_init__(self) -> None:
        check_address(self.traces)
        if self.prompt is not None and self.prompt_column is not None:
            raise ConfigError("prompt and prompt_column contradict each other: set one of them")
        if self.messages_column is not None:
            for name in ("prompt", "prompt_column", "image_column"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"messages_column and {name} contradict each other: set one of them")
        if self.prompt is not None and not self.prompt.strip():
            raise ConfigError("prompt is blank; leave it out to have the image described")


class _ShallowLoader(yaml.SafeLoader):
    """Plain values, as `yaml.safe_load` reads them, but no deeper than settings go: time grows with the square."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"more than {MAX_DEPTH} values inside one another")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def load(path: Path, kind: type[T]) -> T:
    """Read a YAML file into the dataclass `kind`.

    Raises:
        ConfigError: naming the file and, for each problem, the dotted path of the setting.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        settings = yaml.load(text, _ShallowLoader)
    except Exception as error:  # 2026-13-45, `!!bool x`: PyYAML raises nearly any kind
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return check(settings or {}, kind, origin=str(path))


def check(settings: Any, kind: type[T], *, origin: str) -> T:
    """Turn plain values into the dataclass `kind`.

    Args:
        settings: a mapping of setting to value.
        origin: what the message calls the place the settings came from.

    Raises:
        ConfigError: for each problem, the dotted path of the setting.
    """
    try:
        return TypeAdapter(kind).validate_python(settings)
    except ValidationError as error:
        problems = "\n".join(f"  {_place(problem['loc'])}: {problem['msg']}" for problem in error.errors())
        # Its own text repeats the values, and one that stands in the wrong place may be a key.
        raise ConfigError(f"{origin} is not a valid {kind.__name__}:\n{problems}") from None


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "(the whole)"
