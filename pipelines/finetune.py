"""Fine-tuning on many processes: Ray Train runs the trainer of `skipvision.tuning`, Ray Data reads ahead of each.

The folder of the run is its memory, as in one process: every worker writes its part of a checkpoint there, so it has to
be one that all machines see. A worker that dies ends all of them; Ray starts them again, and they go on from the last
checkpoint.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray.data
import ray.train
from ray.data import ExecutionResources
from ray.train.torch import TorchTrainer, get_device

from pipelines.cluster import connected
from skipvision.errors import ConfigError, TrainingError
from skipvision.tuning.encoding import SampleEncoder
from skipvision.tuning.journal import read_steps
from skipvision.tuning.local import read_ahead
from skipvision.tuning.run import Run
from skipvision.tuning.trainer import Listener, StepSamples, Trainer
from skipvision.tuning.world import World

_STEPS_AT_ONCE = 256
"""Steps of one stream: its list of samples is made at once, and the samples of a step are one block."""
_MOST_FAILURES = 3
"""Times that workers are started again before a run ends; it can still go on later."""
_SECONDS_BETWEEN_LOOKS = 2.0
RAY = "ray"
"""What Ray Train keeps for itself, in the run's folder."""


def finetune(run: Run, listener: Listener | None = None) -> dict[str, Any]:
    """Start a run on many workers, go on with it, or find that it is done; its report.

    Args:
        listener: told now and then of the latest step.

    Raises:
        ConfigError: the output folder belongs to another run, or the cluster has too little room.
        TrainingError: workers died again and again, or training diverged.
    """
    config = run.config
    with run.claimed(), connected(config.ray_address, slots=config.workers * (1 + config.loaders)):
        if run.report() is None:
            with _following(run, listener):
                _fit(run)
    report = run.report()
    assert report is not None
    return report


@contextmanager
def _following(run: Run, listener: Listener | None) -> Iterator[None]:
    """Tell of the steps that the workers write down, while the `with` block waits for them."""
    ended = threading.Event()

    def follow() -> None:
        told = 0
        while listener is not None and not ended.wait(_SECONDS_BETWEEN_LOOKS):
            steps = read_steps(run.folder)
            if steps and steps[-1].step > told:
                told = steps[-1].step
                listener(steps[-1], len(run.plan))

    follower = threading.Thread(target=follow, name="follows the steps", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def streamed(run: Run, start: int, world: World) -> Iterator[StepSamples]:
    """What one worker learns from in each step from `start` on, encoded in order by Ray tasks."""
    if run.config.loaders == 0:
        yield from read_ahead(run, start, world)
        return
    steps, encoder = len(run.plan), ray.put(run.encoder)  # once, and not with every task
    for first in range(start, steps, _STEPS_AT_ONCE):
        some = range(first, min(first + _STEPS_AT_ONCE, steps))
        items = [{"samples": run.plan.samples_of(step, world)} for step in some]
        dataset = ray.data.from_items(items, override_num_blocks=len(items))
        dataset.context.execution_options.preserve_order = True
        dataset.context.execution_options.resource_limits = ExecutionResources(cpu=run.config.loaders)
        dataset.context.enable_progress_bars = False
        encoded = dataset.map(partial(_encode_step, encoder=encoder), num_cpus=1)
        for row in encoded.iter_rows():
            yield pickle.loads(row["encoded"])


def _encode_step(row: dict[str, Any], *, encoder: ray.ObjectRef[SampleEncoder]) -> dict[str, Any]:
    """The Ray task: the numbers of a step's samples -> the samples, between processes of this program alone."""
    encode = ray.get(encoder)
    return {"encoded": pickle.dumps([encode(int(sample)) for sample in row["samples"]])}


def _fit(run: Run) -> None:
    config = run.config
    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    on_gpus = config.device.startswith("cuda") or (config.device == "auto" and gpus >= config.workers)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"run": run},
        scaling_config=ray.train.ScalingConfig(num_workers=config.workers, use_gpu=on_gpus),
        run_config=ray.train.RunConfig(
            name=RAY,
            storage_path=str(run.folder.resolve()),
            failure_config=ray.train.FailureConfig(max_failures=_MOST_FAILURES),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"workers failed again and again: {error}; started again, the run goes on") from error


def _work(settings: dict[str, Any]) -> None:
    """What every worker does."""
    run: Run = settings["run"]
    context = ray.train.get_context()
    world = World(rank=context.get_world_rank(), size=context.get_world_size(), sharding=run.config.sharding)
    if world.size != run.config.workers:
        raise ConfigError(f"{run.config.workers} workers were asked for and Ray started {world.size}")
    Trainer(run, world, device=str(get_device())).train(lambda start, who: streamed(run, start, who))
    ray.train.report({"steps": len(run.plan)})
