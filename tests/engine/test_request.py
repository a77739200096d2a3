from __future__ import annotations

import pickle

import pytest

from skipvision.engine.request import Request, Sampling
from skipvision.errors import InputError


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -0.1}, "temperature must be a number from 0 up"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": 0}, "top_k must be at least 1, or None"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ("",)}, "stop"),
        ({"stop": "end"}, "stop"),
        ({"logprobs": -1}, "logprobs must be from 0 to 20, or None for none; got -1"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_sampling_out_of_range_is_refused_naming_setting_and_value(wish: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        Sampling(**wish)
    assert refusal.value.code == "sampling_invalid"


def test_the_edges_of_every_range_are_allowed() -> None:
    Sampling(max_tokens=1, temperature=0, top_p=1, top_k=1, seed=2**63 - 1, stop=("x",))
    Sampling(temperature=1e-300, top_p=1e-300, seed=0, logprobs=0)
    Sampling(logprobs=20)


def test_requests_get_ids_of_their_own() -> None:
    assert Request(prompt="a").request_id != Request(prompt="a").request_id


def test_a_request_travels_between_processes() -> None:
    request = Request(prompt="a", sampling=Sampling(stop=("b",)))
    assert pickle.loads(pickle.dumps(request)) == request
