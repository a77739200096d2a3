"""What a run says about itself while it learns: one line per step, one per sample set aside, and TensorBoard's events.

A run that goes on from a checkpoint first takes back what it had said about later steps, so that the lines are those of
one undisturbed run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from tensorboardX import SummaryWriter

from skipvision.tuning.encoding import SetAside

STEPS, SET_ASIDE, EVENTS = "steps.jsonl", "set_aside.jsonl", "tensorboard"


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """One step, over all workers."""

    step: int
    """From 1."""
    loss: float | None
    """Mean cross-entropy of the answers' tokens, in nats; None where no sample could be learnt from."""
    learning_rate: float
    gradient_norm: float | None
    """Before it was clipped."""
    samples: int
    images: int
    answer_tokens: int
    tokens: int
    """That entered the decoder, visual ones included."""
    visual_tokens: int
    """That the vision side made."""
    set_aside: int
    seconds: float
    """From its samples being there to its end."""


class Journal:
    """The files of one run, written by one process. Leaving the `with` block closes them."""

    def __init__(self, folder: Path, *, after: int) -> None:
        """Open them, with nothing in them about steps later than `after`."""
        self._steps, self._set_aside = (_reopened(folder / name, after) for name in (STEPS, SET_ASIDE))
        self._events = SummaryWriter(str(folder / EVENTS), purge_step=after + 1)

    def note(self, record: StepRecord, set_aside: Iterable[SetAside]) -> None:
        """Write one step down."""
        for each in set_aside:
            _write(self._set_aside, {"step": record.step, **asdict(each)})
        _write(self._steps, asdict(record))
        for name in ("loss", "learning_rate", "gradient_norm", "answer_tokens", "tokens", "set_aside", "seconds"):
            value = getattr(record, name)
            if value is not None:
                self._events.add_scalar(f"train/{name}", value, record.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.close()
        self._set_aside.close()
        self._events.close()


def read_steps(folder: Path) -> list[StepRecord]:
    """What a run noted of its steps so far."""
    return [StepRecord(**entry) for entry in _entries(folder / STEPS)]


def read_set_aside(folder: Path) -> list[dict[str, Any]]:
    """What a run noted of the samples it set aside: `step`, `sample`, `code`, `message`."""
    return [*_entries(folder / SET_ASIDE)]


def _reopened(path: Path, after: int) -> TextIO:
    kept = [entry for entry in _entries(path) if entry["step"] <= after]
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        for entry in kept:
            _write(file, entry)
    fresh.rename(path)
    return path.open("a", encoding="utf-8")


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return  # cut off by a kill
            yield json.loads(line)


def _write(file: TextIO, entry: dict[str, Any]) -> None:
    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    file.flush()
