from __future__ import annotations

import pytest

from skipvision.engine.kv_cache import PagePool
from skipvision.engine.live_request import LiveRequest
from skipvision.engine.request import Sampling
from skipvision.engine.scheduler import Scheduler
from skipvision.engine.text import AnswerText
from skipvision.errors import QueueFullError
from skipvision.families.family import PromptTokens
from skipvision.method.plan import SkipConfig, plan_prompt


def live(name: str, *, prompt_tokens: int = 10, max_tokens: int = 5) -> LiveRequest:
    return LiveRequest(
        request_id=name,
        sampling=Sampling(max_tokens=max_tokens),
        skip=SkipConfig(),
        prompt=PromptTokens(tuple(range(prompt_tokens)), ()),
        plan=plan_prompt(SkipConfig(), text_tokens=prompt_tokens, visual_tokens=()),
        images=(),
        text=AnswerText(lambda ids: " ".join(map(str, ids)), ()),
        added_at=0.0,
    )


def scheduler(pool: PagePool | None = None, **limits: int) -> Scheduler:
    return Scheduler(pool or PagePool(100), **({"max_running": 4, "max_step_tokens": 1000} | limits))


def names(requests: tuple[LiveRequest, ...]) -> str:
    return "".join(request.request_id for request in requests)


def test_prompts_are_read_while_others_speak() -> None:
    line = scheduler()
    for name in "ab":
        line.add(live(name))
    first = line.next_step()
    line.add(live("c"))
    second = line.next_step()
    assert (names(first.decodes), names(first.prompts)) == ("", "ab")
    assert (names(second.decodes), names(second.prompts), names(second.requests)) == ("ab", "c", "abc")


def test_no_more_run_than_may() -> None:
    line = scheduler(max_running=2)
    for name in "abc":
        line.add(live(name))
    assert names(line.next_step().prompts) == "ab"
    assert names(line.next_step().prompts) == ""
    line.remove("a")
    step = line.next_step()
    assert (names(step.decodes), names(step.prompts)) == ("b", "c")


def test_a_step_reads_no_more_prompt_tokens_than_it_may() -> None:
    line = scheduler(max_step_tokens=25)
    for name in "abc":
        line.add(live(name, prompt_tokens=10))
    assert [names(line.next_step().prompts) for _ in range(2)] == ["ab", "c"]


def test_pages_for_the_longest_answer_are_taken_with_the_prompts() -> None:
    pool = PagePool(4)
    line = scheduler(pool)
    line.add(live("a", prompt_tokens=16, max_tokens=17))  # 16 + 17 - 1: the last token is never cached
    line.next_step()
    assert pool.free_tokens == 32


def test_nobody_overtakes_a_big_request_that_waits_for_room() -> None:
    pool = PagePool(4)
    line = scheduler(pool)
    line.add(live("a", prompt_tokens=30))
    line.next_step()
    line.add(live("B", prompt_tokens=40))
    line.add(live("c", prompt_tokens=1))
    assert names(line.next_step().prompts) == "", "c would fit, but stands behind B"
    line.remove("a")
    assert names(line.next_step().prompts) == "Bc"


def test_leaving_frees_pages_at_once_from_the_line_and_from_the_running() -> None:
    pool = PagePool(4)
    line = scheduler(pool, max_running=1)
    line.add(live("a"))
    line.add(live("b"))
    line.next_step()
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
    line.next_step()
    line.add(live("c"))
    assert "c" in line
