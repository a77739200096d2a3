from __future__ import annotations

import pytest

from skipvision.engine.live_request import LiveRequest, Reading
from skipvision.engine.pages import PagePool
from skipvision.engine.request import Priority, Sampling
from skipvision.engine.scheduler import Scheduler, Step
from skipvision.engine.text import AnswerText
from skipvision.errors import QueueFullError
from skipvision.families.family import PromptTokens
from skipvision.method.plan import SkipConfig, plan_prompt


def live(
    name: str, *, prompt_tokens: int = 10, max_tokens: int = 5, added_at: float = 0.0, priority: Priority = "normal"
) -> LiveRequest:
    return LiveRequest(
        request_id=name,
        sampling=Sampling(max_tokens=max_tokens),
        skip=SkipConfig(),
        prompt=PromptTokens(tuple(range(prompt_tokens)), ()),
        plan=plan_prompt(SkipConfig(), text_tokens=prompt_tokens, visual_tokens=()),
        images=(),
        text=AnswerText(lambda ids: " ".join(map(str, ids)), ()),
        added_at=added_at,
        priority=priority,
    )


def scheduler(pool: PagePool | None = None, **limits: int) -> Scheduler:
    return Scheduler(pool or PagePool(100), **({"max_running": 4, "max_step_tokens": 1000} | limits))


def names(readings: tuple[Reading, ...]) -> str:
    return "".join(reading.request.request_id for reading in readings)


def advance(line: Scheduler) -> Step:
    """One step as the engine takes it: everyone who speaks says 7."""
    step = line.next_step()
    for reading in step.readings:
        reading.request.cached.append(reading.kept_tokens)
        reading.request.transient.append(reading.transient_tokens)
    speakers = step.speakers
    line.settle(step)
    for request in speakers:
        if request.hear(7, end_tokens=()).answer is not None:
            line.remove(request.request_id)
    return step


def test_prompts_are_read_while_others_speak() -> None:
    line = scheduler()
    for name in "ab":
        line.add(live(name))
    first = advance(line)
    line.add(live("c"))
    second = advance(line)
    assert (names(first.decodes), names(first.chunks)) == ("", "ab")
    assert (names(second.decodes), names(second.chunks), names(second.readings)) == ("ab", "c", "abc")


def test_no_more_run_than_may() -> None:
    line = scheduler(max_running=2)
    for name in "abc":
        line.add(live(name))
    assert names(advance(line).chunks) == "ab"
    assert names(advance(line).chunks) == ""
    line.remove("a")
    step = advance(line)
    assert (names(step.decodes), names(step.chunks)) == ("b", "c")


def test_a_step_reads_no_more_prompt_tokens_than_it_may() -> None:
    line = scheduler(max_step_tokens=25)
    for name in "abc":
        line.add(live(name, prompt_tokens=10))
    assert [names(advance(line).chunks) for _ in range(2)] == ["ab", "c"]


def test_a_prompt_longer_than_a_step_is_read_in_several_while_others_speak() -> None:
    line = scheduler(max_step_tokens=25)
    line.add(live("a"))
    line.add(live("B", prompt_tokens=60))
    line.add(live("c"))
    steps = [advance(line) for _ in range(5)]
    assert [[(r.start, r.stop) for r in step.chunks if r.request.request_id == "B"] for step in steps[:4]] == [
        [(0, 15)],
        [(15, 40)],
        [(40, 60)],
        [],
    ]
    assert [names(step.decodes) for step in steps] == ["", "a", "a", "aB", "aBc"]
    assert [[r.request_id for r in step.speakers] for step in steps[:3]] == [["a"], ["a"], ["a", "B"]]
    assert names(steps[3].chunks) == "c", "it fits into one step, so it waits for a whole one"


def test_pages_are_taken_as_tokens_come() -> None:
    pool = PagePool(4)
    line = scheduler(pool)
    line.add(live("a", prompt_tokens=16, max_tokens=20))
    advance(line)
    assert pool.free_tokens == 48
    advance(line)
    assert pool.free_tokens == 32


def test_nobody_overtakes_a_big_request_that_waits_for_room() -> None:
    pool = PagePool(4)
    line = scheduler(pool)
    line.add(live("a", prompt_tokens=30))
    advance(line)
    line.add(live("B", prompt_tokens=40))
    line.add(live("c", prompt_tokens=1))
    assert names(advance(line).chunks) == "", "c would fit, but stands behind B"
    line.remove("a")
    assert names(advance(line).chunks) == "B", "one page is left for B's answer"


def test_a_priority_is_worth_a_head_start_and_no_more() -> None:
    line = scheduler(max_running=1)
    came = [("n", 0, "normal"), ("l", 0, "low"), ("h", 20, "high"), ("H", 40, "high"), ("N", 50, "normal")]
    for name, added_at, priority in [*came, ("M", 70, "normal")]:
        line.add(live(name, added_at=added_at, priority=priority, max_tokens=1))
    assert "".join(line.request_ids()) == "hnHNlM"
    assert [names(advance(line).chunks) for _ in range(6)] == list("hnHNlM")


def test_the_last_turn_gives_way_though_it_was_read_first() -> None:
    pool = PagePool(4)
    line = scheduler(pool)
    low, high = live("l", max_tokens=40, priority="low"), live("h", max_tokens=40, priority="high")
    line.add(low)
    advance(line)
    line.add(high)
    while line.has_work and not line.preemptions:
        advance(line)
    assert (low.read_tokens, len(high.output_ids) > 20) == (0, True)


def test_when_pages_run_out_the_youngest_gives_way_and_reads_again_from_the_start() -> None:
    pool = PagePool(5)
    line = scheduler(pool)
    old, young = live("o", max_tokens=60), live("y", max_tokens=30)
    line.add(old)
    line.add(young)
    while line.preemptions == 0:
        step = advance(line)
    line.add(live("w"))
    assert names(step.readings) == "o"
    assert (young.read_tokens, young.cached.pages) == (0, [])
    said = len(young.output_ids)
    assert 0 < said < 30
    assert line.request_ids() == ("o", "y", "w"), "it stands before those who came later"
    while young.read_tokens == 0:
        step = advance(line)
    assert young not in step.speakers
    assert len(young.output_ids) == said, "its prompt is read for its cache only"
    step = advance(line)
    [append] = [reading for reading in step.chunks if reading.request is young]
    assert (append.start, append.stop, append.speaks) == (10, 10 + said, True)


def test_everyone_finishes_in_a_pool_for_one_and_the_oldest_is_never_put_back() -> None:
    pool = PagePool(4)
    line = scheduler(pool, max_running=8)
    everyone = [live(str(i), prompt_tokens=5 + i, max_tokens=40) for i in range(8)]
    for request in everyone:
        line.add(request)
    for _ in range(2000):
        if not line.has_work:
            break
        oldest = line.request_ids()[0]
        step = advance(line)
        assert step.readings, "there is always someone who goes on"
        assert oldest in [reading.request.request_id for reading in step.readings]
    assert [len(request.output_ids) for request in everyone] == [40] * 8
    assert pool.free_tokens == pool.capacity_tokens


def test_leaving_frees_pages_at_once_from_the_line_and_from_the_running() -> None:
    pool = PagePool(4)
    line = scheduler(pool, max_running=1)
    line.add(live("a"))
    line.add(live("b"))
    advance(line)
    assert line.remove("a").request_id == "a"
    assert pool.free_tokens == pool.capacity_tokens
    assert line.remove("b").request_id == "b"
    assert line.remove("b") is None
    assert not line.has_work


def test_a_full_line_refuses_and_has_room_again_when_it_moves() -> None:
    line = scheduler(max_waiting=2)
    line.add(live("a"))
    line.add(live("b"))
    with pytest.raises(QueueFullError, match="2 requests are waiting"):
        line.add(live("c"))
    advance(line)
    line.add(live("c"))
    assert "c" in line
