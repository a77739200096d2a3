"""The batch job: images and prompts in, one committed row for each out, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from monitoring.hub import feed_of, find_hub, start_hub
from pipelines.attempts import ATTEMPTS
from pipelines.cluster import cluster, connected
from pipelines.commit import committed_shards, read_success, write_manifest, write_success
from pipelines.folder import JobFolder, name_of
from pipelines.freeze import check_same_input, freeze
from pipelines.held import HELD, unaccounted
from pipelines.inference import Inference
from pipelines.layout import SUCCESS, has_plan, refuse_foreign_folder, sweep
from pipelines.lease import Lease, leased
from pipelines.meter import JobMeter
from pipelines.model import ChosenModel, choose_model
from pipelines.plan import JobPlan, check_same_job, read_plan
from pipelines.prepare import Preparation
from pipelines.progress import say, shown
from pipelines.report import write_report
from pipelines.sources import find_source, is_gone
from pipelines.statistics import JobReport
from pipelines.stopping import stopped_by_sigterm
from pipelines.stream import stream
from pipelines.tables import open_table
from pipelines.windows import BEGUN, choose_windows
from skipvision.config import DEFAULT_PROMPT, JobConfig, check
from skipvision.engine import Sampling
from skipvision.errors import JobStoppedError, StorageError
from skipvision.fetch import FetchPolicy
from skipvision.image_decoders import check_optional
from skipvision.metrics.feed import LocalNumbers, Numbers
from skipvision.metrics.hub import Hub
from skipvision.prices import PriceList, load_prices
from skipvision.sandbox import Limits
from skipvision.tracing import check_installed

__all__ = ["JobReport", "run"]


def run(config: JobConfig) -> JobReport:
    """Answer every row of the input, once.

    Killed at any point and called again with the same settings, it goes on from what is committed. Called again
    after success, it changes nothing.

    Raises:
        ConfigError: the input, the output, the model or a setting is wrong; nothing was started.
        JobStoppedError: storage or machines failed more than can be mended from here; what is committed stays, and
            the same call goes on from there.
    """
    config = check(asdict(config), JobConfig, origin="the job")
    check_optional(config.image_formats)
    check_installed(config.traces)
    FetchPolicy(allow_networks=config.allow_networks, deny_networks=config.deny_networks)  # what is none is named here
    prices = load_prices(config.prices)
    model = choose_model(config)
    try:
        return _run(config, model, prices)
    except (StorageError, JobStoppedError) as error:
        raise JobStoppedError(
            f"the job stopped: {error}; what it committed to {config.output} stays, and the same command goes on from "
            "there"
        ) from error


def _run(config: JobConfig, model: ChosenModel, prices: PriceList | None) -> JobReport:
    folder, plan = _job_of(config, model)
    if finished := read_success(folder):
        return _already_done(config, finished)
    with leased(folder, seconds=config.lease_seconds) as lease:
        if finished := read_success(folder):
            return _already_done(config, finished)
        sweep(folder, keep_input=plan.input_id)
        with _published(config) as numbers, _metered(plan, model, numbers, config, prices) as meter:
            meter.take_over(committed_shards(folder, plan).values())
            _work_through_missing_shards(meter, lease, folder, plan, config, model)
            report = _finish(folder, plan, meter)
    say(f"{config.output}: {report.rows:,} rows, {report.errors:,} of them errors")
    return report


def _already_done(config: JobConfig, finished: JobReport) -> JobReport:
    say(f"{config.output} is done already: {finished.rows:,} rows, {finished.errors:,} of them errors")
    return replace(finished, already_done=True)


def _job_of(config: JobConfig, model: ChosenModel) -> tuple[JobFolder, JobPlan]:
    """The job that stands in the output, known to be the one that is asked for; a new one if there is none."""
    refuse_foreign_folder(config.output)
    if has_plan(config.output):
        return _existing_job(config, model)
    table = open_table(find_source(config.input), config)
    folder = JobFolder.open(config.output)
    plan = freeze(table, config, model, folder)
    check_same_job(plan, config, model)  # another run may have been quicker, with settings of its own
    return folder, plan


def _existing_job(config: JobConfig, model: ChosenModel) -> tuple[JobFolder, JobPlan]:
    folder = JobFolder(config.output)
    plan = read_plan(folder)
    check_same_job(plan, config, model)
    if folder.read(SUCCESS) is None:
        check_same_input(plan, find_source(config.input), folder)
        return JobFolder.open(config.output), plan
    if not is_gone(config.input):
        check_same_input(plan, find_source(config.input), folder, finished=True)
    return folder, plan


def _work_through_missing_shards(
    meter: JobMeter, lease: Lease, folder: JobFolder, plan: JobPlan, config: JobConfig, model: ChosenModel
) -> None:
    missing = meter.missing()
    if not missing:
        return
    with cluster(config) as ray, stopped_by_sigterm(), shown(plan.rows, meter.rows) as show:
        preparation, inference = _preparation(folder, plan, config, model), _inference(folder, plan, config, model)
        done = stream(missing, preparation, inference, ray, standstill_seconds=config.standstill_seconds)
        try:
            for statistics, observations in done:
                meter.record(statistics, observations)
                show(meter.rows)
                lease.check()
        except JobStoppedError:
            lease.check()  # a driver that was frozen has missed more than its shards
            raise


def _finish(folder: JobFolder, plan: JobPlan, meter: JobMeter) -> JobReport:
    """Close the job. Of two runs that work on it side by side, the one that comes second leaves it as it is."""
    report = meter.report(unaccounted(folder))
    if folder.read(SUCCESS) is None:
        write_report(folder, report)
        write_manifest(folder, plan, meter.shards)
        write_success(folder, report)
    for notes in (ATTEMPTS, BEGUN, HELD):
        folder.remove(folder.names(notes))
    return report


def _preparation(folder: JobFolder, plan: JobPlan, config: JobConfig, model: ChosenModel) -> Preparation:
    return Preparation(
        output=folder.location,
        input_id=plan.input_id,
        model=model.location,
        prompt=config.prompt or DEFAULT_PROMPT,
        prompt_column=config.prompt_column,
        embedded_column=plan.embedded_column,
        allow_networks=config.allow_networks,
        deny_networks=config.deny_networks,
        limits=Limits(
            seconds=config.decode_seconds,
            memory_bytes=config.decode_memory_mib << 20,
            image_formats=config.image_formats,
            reduced_decoding=config.reduced_decoding,
        ),
    )


def _inference(folder: JobFolder, plan: JobPlan, config: JobConfig, model: ChosenModel) -> Inference:
    sampling = Sampling(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        seed=config.seed,
        stop=config.stop,
    )
    return Inference(
        output=folder.location,
        plan=plan,
        model=model.location,
        skip=model.skip,
        sampling=sampling,
        device=config.device,
        dtype=config.dtype,
        max_running=config.max_running,
        max_poison_rows=config.max_poison_rows,
        stall_seconds=config.stall_seconds,
        windows=choose_windows(plan, share=config.compared_share, max_running=config.max_running),
        traces=config.traces,
        traces_share=config.traces_share,
    )


@contextmanager
def _published(config: JobConfig) -> Iterator[Numbers]:
    """Where the job's numbers go inside the `with` block."""
    with ExitStack() as stack:
        numbers = stack.enter_context(closing(_numbers(config, stack)))
        yield numbers


def _numbers(config: JobConfig, stack: ExitStack) -> Numbers:
    """The hub of the cluster, if it has one or should have; else one in this process, for the time of the job."""
    if config.ray_address is not None:
        stack.enter_context(connected(config.ray_address, slots=0))
        if config.metrics_port is not None:
            hub, address = start_hub(config.metrics_port, config.metrics_host, config.metrics_totals)
            say(f"metrics at {address}")
            return feed_of(hub)
        if (found := find_hub()) is not None:
            return feed_of(found)
    local = Hub(None if config.metrics_totals is None else Path(config.metrics_totals))
    if config.metrics_port is not None:
        port = local.serve(config.metrics_port, config.metrics_host)
        say(f"metrics on http://{config.metrics_host}:{port}/metrics")
    return LocalNumbers(local)


@contextmanager
def _metered(
    plan: JobPlan, model: ChosenModel, numbers: Numbers, config: JobConfig, prices: PriceList | None
) -> Iterator[JobMeter]:
    """An attempt that is counted; whether it ends well is told when the `with` block does."""
    meter = JobMeter(plan, model, numbers, name=config.name or name_of(config.output), prices=prices)
    try:
        yield meter
    except BaseException:
        meter.end(well=False)
        raise
    meter.end(well=True)
