"""How engines are started to be measured: each in the best of its layouts, which a short trial chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, Self

from benchmarks.lineup import Contestant, Layout
from benchmarks.work import Work
from benchmarks.workers.process import WorkerFailedError, WorkerProcess


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """An engine that runs."""

    contestant: Contestant
    layout: Layout
    workers: Sequence[WorkerProcess]
    facts: Mapping[str, Any]
    """What each of its workers said when it was loaded: threads and versions."""

    def answer_all(self, setting: str, work: Work) -> dict[str, Any]:
        """Answer everything at once; see the workers. Several share the work, and the slowest counts."""
        options = {**self.layout.answer_all, **self.contestant.settings[setting]}
        parts = work.shared_by(len(self.workers))
        busy = self.workers[: len(parts)]
        for worker, part in zip(busy, parts, strict=True):
            worker.send("answer_all", work=asdict(part), **options)
        return _together([worker.receive() for worker in busy])

    def answer_one(self, setting: str, work: Work, index: int) -> dict[str, float]:
        """Answer one request alone; see the workers."""
        options = self.contestant.settings[setting]
        reply: dict[str, float] = self.workers[0].ask("answer_one", work=asdict(work), index=index, **options)
        return reply

    def close(self) -> None:
        """End its processes."""
        for worker in self.workers:
            worker.close()


class Field:
    """The engines that were started, and why others were not. Leaving the `with` block ends them."""

    def __init__(self) -> None:
        self.started: list[Started] = []
        self.report: list[dict[str, Any]] = []
        """For JSON: every contestant with its layout and trials, or with what kept it away."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.started:
            each.close()

    def start(self, contestant: Contestant, *, dtype: str, trial: Work) -> None:
        """Start an engine in the layout that does the trial fastest; one that cannot run is reported as absent."""
        if not contestant.python.exists():
            self.report.append({"name": contestant.name, "absent": contestant.how_to_get})
            return
        best: Started | None = None
        trials: dict[str, dict[str, Any]] = {}
        for layout in contestant.layouts:
            try:
                challenger = start(contestant, layout, dtype=dtype, folder=trial.folder)
                rate = _images_per_second(challenger, trial)
            except WorkerFailedError as error:
                trials[layout.name] = {"failed": str(error)}
                continue
            trials[layout.name] = {"images_per_second": rate}
            if best is None or rate > trials[best.layout.name]["images_per_second"]:
                best, challenger = challenger, best
            if challenger is not None:
                challenger.close()
        self.report.append({"name": contestant.name, **_report(best, trials), "trials": trials})
        self.started += [best] if best is not None else []

    def rows(self) -> list[tuple[str, Started]]:
        """Every setting of every engine that runs."""
        return [(setting, each) for each in self.started for setting in each.contestant.settings]


def start(contestant: Contestant, layout: Layout, *, folder: str, dtype: str, **load: Any) -> Started:
    """Start an engine in one layout, and load the checkpoint in `folder`.

    Raises:
        WorkerFailedError: it cannot be loaded; nothing of it is left.
    """
    workers: list[WorkerProcess] = []
    try:
        for _ in range(layout.processes):
            workers.append(WorkerProcess(contestant.python, contestant.module, environment=layout.environment))
            workers[-1].send("load", folder=folder, dtype=dtype, **load)
        facts = [worker.receive() for worker in workers]
    except WorkerFailedError:
        for worker in workers:
            worker.close()
        raise
    return Started(contestant=contestant, layout=layout, workers=workers, facts=facts[0])


def _images_per_second(started: Started, trial: Work) -> float:
    """Of the second of two runs. An engine that fails is ended."""
    setting = next(iter(started.contestant.settings))
    try:
        started.answer_all(setting, trial)
        return trial.requests * trial.images_each / float(started.answer_all(setting, trial)["seconds"])
    except WorkerFailedError:
        started.close()
        raise


def _together(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """One reply of several processes that worked side by side."""
    merged = dict(replies[0])
    merged["seconds"] = max(reply["seconds"] for reply in replies)
    merged["output_ids"] = [ids for reply in replies for ids in reply["output_ids"]]
    if "stage_seconds" in merged:
        merged["stage_seconds"] = {
            stage: mean(reply["stage_seconds"][stage] for reply in replies) for stage in merged["stage_seconds"]
        }
    return merged


def _report(best: Started | None, trials: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How an engine runs; or the reason of its last layout, when it failed in each."""
    if best is None:
        return {"absent": [trial["failed"] for trial in trials.values()][-1]}
    layout = {"layout": best.layout.name, "processes": best.layout.processes}
    return {"absent": None, **layout, "environment": dict(best.layout.environment), **best.facts}
