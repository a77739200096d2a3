"""The job's protocol without anything else: which operations an attempt asks of the store, and in which order.

`Protocol` says what skipvision does. Its subclasses each leave one thing out; that they are caught is what shows that
the checks can see.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from tests.protocol.interleaving import Fate, Interleaving, StoreError

Operation = tuple[str, ...]
Steps = Generator[Operation, Any, Any]
SHARDS = 3
_TRIES = 3


@dataclass
class Store:
    """Names and what stands there. Every operation happens at once or not at all."""

    files: dict[str, Any] = field(default_factory=dict)
    promises_broken: list[str] = field(default_factory=list)

    def do(self, operation: Operation) -> Any:
        kind, name, *content = operation
        if kind == "create":
            if name in self.files:
                return False
            self._put(name, content[0])
            return True
        if kind == "put":
            self._put(name, content[0])
            return None
        if kind == "read":
            return self.files.get(name)
        if kind == "remove":
            self.files.pop(name, None)
            return None
        return [other for other in self.files if other.startswith(name)]

    def _put(self, name: str, content: Any) -> None:
        if not name.startswith("input/") and self.files.get(name, content) != content:
            self.promises_broken.append(f"{name} was {self.files[name]} and became {content}")
        if name == "_SUCCESS":
            done = {int(other.removeprefix("data/")) for other in self.files if other.startswith("data/")}
            if done != set(range(SHARDS)):
                self.promises_broken.append(f"success with shards {sorted(done)}")
        self.files[name] = content


class Protocol:
    """What an attempt does, as its store operations."""

    def steps(self, me: int) -> Steps:
        plan = yield from self.the_plan(me)
        if (yield "read", "_SUCCESS") is not None:
            return
        for name in (yield "list", "input/"):
            if not name.startswith(f"input/{plan}/"):
                yield "remove", name
        committed = yield "list", "data/"
        for shard in range(SHARDS):
            if f"data/{shard}" not in committed:
                yield from self.work(plan, shard)
        yield from self.finish()

    def the_plan(self, me: int) -> Steps:
        plan = yield "read", "plan"
        if plan is not None:
            return plan
        for shard in range(SHARDS):
            yield from self.create(f"input/{me}/{shard}", (me, shard))
        if (yield from self.create("plan", me)):
            return me
        return (yield "read", "plan")

    def work(self, plan: int, shard: int) -> Steps:
        if (yield "read", f"data/{shard}") is None:
            frozen = yield "read", f"input/{plan}/{shard}"
            if frozen is None:
                raise StoreError(f"the frozen input of shard {shard} is gone")
            yield from self.create(f"data/{shard}", frozen)

    def finish(self) -> Steps:
        yield from self.create("_MANIFEST", "all")
        yield from self.create("_SUCCESS", "all")

    def create(self, name: str, content: Any) -> Steps:
        for _ in range(_TRIES):
            try:
                return (yield "create", name, content)
            except StoreError:
                found = yield "read", name
                if found is not None:
                    return found == content
        raise StoreError(f"{name} could not be created")


class Overwrites(Protocol):
    """Writes without a condition."""

    def create(self, name: str, content: Any) -> Steps:
        yield "put", name, content
        return True


class BelievesErrors(Protocol):
    """Takes an error for a proof that nothing was written, and writes again without a condition."""

    def create(self, name: str, content: Any) -> Steps:
        try:
            return (yield "create", name, content)
        except StoreError:
            yield "put", name, content
            return True


class KeepsItsOwnPlan(Protocol):
    """Goes on with what it has frozen itself, though another attempt's plan stands."""

    def the_plan(self, me: int) -> Steps:
        plan = yield from super().the_plan(me)
        return me if (yield "read", f"input/{me}/0") is not None else plan


class SaysSuccessFirst(Protocol):
    """Publishes before the work is done."""

    def steps(self, me: int) -> Steps:
        plan = yield from self.the_plan(me)
        yield from self.create("_SUCCESS", "all")
        for shard in range(SHARDS):
            yield from self.work(plan, shard)


class MovesIntoPlace(Protocol):
    """Commits by copy and delete, as a rename in an object store does, and sweeps what looks unfinished as it starts:
    the data of pending commits goes."""

    def steps(self, me: int) -> Steps:
        for name in (yield "list", "pending/"):
            yield "remove", "data/" + name.removeprefix("pending/")
            yield "remove", name
        yield from super().steps(me)

    def work(self, plan: int, shard: int) -> Steps:
        if (yield "read", f"committed/{shard}") is None:
            frozen = yield "read", f"input/{plan}/{shard}"
            if frozen is None:
                raise StoreError(f"the frozen input of shard {shard} is gone")
            yield "put", f"pending/{shard}", shard
            yield "put", f"data/{shard}", frozen
            yield "put", f"committed/{shard}", shard
            yield "remove", f"pending/{shard}"


BROKEN = (Overwrites, BelievesErrors, KeepsItsOwnPlan, SaysSuccessFirst, MovesIntoPlace)


class ModelAttempt:
    """An attempt of the model, stopped before its next operation."""

    def __init__(self, store: Store, steps: Steps) -> None:
        self._store, self._steps = store, steps
        self._next: Operation = next(steps)

    def go_on(self, fate: Fate) -> bool:
        answer = None if fate in (Fate.FAILED, Fate.KILLED_BEFORE) else self._store.do(self._next)
        if fate in (Fate.KILLED_BEFORE, Fate.KILLED_AFTER):
            return False
        try:
            if fate is Fate.DONE:
                self._next = self._steps.send(answer)
            else:
                self._next = self._steps.throw(StoreError())
        except (StopIteration, StoreError):
            return False  # ended, or gave up: somebody starts the job again
        return True


def explore(protocol: Protocol, seeds: range) -> tuple[list[str], int]:
    """Run a schedule for each seed.

    Returns:
        What went wrong, each with its seed, and how many faults there were.
    """
    wrong, faults = [], 0
    for seed in seeds:
        store, started = Store(), 0

        def start(store: Store = store) -> ModelAttempt:
            nonlocal started
            started += 1
            return ModelAttempt(store, protocol.steps(started))

        schedule = Interleaving(seed, start)
        schedule.run()
        faults += schedule.faults
        wrong += [f"seed {seed}: {told}" for told in [*store.promises_broken, *_left_wrong(store)]]
    return wrong, faults


def _left_wrong(store: Store) -> list[str]:
    """What is lost or doubled once all is over. The last attempt was not disturbed, so the job must be done."""
    plan = store.files.get("plan")
    wrong = [f"no {name}" for name in ("plan", "_MANIFEST", "_SUCCESS") if name not in store.files]
    for shard in range(SHARDS):
        if store.files.get(f"data/{shard}") != (plan, shard):
            wrong.append(f"shard {shard} of plan {plan} is {store.files.get(f'data/{shard}')}")
    return wrong
