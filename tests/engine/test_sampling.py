from __future__ import annotations

import pytest
import torch

from skipvision.engine.request import Sampling
from skipvision.engine.sampling import check_numbers, choose_tokens, keep_likely, uniform
from skipvision.errors import EngineDeadError

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0, 0.0])


def draws(sampling: Sampling, count: int = 4000, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    """Share of each token among the draws at `count` places of one answer."""
    tokens = choose_tokens(logits.expand(count, -1), [sampling] * count, range(count))
    return torch.bincount(torch.tensor(tokens), minlength=len(logits)) / count


def test_temperature_zero_takes_the_likeliest_token() -> None:
    assert choose_tokens(torch.stack([LOGITS, -LOGITS]), [Sampling()] * 2, [0, 7]) == [1, 3]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(dim=0)
    # Four standard deviations of 4000 draws are at most 0.032; the draws are the same on every run.
    torch.testing.assert_close(draws(Sampling(temperature=temperature)), expected, atol=0.032, rtol=0)


def test_top_k_draws_from_that_many_likeliest_tokens() -> None:
    shares = draws(Sampling(temperature=1, top_k=2))
    assert (shares > 0).tolist() == [False, True, True, False, False]


def test_top_p_draws_from_the_smallest_set_that_holds_the_share() -> None:
    likely = LOGITS.softmax(dim=0)  # 0.086, 0.636, 0.234, 0.012, 0.032
    assert likely[1] < 0.7 < likely[1] + likely[2]
    assert (draws(Sampling(temperature=1, top_p=0.7)) > 0).tolist() == [False, True, True, False, False]
    assert draws(Sampling(temperature=1, top_p=0.1))[1] == 1


def test_top_p_counts_what_top_k_leaves() -> None:
    kept = keep_likely(LOGITS[None].double(), torch.tensor([[2.0]]), torch.tensor([[0.72]]))
    # Of the two likeliest, the first holds 0.73: by itself it is enough. Of all five it holds 0.64.
    assert (kept > -torch.inf).tolist() == [[False, True, False, False, False]]


def test_a_tiny_temperature_takes_the_likeliest_token_and_does_not_overflow() -> None:
    assert draws(Sampling(temperature=1e-300), count=50)[1] == 1


def test_a_draw_is_the_same_in_any_company() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 40, generator=generator)
    samplings = [Sampling(temperature=0.7 + i / 10, top_k=[None, 9][i % 2], top_p=0.9, seed=i) for i in range(5)]
    samplings.append(Sampling())
    together = choose_tokens(logits, samplings, range(6))
    alone = [choose_tokens(logits[i : i + 1], [samplings[i]], [i])[0] for i in range(6)]
    backwards = choose_tokens(logits.flip(0), samplings[::-1], range(5, -1, -1))
    assert together == alone == backwards[::-1]


def test_seed_and_place_decide_the_draw_and_nothing_else_does() -> None:
    assert uniform(3, 5) == uniform(3, 5)
    assert len({uniform(seed, place) for seed in range(50) for place in range(50)}) == 2500
    assert uniform(2**63 - 1, 0) != uniform(0, 2**63 - 1)


def test_a_token_without_probability_is_never_drawn_however_the_dice_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, 0.0, -torch.inf]])
    for extreme, expected in ((0.0, 1), (1 - 2**-53, 3)):
        monkeypatch.setattr("skipvision.engine.sampling.uniform", lambda _seed, _place, value=extreme: value)
        assert choose_tokens(logits, [Sampling(temperature=1)], [0]) == [expected]


def test_logits_that_are_no_numbers_are_not_sampled_from() -> None:
    broken = torch.stack([LOGITS, LOGITS.where(LOGITS != 0, torch.nan)])
    for look in (check_numbers, lambda logits: choose_tokens(logits, [Sampling(), Sampling(temperature=1)], [0, 0])):
        with pytest.raises(EngineDeadError, match="not numbers"):
            look(broken)
