"""Ray Data LLM's way to ask about the rows of a dataset: `build_processor`, with the same arguments and the same rows.

A processor is a step of somebody else's pipeline: it streams, and remembers nothing. What must not be lost, nor done
twice, is a job's (`pipelines.job`).
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from PIL import Image
from ray.data import ActorPoolStrategy
from ray.util.annotations import RayDeprecationWarning

from pipelines.asked import as_table, read_row
from pipelines.encoded import Source
from pipelines.engine_thread import EngineThread
from pipelines.location import Location
from pipelines.prepare import Preparing, with_prepared
from pipelines.requests import requests_of
from pipelines.result_rows import ROW_KEY
from skipvision.config import check
from skipvision.engine import Answer, Engine, Sampling
from skipvision.errors import ConfigError, InputError
from skipvision.families.checkpoint import choose_skip, read_config, resolve_model
from skipvision.fetch import FetchPolicy
from skipvision.sandbox import DEFAULT_LIMITS

log = logging.getLogger(__name__)

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""A row becomes another one."""

DATA, OUTPUTS, INFERENCE_ERROR = "__data", "__outputs", "__inference_error__"
MOST_RESTARTS = 3
"""Of an engine whose process ended, in all."""
_READ = frozenset({"model_source", "batch_size", "concurrency", "max_concurrent_batches", "should_continue_on_error"})
_ENGINE_READ = {"max_num_seqs": "max_running", "dtype": "dtype"}
"""Of another engine's settings, those that this one has too."""
_ENGINE_ALONE = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "trust_remote_code": False}
"""Settings that can only be so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessorConfig:
    """Settings of a processor, named as Ray Data LLM names them where it has them."""

    model_source: str = "zoo"
    """Checkpoint folder or hub id; `zoo` is the model that ships with the package."""
    batch_size: int = 32
    """Rows that are prepared and asked about together."""
    concurrency: int | tuple[int, int] = 1
    """Engines side by side; two numbers: at least and at most."""
    max_concurrent_batches: int = 8
    """Batches that one engine works on at a time."""
    should_continue_on_error: bool = False
    """A row that is wrong goes on with the reason in `__inference_error__`, past `postprocess`; or ends everything."""
    skip: str = "auto"
    """As a job's `skip`."""
    max_running: int = 32
    """Rows that one engine reads or answers in a step."""
    dtype: str = "auto"
    allow_networks: tuple[str, ...] = ()
    """As a job's."""

    def __post_init__(self) -> None:
        least, most = self.concurrency if isinstance(self.concurrency, tuple) else (1, self.concurrency)
        if not 1 <= least <= most:
            raise ConfigError(f"concurrency must be at least 1, or (at least, at most); got {self.concurrency}")
        for name in ("batch_size", "max_concurrent_batches", "max_running"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")


def build_processor(
    config: Any = None,
    preprocess: Change | None = None,
    postprocess: Change | None = None,
    preprocess_map_kwargs: Mapping[str, Any] | None = None,
    postprocess_map_kwargs: Mapping[str, Any] | None = None,
) -> Processor:
    """Make a function from a dataset of rows to a dataset of answered rows.

    Args:
        config: a `ProcessorConfig`, or one of Ray Data LLM's for an engine in this cluster, of which the settings that
            this engine has too are taken, and the others named in a warning. None: the defaults.
        preprocess: makes of a row one with `messages`, and perhaps `sampling_params`. Images in messages are addresses,
            `data:` addresses, paths, bytes, or pictures of Pillow's. None: rows are so already.
        postprocess: makes of a row with `generated_text`, `finish_reason`, `num_input_tokens`, `num_generated_tokens`
            and the tokens by fate, beside everything it had, what stands in the end. None: it stays as it is.
        preprocess_map_kwargs, postprocess_map_kwargs: for `Dataset.map`.

    Raises:
        ConfigError: the model or a setting is wrong.
    """
    settings = _settings(config if config is not None else ProcessorConfig())
    choose_skip(settings.skip, read_config(settings.model_source))  # refused here rather than in an actor
    return Processor(
        settings, preprocess, postprocess, dict(preprocess_map_kwargs or {}), dict(postprocess_map_kwargs or {})
    )


@dataclass(frozen=True, slots=True)
class Processor:
    """A step of a pipeline. Calling it plans the step; nothing runs before the dataset is consumed."""

    config: ProcessorConfig
    preprocess: Change | None = None
    postprocess: Change | None = None
    preprocess_map_kwargs: dict[str, Any] = field(default_factory=dict)
    postprocess_map_kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(self, dataset: ray.data.Dataset) -> ray.data.Dataset:
        config = self.config
        least, most = config.concurrency if isinstance(config.concurrency, tuple) else (1, config.concurrency)
        on_gpu = ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]
        takes: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if on_gpu else {"num_cpus": 1}
        with warnings.catch_warnings():
            # Until 2.64 there is no other way to bound the retries.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            answered: ray.data.Dataset = (
                dataset.map(_Held(self.preprocess), **self.preprocess_map_kwargs)
                .map_batches(
                    partial(_prepare, config=config), batch_size=config.batch_size, batch_format="pyarrow", num_cpus=1
                )
                .map_batches(
                    _Answerer,
                    fn_constructor_kwargs={"config": config},
                    batch_size=config.batch_size,
                    batch_format="pyarrow",
                    compute=ActorPoolStrategy(
                        min_size=least,
                        max_size=most,
                        max_concurrent_calls_per_actor=config.max_concurrent_batches,
                        enable_true_multi_threading=True,
                    ),
                    max_restarts=MOST_RESTARTS,
                    max_task_retries=MOST_RESTARTS,
                    **takes,
                )
                .map(_Given(self.postprocess, config.should_continue_on_error), **self.postprocess_map_kwargs)
            )
        return answered


@dataclass(frozen=True, slots=True)
class _Held:
    """A row as it travels: all it holds as one value, since rows hold what no column type does."""

    change: Change | None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        # As Ray Data LLM does: what preprocess leaves out is there afterwards all the same.
        changed = row | self.change(row) if self.change else row
        return {DATA: pickle.dumps(changed)}


@dataclass(frozen=True, slots=True)
class _Given:
    """The row as it leaves."""

    change: Change | None
    goes_on: bool

    def __call__(self, held: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = pickle.loads(held[DATA]) | pickle.loads(held[OUTPUTS])
        if not self.goes_on:
            del row[INFERENCE_ERROR]
        elif row[INFERENCE_ERROR]:
            return row
        changed = self.change(row) if self.change else row
        return changed | {INFERENCE_ERROR: ""} if self.goes_on else changed


def _prepare(held: pa.Table, config: ProcessorConfig) -> pa.Table:
    """The task: rows with the pixels of their images, or with why they cannot be asked."""
    rows = [pickle.loads(each) for each in held.column(DATA).to_pylist()]
    asked = [read_row(_encoded(row.get("messages")), row.get("sampling_params"), Location) for row in rows]
    preparing = Preparing(
        source=Source((), None, FetchPolicy(allow_networks=config.allow_networks)),
        model=resolve_model(config.model_source),
        limits=DEFAULT_LIMITS,
    )
    table = with_prepared(as_table(asked), [None] * len(asked), preparing, each_alone=True)
    return table.append_column(DATA, held.column(DATA))


class _Answerer:
    """The actor: an engine, asked by several threads."""

    def __init__(self, config: ProcessorConfig) -> None:
        self._goes_on = config.should_continue_on_error
        skip = choose_skip(config.skip, read_config(config.model_source))
        engine = Engine.load(config.model_source, skip=skip, dtype=config.dtype, max_running=config.max_running)
        self._engine = EngineThread(engine)

    def __call__(self, prepared: pa.Table) -> pa.Table:
        # Ray Data cuts and joins batches, and each row has its own pictures.
        keyed = prepared.append_column(ROW_KEY, pa.array(map(str, range(len(prepared)))))
        asked = [requests_of(keyed.slice(row, 1), Sampling())[0] for row in range(len(keyed))]
        answers = iter(self._engine.answer([each for each in asked if not isinstance(each, InputError)]))
        outcomes = [each if isinstance(each, InputError) else next(answers) for each in asked]
        wrong = next((each for each in outcomes if isinstance(each, InputError)), None)
        if wrong is not None and not self._goes_on:
            raise wrong
        outputs = [pickle.dumps(_outputs(outcome)) for outcome in outcomes]
        return pa.table({DATA: prepared.column(DATA), OUTPUTS: pa.array(outputs, pa.binary())})


def _outputs(outcome: Answer | InputError) -> dict[str, Any]:
    """What a row has gained; of the same names for every row."""
    if isinstance(outcome, InputError):
        reason, plan = f"{outcome.code}: {outcome}", None
        answer = None
    else:
        reason, plan, answer = "", outcome.plan, outcome
    fates = ("visual", "retained", "skipped", "merged", "dropped")
    return {
        "generated_text": answer.text if answer else "",
        "finish_reason": answer.finish_reason if answer else "",
        "num_input_tokens": plan.prompt_tokens if plan else 0,
        "num_generated_tokens": len(answer.output_ids) if answer else 0,
        **{f"num_{fate}_tokens": getattr(plan, f"{fate}_tokens") if plan else 0 for fate in fates},
        INFERENCE_ERROR: reason,
    }


def _encoded(messages: Any) -> Any:
    """The same messages, pictures of Pillow's as PNG files, which are decoded under limits like all others."""
    if isinstance(messages, Image.Image):
        file = BytesIO()
        messages.save(file, "PNG")
        return file.getvalue()
    if isinstance(messages, Mapping):
        return {key: _encoded(value) for key, value in messages.items()}
    if isinstance(messages, list | tuple | np.ndarray):
        return [_encoded(each) for each in messages]
    return messages


def _settings(config: Any) -> ProcessorConfig:
    """A processor's settings out of its own kind of them, or of Ray Data LLM's."""
    if isinstance(config, ProcessorConfig):
        return config
    if not hasattr(config, "model_source"):
        raise ConfigError(
            f"a {type(config).__name__} names no model_source: this engine runs in the cluster's own actors; give a "
            "ProcessorConfig, or vLLM's of Ray Data LLM"
        )
    engine = dict(getattr(config, "engine_kwargs", {}))
    for name, only in _ENGINE_ALONE.items():
        if engine.pop(name, only) != only:
            raise ConfigError(f"engine_kwargs may hold {name} as {only} alone; one engine takes one device here")
    taken = {name: getattr(config, name) for name in _READ}
    taken |= {ours: engine.pop(theirs) for theirs, ours in _ENGINE_READ.items() if theirs in engine}
    left = sorted([*(set(engine) - {"task_type"}), *(_set_by_user(config) - _READ - {"engine_kwargs"})])
    if left:
        log.warning("these settings of the other engine mean nothing to this one: %s", ", ".join(left))
    return check(taken, ProcessorConfig, origin="the processor")


def _set_by_user(config: Any) -> set[str]:
    return {name for name in getattr(config, "model_fields_set", ()) if getattr(config, name) is not None}
