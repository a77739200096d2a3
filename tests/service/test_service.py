"""The service as its users meet it: OpenAI's own client, and plain HTTP."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import psutil
import pytest
from openai import APIStatusError, OpenAI
from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.browser import browser
from tests.service.conftest import KEYS, Service, running_service


@pytest.fixture(scope="module")
def openai(service: Service) -> OpenAI:
    return OpenAI(base_url=f"{service.address}/v1", api_key=KEYS["full"], max_retries=0, timeout=120)


def about(url: str, asked: str = "Describe the image.") -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": asked}]
    return [{"role": "user", "content": parts}]


def body(**fields: object) -> dict:
    return {"model": "zoo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **fields}


def endless(**fields: object) -> dict:
    """A request whose answer goes on to its limit of tokens: its schema lets no shorter one end."""
    schema = {"type": "object", "properties": {"x": {"type": "string", "minLength": 9_000}}, "required": ["x"]}
    wish = {"type": "json_schema", "json_schema": {"name": "long", "schema": schema}}
    return body(**{"max_tokens": 700, "response_format": wish, **fields})


def error_of(answer: httpx.Response) -> dict:
    """Every refusal has OpenAI's shape, whatever it is for."""
    assert answer.headers["content-type"] == "application/json", answer.text
    [error] = answer.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    return error


def test_an_unchanged_openai_client_is_answered_about_a_picture(openai, picture_url):
    told = openai.chat.completions.create(model="zoo", messages=about(picture_url), max_tokens=40)
    assert told.choices[0].message.content == "a small purple star at the bottom right"
    assert told.choices[0].finish_reason == "stop"
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens
    ours = told.usage.skipvision
    fates = [ours[f"{fate}_tokens"] for fate in ("retained", "skipped", "merged", "dropped")]
    assert sum(fates) == ours["visual_tokens"] == 256
    assert ours["flops"] < ours["flops_all_tokens"]
    assert ours["kv_bytes"] < ours["kv_bytes_all_tokens"]


def test_a_stream_says_the_same_piece_by_piece_and_ends_with_what_it_took(openai, picture_url):
    asked = {"model": "zoo", "messages": about(picture_url), "max_tokens": 40}
    whole = openai.chat.completions.create(**asked)
    chunks = list(openai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *spoken, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in spoken if chunk.choices[0].finish_reason] == ["stop"]
    assert last.choices == []
    assert last.usage.model_dump() == whole.usage.model_dump()
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_request_may_have_all_tokens_or_fewer_and_see_which(openai, picture_url):
    whole = openai.chat.completions.create(
        model="zoo", messages=about(picture_url), max_tokens=4, extra_body={"skipvision": {"skip": "off"}}
    )
    fewer = openai.chat.completions.create(
        model="zoo", messages=about(picture_url), max_tokens=4,
        extra_body={"skipvision": {"skip": "44/69", "token_map": True}},
    )  # fmt: skip
    assert whole.usage.skipvision["retained_tokens"] == 256
    assert whole.usage.skipvision["tokens_saved"] == 0
    assert whole.usage.prompt_tokens - fewer.usage.prompt_tokens == fewer.usage.skipvision["tokens_saved"] > 100
    [tokens] = fewer.skipvision["token_maps"]
    assert tokens["rows"] * tokens["columns"] == len(tokens["fates"]) == 256
    assert tokens["fates"].count("r") == 44


def test_several_answers_are_the_same_for_the_same_seed(openai, picture_url):
    asked = {"model": "zoo", "messages": about(picture_url), "max_tokens": 8, "n": 3, "temperature": 1.5, "seed": -7}
    first, second = (openai.chat.completions.create(**asked) for _ in range(2))
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert [choice.message.content for choice in first.choices] == [choice.message.content for choice in second.choices]
    assert len({choice.message.content for choice in first.choices}) > 1


def test_how_likely_tokens_were_is_told_of_each(openai, picture_url):
    told = openai.chat.completions.create(
        model="zoo", messages=about(picture_url), max_tokens=5, logprobs=True, top_logprobs=2
    )
    tokens = told.choices[0].logprobs.content
    assert len(tokens) == told.usage.completion_tokens == 5
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)
    assert "".join(token.token for token in tokens).split() == told.choices[0].message.content.split()


def test_an_answer_keeps_to_the_schema_of_its_request(openai, picture_url):
    schema = {
        "type": "object",
        "properties": {"shape": {"enum": ["circle", "star"]}, "count": {"type": "integer", "maximum": 9}},
        "required": ["shape", "count"],
        "additionalProperties": False,
    }
    wish = {"type": "json_schema", "json_schema": {"name": "shape", "schema": schema, "strict": True}}
    told = openai.chat.completions.create(
        model="zoo", messages=about(picture_url), max_tokens=60, temperature=1, seed=1, response_format=wish
    )
    answer = json.loads(told.choices[0].message.content)
    assert set(answer) == {"shape", "count"}
    assert answer["shape"] in {"circle", "star"}


def test_requests_side_by_side_are_answered_as_alone(service, picture_url):
    questions = ["Describe the image.", "What colour is the shape?", "How many shapes are there?", "What is this?"]

    def asked(question: str) -> str:
        with service.client() as client:
            answer = client.post("/v1/chat/completions", json=body(messages=about(picture_url, question)))
        return answer.json()["choices"][0]["message"]["content"]

    alone = [asked(question) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(asked, questions * 3))
    assert together == alone * 3


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "nobody"}, 404, "model_not_found", "model"),
        ({"model": "zoo:"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": None}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "prompt_missing", "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages_invalid", "messages"),
        ({"messages": [{"role": "user", "content": "x" * 6000}]}, 400, "context_length_exceeded", None),
        ({"temperature": 2.5}, 400, "invalid_value", "temperature"),
        ({"temperature": "1"}, 400, "invalid_value", "temperature"),
        ({"top_p": 0}, 400, "invalid_value", "top_p"),
        ({"n": 9}, 400, "too_many", "n"),
        ({"max_tokens": 10**9}, 400, "too_many", "max_tokens"),
        ({"max_completion_tokens": 3}, 400, "invalid_value", "max_tokens"),
        ({"top_logprobs": 2}, 400, "invalid_value", "top_logprobs"),
        ({"tools": [{"type": "function"}]}, 400, "unsupported_parameter", "tools"),
        ({"guided_regex": "(a+)+"}, 400, "unknown_parameter", "guided_regex"),
        ({"chat_template": "{{ x }}"}, 400, "unknown_parameter", "chat_template"),
        ({"skipvision": {"skip": "everything"}}, 400, "skip_invalid", "skipvision.skip"),
        ({"skipvision": {"skip": "900/1"}, "image": True}, 400, "skip_does_not_fit", None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "obj"}}}},
            400, "schema_invalid", "response_format",
        ),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_name(service, picture_url, change, status, code, param):
    if change.pop("image", False):
        change = change | {"messages": about(picture_url)}
    with service.client() as client:
        answer = client.post("/v1/chat/completions", json=body(**change))
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param), error


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://169.254.169.254/latest/meta-data", "url_scheme"),
        ("https://127.0.0.1/x.png", "url_refused"),
        ("file:///etc/passwd", "url_scheme"),
        ("/etc/passwd", "url_scheme"),
        ("data:image/png;base64,!!!!", "url_invalid"),
        ("data:image/png;base64,", "image_empty"),
        ("data:image/png;base64,AAAA", "image_unidentified"),
    ],
)
def test_an_image_that_cannot_be_had_is_the_requests_own_fault(service, url, code):
    with service.client() as client:
        answer = client.post("/v1/chat/completions", json=body(messages=about(url)))
    assert (answer.status_code, error_of(answer)["code"]) == (400, code), answer.text


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b'{"model": NaN}', {}, 400, "invalid_json"),
        (b"\xff\xfe", {}, 400, "invalid_json"),
        (b"[" * 100_000, {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_value"),
        (b"{}", {"content-type": "text/plain"}, 415, "content_type_unsupported"),
        (b"{}", {"content-encoding": "gzip"}, 415, "content_encoding_unsupported"),
        (b" " * (5 << 20), {}, 413, "request_too_large"),
    ],
    ids=["cut", "nan", "no text", "deep", "a list", "text", "gzip", "large"],
)
def test_a_body_that_is_none_is_refused(service, content, headers, status, code):
    with service.client() as client:
        answer = client.post(
            "/v1/chat/completions", content=content, headers={"content-type": "application/json", **headers}
        )
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)


def test_a_body_that_grows_too_large_as_it_comes_is_cut(service):
    with service.client() as client:
        answer = client.post(
            "/v1/chat/completions",
            content=(b" " * 65_536 for _ in range(100)),
            headers={"content-type": "application/json"},
        )
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")


def test_paths_and_methods_that_are_none_are_refused_in_the_same_shape(service):
    with service.client() as client:
        assert error_of(client.get("/v1/nothing"))["code"] == "path_not_found"
        assert error_of(client.get("/v1/chat/completions"))["code"] == "method_not_allowed"


def test_nobody_is_answered_without_a_key(service):
    for path in ("/v1/models", "/v1/models/zoo"):
        answer = httpx.get(service.address + path)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "missing_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    answer = httpx.post(
        f"{service.address}/v1/chat/completions", json=body(), headers={"authorization": "Bearer sv-guess"}
    )
    assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")


def test_what_everybody_may_see_needs_no_key(service):
    for path in ("/", "/docs", "/healthz", "/readyz", "/openapi.json", "/page/page.js"):
        assert httpx.get(service.address + path).status_code == 200, path


def test_a_tenant_that_hurries_is_told_when_to_come_again(service):
    with service.client("hasty") as client:
        answers = [client.post("/v1/chat/completions", json=body()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert error_of(answers[-1])["type"] == "rate_limit_error"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 31


def test_a_budget_that_is_spent_is_spent(service):
    with service.client("poor") as client:
        answers = [client.post("/v1/chat/completions", json=body(max_tokens=100)) for _ in range(30)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert statuses == sorted(statuses)
    assert error_of(answers[-1])["type"] == "insufficient_quota"


def test_a_tenant_sees_and_asks_its_own_models_alone(service):
    with service.client("narrow") as client:
        assert client.get("/v1/models").json()["data"] == []
        answer = client.post("/v1/chat/completions", json=body())
        assert (answer.status_code, error_of(answer)["code"]) == (403, "model_not_allowed")


def test_headers_of_a_client_lift_no_limit(service):
    with service.client("hasty") as client:
        answer = client.post(
            "/v1/chat/completions", json=body(),
            headers={"x-request-timeout-seconds": "0", "x-forwarded-for": "127.0.0.1", "x-request-id": "a\tb"},
        )  # fmt: skip
    assert answer.status_code == 429
    assert answer.headers["x-request-id"] != "a\tb"


def test_a_client_that_leaves_pays_for_what_it_was_told(service, picture_url):
    asked = body(messages=about(picture_url), max_tokens=700, temperature=2, stream=True, skipvision={"skip": "8/8"})
    with service.client("metered") as client:
        with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
            lines = answer.iter_lines()
            while "content" not in next(lines):
                pass
        left = None
        for _ in range(100):  # it is noticed a moment later
            time.sleep(0.1)
            told = client.post("/v1/chat/completions", json=body(max_tokens=1))
            left = int(told.headers["x-ratelimit-remaining-tokens"])
            if left > 1_500:
                break
        assert 1_500 < left < 1_960, "neither the 700 that it might have had, nor nothing"


def test_the_page_asks_the_service_that_it_comes_from(service):
    with browser() as driver:
        driver.get(service.address)
        wait = WebDriverWait(driver, 60)
        wait.until(lambda page: page.find_element(By.ID, "key").is_displayed())
        driver.find_element(By.ID, "key").send_keys(KEYS["full"], Keys.ENTER)
        wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, "#skip option"))
        driver.find_element(By.ID, "try-sample").click()
        driver.find_element(By.ID, "race").click()
        wait.until(lambda page: page.find_element(By.ID, "verdict").is_displayed())
        said = [lane.text for lane in driver.find_elements(By.CSS_SELECTOR, ".lane .said")]
        drawn = driver.find_elements(By.CSS_SELECTOR, "rect.cell")
    assert len(said) == 2
    assert all(said)
    assert len(drawn) == 256


def test_a_client_that_leaves_is_given_up(service, picture_url):
    asked = endless(messages=about(picture_url), stream=True, skipvision={"skip": "8/8"})
    before = json.loads(service.in_cluster("import json; print(json.dumps(replicas.stats.remote().result()))"))
    for _ in range(5):
        with service.client() as client, client.stream("POST", "/v1/chat/completions", json=asked) as answer:
            assert next(answer.iter_lines()).startswith("data: ")
    after = _settled(service)
    assert after["finished"]["cancelled"] - before["finished"]["cancelled"] == 5
    assert after["free_pages"] == after["num_pages"]


def test_the_log_has_a_line_for_each_request_and_nothing_of_what_was_asked_shown_or_answered(service, picture_url):
    with service.client() as client:
        right = client.post("/v1/chat/completions", json=body(messages=about(picture_url, "Describe the wombat.")))
        wrong = client.post("/v1/chat/completions", json=body(messages=about("data:,wombat"), stream=True))
    written = service.log.read_text()
    lines = {}
    for line in written.splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            lines[told["request_id"]] = told
    ended = [lines[answer.headers["x-request-id"]] for answer in (right, wrong)]
    assert [(line["status"], line["tenant"], line["model"], line["images"]) for line in ended] == [
        (200, "full", "zoo", 1), (400, "full", "zoo", 1),
    ]  # fmt: skip
    assert ended[0]["prompt_tokens"] == right.json()["usage"]["prompt_tokens"]
    assert ended[1]["code"] == error_of(wrong)["code"]
    assert all(line["seconds"] >= 0 for line in ended)
    secrets = ["wombat", picture_url[30:60], right.json()["choices"][0]["message"]["content"], *KEYS.values()]
    assert [secret for secret in secrets if secret in written] == []


@pytest.mark.faults
def test_what_a_lost_replica_had_not_begun_to_answer_is_asked_of_another(tmp_path):
    """Two replicas, both busy, one of which is killed: every answer that is told whole is told all the same."""
    settings = {"models": [{"max_running": 8, "min_replicas": 2, "max_replicas": 2}]}
    asked = endless(max_tokens=300)
    others = replicas()
    with running_service(tmp_path, settings) as service, ThreadPoolExecutor(12) as pool:

        def ask(_: int) -> httpx.Response:
            return httpx.post(f"{service.address}/v1/chat/completions", json=asked, timeout=120)

        answers = [pool.submit(ask, number) for number in range(12)]
        time.sleep(0.3)
        busy = [each for each in replicas() if each not in others]
        assert len(busy) == 2
        assert not any(answer.done() for answer in answers), "so that the one that is killed is answering some"
        busy[0].kill()
        assert {answer.result().status_code for answer in answers} == {200}


def replicas() -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if "ServeReplica:skipvision zoo" in process.name()]


@pytest.mark.faults
def test_when_a_replica_dies_nobody_waits_in_vain_and_another_has_its_place(service):
    pid = json.loads(_settled_text(service))["pid"]

    def ask(number: int) -> int:
        with service.client() as client:
            return client.post(
                "/v1/chat/completions", json=body(max_tokens=500, temperature=2, seed=number)
            ).status_code

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, number) for number in range(4)]
        time.sleep(0.5)
        service.in_cluster(f"import os; os.kill({pid}, 9)")
        assert {answer.result() for answer in answers} <= {200, 503}
    assert ask(9) == 200


def _settled_text(service: Service) -> str:
    """The replica's figures once nothing is asked any more."""
    return service.in_cluster(
        """
        import json, time
        while (stats := replicas.stats.remote().result())["running"] or stats["waiting"] or stats["listeners"]:
            time.sleep(0.1)
        print(json.dumps(stats))
        """
    )


def _settled(service: Service) -> dict:
    settled: dict = json.loads(_settled_text(service))
    return settled


def test_errors_reach_openais_client_as_its_own_exceptions(openai):
    with pytest.raises(APIStatusError) as refused:
        openai.chat.completions.create(model="zoo", messages=[{"role": "user", "content": "x"}], temperature=9)
    assert (refused.value.status_code, refused.value.code, refused.value.param) == (400, "invalid_value", "temperature")
