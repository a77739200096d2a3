"""What a job is, decided once: its frozen input, cut into numbered shards, and everything that decides an answer.

`plan.json` is created when all of the frozen input is in place, by whoever is first. A job that is started again
reads it, and refuses to go on with other settings, another model or a changed input.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.folder import JobFolder
from pipelines.layout import PLAN
from skipvision.config import DEFAULT_PROMPT, JobConfig
from skipvision.errors import ConfigError
from skipvision.fetch import is_address
from skipvision.version import __version__

if TYPE_CHECKING:
    from pipelines.model import ChosenModel

FORMAT, VERSION = "skipvision job", 2

ANSWER_SETTINGS = (
    "input", "prompt", "prompt_column", "image_column", "messages_column", "key_column", "group_images", "model",
    "skip", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "rows_per_shard", "dtype", "allow_networks",
    "deny_networks", "allow_stores", "image_formats", "reduced_decoding",
)  # fmt: skip
"""Settings that decide what stands in `data/`. The others may change when a job goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPlan:
    """The content of `plan.json`."""

    input_id: str
    """The folder under `input/` with this plan's frozen input."""
    rows: int
    rows_per_shard: int
    settings: Mapping[str, Any]
    """`ANSWER_SETTINGS` as they were asked for."""
    skip: str
    """The skip setting that `auto` and the rest came to."""
    model: Mapping[str, Any]
    prompt_sha256: str
    """Of the one prompt, or of the prompt column's name."""
    embedded_column: str | None
    """Parquet column with the images' bytes; None if rows name paths or addresses."""
    schema: pa.Schema
    """The user's columns as they stand in the results."""
    is_regrouped: bool
    """Whether the frozen rows, and those of the results' files, stand in another order than the input's."""
    source_files: int
    source_bytes: int
    other_files: int
    other_names: tuple[str, ...]
    """The first hundred of them."""
    made_by: str = __version__

    @property
    def shards(self) -> int:
        return math.ceil(self.rows / self.rows_per_shard)

    def rows_in(self, shard: int) -> int:
        return min(self.rows_per_shard, self.rows - shard * self.rows_per_shard)

    def to_json(self) -> bytes:
        values = {name: getattr(self, name) for name in self.__slots__ if name != "schema"}
        schema = base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        columns = {field.name: str(field.type) for field in self.schema}
        head = {"format": FORMAT, "version": VERSION, "shards": self.shards, "columns": columns}
        return (json.dumps(head | values | {"schema": schema}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> JobPlan:
        values = json.loads(content)
        for name in ("format", "version", "shards", "columns"):
            del values[name]
        values["schema"] = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(values["schema"])))
        values["other_names"] = tuple(values["other_names"])
        return cls(**values)


def answer_settings(config: JobConfig) -> dict[str, Any]:
    """The settings that decide answers, as JSON gives them back; paths in full, however they were written."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    values["input"] = config.input if is_address(config.input) else os.path.abspath(config.input)
    if config.model is not None and os.path.isdir(config.model):
        values["model"] = os.path.abspath(config.model)
    return {name: values[name] for name in ANSWER_SETTINGS}


def prompt_sha256(config: JobConfig) -> str:
    text = config.prompt_column or config.prompt or DEFAULT_PROMPT
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_plan(folder: JobFolder) -> JobPlan:
    """The plan of an existing job.

    Raises:
        ConfigError: there is none, it is not this program's, or of a version that this one does not read.
    """
    content = folder.read(PLAN)
    try:
        head = json.loads(content or b"")
    except ValueError:
        head = None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ConfigError(f"output {folder.address} exists and is no job: its {PLAN} is something else")
    if head["version"] != VERSION:
        raise ConfigError(f"output {folder.address} is a job of format {head['version']}; this version reads {VERSION}")
    return JobPlan.from_json(content or b"")


def check_same_job(plan: JobPlan, config: JobConfig, model: ChosenModel) -> None:
    """Refuse to go on with a job under other settings than it was planned with.

    Raises:
        ConfigError: naming each setting that differs, with both values.
    """
    asked = answer_settings(config)
    differ = [
        f"{name} is {asked[name]!r} and was {plan.settings[name]!r}"
        for name in ANSWER_SETTINGS
        if asked[name] != plan.settings[name]
    ]
    if not differ and prompt_sha256(config) != plan.prompt_sha256:
        differ = [f"this version, {__version__}, asks another question than {plan.made_by} by default; set prompt"]
    if not differ and dict(model.identity) != dict(plan.model):
        differ = [f"the files of model {model.name} have changed"]
    if differ:
        raise ConfigError(
            f"output {config.output} is a job with other settings: {'; '.join(differ)}; choose another output, or the "
            "settings it was started with"
        )
