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
        self._absent: dict[str, str] = {}
        self._trials: dict[str, dict[str, Any]] = {}
        """By contestant and layout: images per second, or why it failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.started:
            each.close()

    def start(self, contestant: Contestant, *, dtype: str, trial: Work) -> None:
        """Start an engine in the layout that does the trial fastest; one that cannot run is reported as absent."""
        if not contestant.python.exists():
            self._absent[contestant.name] = contestant.how_to_get
            return
        best, best_rate = None, 0.0
        trials = self._trials.setdefault(contestant.name, {})
        for layout in contestant.layouts:
            try:
                challenger = start(contestant, layout, dtype=dtype, folder=trial.folder)
                trials[layout.name] = rate = _images_per_second(challenger, trial)
            except WorkerFailedError as error:
                trials[layout.name] = self._absent[contestant.name] = str(error)
                continue
            if rate > best_rate:
                best, best_rate, challenger = challenger, rate, best
            if challenger is not None:
                challenger.close()
        if best is not None:
            self._absent.pop(contestant.name, None)
            self.started.append(best)

    def go_alone(self, *, dtype: str, folder: str) -> None:
        """Let engines of several processes, of which only one would answer a lone request, go on as one.

        In the layout that was the fastest of those.
        """
        for place, engine in enumerate(self.started):
            trials = self._trials[engine.contestant.name]
            alone = [
                layout
                for layout in engine.contestant.layouts
                if layout.processes == 1 and isinstance(trials[layout.name], float)
            ]
            if engine.layout.processes > 1 and alone:
                engine.close()
                fastest = max(alone, key=lambda layout: trials[layout.name])
                self.started[place] = start(engine.contestant, fastest, dtype=dtype, folder=folder)

    def report(self) -> list[dict[str, Any]]:
        """For JSON: every contestant with its layout and what the trials said, or with what kept it away."""
        ran = [
            {
                "name": each.contestant.name,
                "absent": None,
                "layout": each.layout.name,
                "processes": each.layout.processes,
                "environment": dict(each.layout.environment),
                **each.facts,
                "trials": self._trials[each.contestant.name],
            }
            for each in self.started
        ]
        return [*ran, *({"name": name, "absent": reason} for name, reason in self._absent.items())]

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
