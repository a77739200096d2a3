"""The page of the service, in a real browser, against a small server that speaks its contract."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from tests.service.browser import browser, prefer, resize
from tests.service.page_server import ALONE, GRID, RETAINED, TOKENS, PageServer, serving

PATIENCE_SECONDS = 30.0
# A file arrives as the browser would hand it over from another program.
HAND_OVER = """
const [kind, name, type, bytes] = arguments;
const files = new DataTransfer();
files.items.add(new File([new Uint8Array(bytes)], name, { type }));
const event = kind === "drop" ? new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true })
                              : new ClipboardEvent(kind, { clipboardData: files, bubbles: true, cancelable: true });
return !document.body.dispatchEvent(event);
"""


class Visitor:
    """Someone at the page: what they can find, read and press."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self) -> None:
        self.driver.get(self.address)
        self.wait(lambda: self.find("#skip option") or self.shown("#wrong"))

    def find(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return " ".join(found.text for found in self.find(selector))

    def shown(self, selector: str) -> bool:
        return any(found.is_displayed() for found in self.find(selector))

    def press(self, *keys: str) -> None:
        """Press keys one after the other; a modifier is held until the end."""
        actions = ActionChains(self.driver)
        held = [key for key in keys if key in (Keys.CONTROL, Keys.SHIFT)]
        for key in keys:
            actions = actions.key_down(key) if key in held else actions.send_keys(key)
        for key in held:
            actions = actions.key_up(key)
        actions.perform()

    def focus(self) -> str:
        return self.driver.switch_to.active_element.get_attribute("id")

    def try_sample(self) -> None:
        self.one("#try-sample").click()

    def ask(self) -> None:
        self.try_sample()
        self.one("#ask").click()

    def wait(self, happens: Callable[[], Any]) -> Any:
        end = monotonic() + PATIENCE_SECONDS
        while not (found := happens()):
            assert monotonic() < end, f"waited {PATIENCE_SECONDS} s; the page says: {self.text('main')}"
            sleep(0.01)
        return found

    def wait_for_answer(self) -> str:
        self.wait(lambda: self.shown("#bill"))
        return self.text(".lane .said")

    def hand_over(self, kind: str, name: str, data: bytes, *, media_type: str) -> None:
        assert self.driver.execute_script(HAND_OVER, kind, name, media_type, list(data)), "the page must take it"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[PageServer, str]]:
    server = PageServer()
    with serving(server) as address:
        yield server, address


@pytest.fixture
def server(running: tuple[PageServer, str]) -> PageServer:
    running[0].reset()
    return running[0]


@pytest.fixture
def visitor(chromium: Chrome, running: tuple[PageServer, str], server: PageServer) -> Visitor:
    resize(chromium, 1200, 900)
    visitor = Visitor(chromium, running[1])
    visitor.open()
    return visitor


def picture_bytes(width: int, height: int, kind: str = "PNG") -> bytes:
    memory = io.BytesIO()
    Image.new("RGB", (width, height), (30, 120, 90)).save(memory, kind)
    return memory.getvalue()


def test_the_answer_appears_piece_by_piece(visitor, server):
    server.pause_seconds = 0.15
    visitor.ask()
    begun = visitor.wait(lambda: visitor.text(".lane .said"))
    assert server.answer.startswith(begun)
    assert begun != server.answer
    assert visitor.one(".lane .said").get_attribute("aria-busy") == "true"
    visitor.wait(lambda: begun != visitor.text(".lane .said") != server.answer)
    assert visitor.wait_for_answer() == server.answer
    assert visitor.one(".lane .said").get_attribute("aria-busy") == "false"


def test_the_sample_can_be_asked_about_with_the_keyboard_alone(visitor, server):
    for _ in range(20):
        visitor.press(Keys.TAB)
        if visitor.focus() == "try-sample":
            break
    visitor.press(Keys.ENTER)
    assert visitor.focus() == "question"
    visitor.press("What text is written?", Keys.ENTER)
    assert visitor.wait_for_answer() == server.answer
    assert server.asked[0]["messages"][0]["content"][1] == {"type": "text", "text": "What text is written?"}
    assert server.picture()[1].size == (384, 384)


@pytest.mark.slow
def test_every_part_can_be_reached_with_the_keyboard_and_shows_its_focus(visitor):
    reached = {}
    for _ in range(20):
        visitor.press(Keys.TAB)
        style = "const on = document.activeElement.closest('label.button') ?? document.activeElement;"
        reached[visitor.focus()] = visitor.driver.execute_script(f"{style} return getComputedStyle(on).outlineStyle")
    parts = {"try-sample", "file", "question", "skip", "ask", "race", "at-once"}
    assert {part: reached.get(part) for part in parts} == dict.fromkeys(parts, "solid")


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(Keys.CONTROL, Keys.ENTER), (Keys.ENTER,)])
def test_enter_asks_also_with_control(visitor, server, keys):
    visitor.try_sample()
    visitor.press(*keys)
    assert visitor.wait_for_answer() == server.answer


@pytest.mark.slow
def test_shift_and_enter_begin_a_new_line(visitor, server):
    visitor.try_sample()
    visitor.press("one", Keys.SHIFT, Keys.ENTER)
    assert visitor.one("#question").get_attribute("value") == "one\n"
    assert not server.asked


def test_what_became_of_every_token_is_drawn_over_the_picture(visitor):
    visitor.ask()
    visitor.wait_for_answer()
    drawn = {fate: len(visitor.find(f"#stage .cell.{fate}")) for fate in ("retained", "skipped", "merged", "dropped")}
    merged = TOKENS - RETAINED - ALONE
    assert drawn == {"retained": RETAINED, "skipped": ALONE, "merged": merged, "dropped": 0}
    assert f"{RETAINED} retained, {ALONE} skipped, {merged} merged" in visitor.one("#stage").get_attribute("aria-label")
    assert len(visitor.find("#keys li")) == 3


@pytest.mark.slow
def test_the_tokens_can_be_taken_off_the_picture(visitor):
    visitor.ask()
    visitor.wait_for_answer()
    visitor.one("#show-tokens").click()
    assert not visitor.find("#stage .cell")
    visitor.one("#show-tokens").click()
    assert len(visitor.find("#stage .cell")) == TOKENS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ([0.25, 0.0, 0.75, 1.0], [0, 0, 384, 384]),  # cropped: the picture's sides were not seen
        ([0.0, -0.25, 1.0, 1.25], [0, -96, 384, 576]),  # padded: the grid reaches beyond the picture
    ],
)
def test_the_grid_lies_over_the_part_of_the_picture_that_the_model_saw(visitor, server, box, whole):
    server.box = box
    visitor.ask()
    visitor.wait_for_answer()
    grid = visitor.one("#stage .tokens svg")
    left, top, right, bottom = (384 * share for share in box)
    placed = [float(grid.get_attribute(side)) for side in ("x", "y", "width", "height")]
    assert placed == [left, top, right - left, bottom - top]
    assert grid.get_dom_attribute("viewBox") == f"0 0 {GRID} {GRID}"
    assert [float(side) for side in visitor.one("#stage").get_dom_attribute("viewBox").split()] == whole


@pytest.mark.slow
def test_what_it_cost_stands_beside_all_tokens(visitor):
    visitor.ask()
    visitor.wait_for_answer()
    assert "115 of 256" in visitor.text(".lane .read")
    bill = visitor.text("#bill-parts")
    for words in ("141 of 256 not read", "29% of all tokens", "308 MFLOPs", "1.05 GFLOPs", "342 KiB", "prefill"):
        assert words in bill


@pytest.mark.parametrize(("at_once", "most"), [(False, 1), (True, 2)])
def test_a_race_shows_both_answers_and_their_figures(visitor, server, at_once, most):
    visitor.try_sample()
    if at_once:
        visitor.one("#at-once").click()
    visitor.one("#race").click()
    visitor.wait(lambda: visitor.shown("#verdict"))
    assert [found.text for found in visitor.find(".lane .said")] == [server.answer] * 2
    assert [found.text for found in visitor.find(".lane .read")] == ["115 of 256", "256 of 256"]
    for figure in (*visitor.find(".lane .seconds"), *visitor.find(".lane .first")):
        assert float(figure.text.removesuffix(" s")) > 0
    assert "same answer" in visitor.text("#verdict")
    assert sorted(server.skip_settings) == ["44/69", "off"]
    assert server.most_at_once == most
    assert len(visitor.find("#stage .cell.retained")) == RETAINED, "the map is that of the skipping answer"


@pytest.mark.slow
def test_who_chose_all_tokens_still_races_against_skipping(visitor, server):
    visitor.try_sample()
    Select(visitor.one("#skip")).select_by_value("off")
    visitor.one("#race").click()
    visitor.wait(lambda: visitor.shown("#verdict"))
    assert server.skip_settings == ["44/69", "off"]


@pytest.mark.slow
def test_a_model_that_skips_nothing_by_itself_starts_with_that(visitor, server):
    server.skip = "off"
    visitor.open()
    visitor.ask()
    visitor.wait_for_answer()
    assert server.skip_settings == ["off"]
    assert visitor.text(".lane h3") == "All tokens"


def test_an_error_is_said_in_words_and_the_page_goes_on(visitor, server):
    server.refusal = (429, "the queue is full; try again in 2 seconds")
    visitor.ask()
    visitor.wait(lambda: visitor.shown(".lane .wrong"))
    assert visitor.text(".lane .wrong") == "the queue is full; try again in 2 seconds"
    assert not visitor.shown("#stop")
    server.refusal = None
    visitor.one("#ask").click()
    assert visitor.wait_for_answer() == server.answer
    assert not visitor.shown(".wrong")


@pytest.mark.slow
def test_an_error_in_the_middle_keeps_what_was_said(visitor, server):
    server.breaks_off_with = "the engine stopped"
    visitor.ask()
    visitor.wait(lambda: visitor.shown(".lane .wrong"))
    assert visitor.text(".lane .wrong") == "the engine stopped"
    assert visitor.text(".lane .said") == server.answer


@pytest.mark.slow
def test_a_service_that_cannot_be_reached_is_said_too(visitor):
    visitor.try_sample()
    visitor.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        visitor.one("#ask").click()
        visitor.wait(lambda: visitor.shown(".lane .wrong"))
    finally:
        visitor.driver.delete_network_conditions()
    assert "cannot be reached" in visitor.text(".lane .wrong")


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["picture", "question"])
def test_what_is_missing_is_asked_for(visitor, server, missing):
    if missing == "question":
        visitor.try_sample()
    visitor.one("#question").clear()
    visitor.one("#ask").click()
    assert f"First a {missing}" in visitor.text("#wrong")
    assert visitor.focus() == {"picture": "try-sample", "question": "question"}[missing]
    assert not server.asked


def test_markup_in_an_answer_stays_text(visitor, server):
    server.answer = "<img src=x onerror=document.title='gone'> <b>bold</b> & done"
    visitor.ask()
    assert visitor.wait_for_answer() == server.answer
    assert not visitor.find(".lane .said *")
    assert visitor.driver.title != "gone"


def test_nothing_comes_from_elsewhere_and_the_policy_is_kept(visitor, running):
    visitor.driver.get_log("browser")
    visitor.open()
    visitor.try_sample()
    visitor.one("#race").click()
    visitor.wait(lambda: visitor.shown("#verdict"))
    loaded = visitor.driver.execute_script("return performance.getEntriesByType('resource').map(({name}) => name)")
    assert {f"{running[1]}/page/page.js", f"{running[1]}/page/page.css", f"{running[1]}/v1/models"} <= set(loaded)
    assert all(address.startswith((running[1], "data:")) for address in loaded)
    assert visitor.driver.get_log("browser") == []


@pytest.mark.slow
@pytest.mark.parametrize("state", ["empty", "answered", "raced", "refused"])
def test_a_phone_need_not_scroll_sideways(visitor, server, state):
    resize(visitor.driver, 360, 740)
    server.models = ["zoo", "a-model-of-a-very-long-name-in-a-folder/with-another-folder-below-it"]
    server.answer = "An" + "swer" * 40
    server.refusal = (400, "no" * 200) if state == "refused" else None
    visitor.open()
    if state != "empty":
        visitor.try_sample()
        visitor.one("#race" if state == "raced" else "#ask").click()
        visitor.wait(lambda: visitor.shown({"raced": "#verdict", "answered": "#bill"}.get(state, ".lane .wrong")))
    assert visitor.driver.execute_script("return document.documentElement.scrollWidth") == 360


def test_escape_stops_the_answer_and_the_service_notices(visitor, server):
    server.pause_seconds = 0.2
    visitor.ask()
    begun = visitor.wait(lambda: visitor.text(".lane .said"))
    visitor.press(Keys.ESCAPE)
    assert server.hung_up.wait(PATIENCE_SECONDS)
    assert visitor.text(".lane .said").startswith(begun)
    assert len(visitor.text(".lane .said")) < len(server.answer)
    assert not visitor.shown("#stop")
    assert not visitor.shown(".wrong")


@pytest.mark.slow
def test_another_question_takes_the_place_of_the_one_before(visitor, server):
    server.pause_seconds = 0.2
    visitor.ask()
    visitor.wait(lambda: visitor.text(".lane .said"))
    server.pause_seconds, server.answer = 0.01, "yes"
    visitor.one("#ask").click()
    assert visitor.wait_for_answer() == "yes"
    assert server.hung_up.wait(PATIENCE_SECONDS)


@pytest.mark.slow
def test_a_key_is_asked_for_only_where_the_service_wants_one(visitor, server):
    assert not visitor.shown("#key-form")
    server.key = "sesame"
    visitor.ask()
    visitor.wait(lambda: visitor.focus() == "key")
    assert "the API key is missing or unknown" in visitor.text(".lane .wrong")
    visitor.press("wrong", Keys.ENTER)
    visitor.wait(lambda: visitor.shown("#key-form") and visitor.focus() == "key" and visitor.shown(".lane .wrong"))
    visitor.press("sesame", Keys.ENTER)
    assert visitor.wait_for_answer() == server.answer
    assert not visitor.shown("#key-form")
    stored = "return localStorage.length + sessionStorage.length + document.cookie.length"
    assert visitor.driver.execute_script(stored) == 0


@pytest.mark.slow
def test_a_key_may_be_wanted_before_anything_else(visitor, server):
    server.key = "sesame"
    visitor.open()
    visitor.wait(lambda: visitor.focus() == "key")
    visitor.press("sesame", Keys.ENTER)
    visitor.wait(lambda: visitor.find("#skip option"))
    visitor.ask()
    assert visitor.wait_for_answer() == server.answer


@pytest.mark.slow
def test_models_are_chosen_where_there_are_several(visitor, server):
    assert not visitor.shown("#model")
    server.models = ["zoo", "zoo-plain"]
    visitor.open()
    Select(visitor.one("#model")).select_by_value("zoo-plain")
    visitor.ask()
    visitor.wait_for_answer()
    assert server.asked[0]["model"] == "zoo-plain"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(visitor, server, kind):
    data = picture_bytes(60, 40)
    visitor.hand_over(kind, "small.png", data, media_type="image/png")
    visitor.wait(lambda: visitor.shown("#stage"))
    assert "60 × 40 pixels" in visitor.text("#picture-note")
    visitor.one("#ask").click()
    visitor.wait_for_answer()
    media_type, picture = server.picture()
    assert (media_type, picture.size) == ("image/png", (60, 40)), "a small picture goes as it is"


@pytest.mark.slow
def test_a_large_picture_is_made_smaller_and_the_page_says_so(visitor, server, tmp_path):
    file = tmp_path / "large.png"
    file.write_bytes(picture_bytes(3000, 1000))
    visitor.one("#file").send_keys(str(file))
    visitor.wait(lambda: visitor.shown("#stage"))
    assert "3000 × 1000 pixels, made smaller here, to a JPEG of 1536 × 512 pixels" in visitor.text("#picture-note")
    visitor.one("#ask").click()
    visitor.wait_for_answer()
    media_type, picture = server.picture()
    assert (media_type, picture.size) == ("image/jpeg", (1536, 512))
    np.testing.assert_allclose(np.asarray(picture)[256, 768], (30, 120, 90), atol=3)


@pytest.mark.slow
def test_a_file_that_is_no_picture_is_refused_and_the_picture_before_stays(visitor, tmp_path):
    visitor.try_sample()
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    visitor.one("#file").send_keys(str(file))
    visitor.wait(lambda: visitor.shown("#picture-wrong"))
    assert "cannot read that file as a picture" in visitor.text("#picture-wrong")
    assert visitor.shown("#stage image")


@pytest.mark.slow
def test_another_picture_takes_the_answer_away(visitor):
    visitor.ask()
    visitor.wait_for_answer()
    visitor.one("#sample-again").click()
    assert not visitor.find(".lane")
    assert not visitor.find("#stage .cell")
    assert not visitor.shown("#bill")


@pytest.mark.slow
@pytest.mark.parametrize(("wish", "moves"), [("no-preference", True), ("reduce", False)])
def test_who_wants_less_motion_sees_none(visitor, wish, moves):
    prefer(visitor.driver, reduced_motion=wish)
    visitor.ask()
    visitor.wait_for_answer()
    name = visitor.driver.execute_script("return getComputedStyle(document.querySelector('.tokens')).animationName")
    assert (name != "none") is moves


@pytest.mark.slow
def test_the_page_is_dark_for_who_prefers_it(visitor):
    colour = "return getComputedStyle(document.body).backgroundColor"
    prefer(visitor.driver, color_scheme="light")
    light = visitor.driver.execute_script(colour)
    prefer(visitor.driver, color_scheme="dark")
    assert visitor.driver.execute_script(colour) != light


@pytest.mark.parametrize(("program", "package"), [("chromium", "chromium"), ("chromedriver", "chromium-driver")])
def test_a_browser_that_is_missing_is_named_with_its_package(monkeypatch, program, package):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else f"/usr/bin/{name}")
    with pytest.raises(FileNotFoundError, match=f"Debian's package {package}$"), browser():
        pass


def test_the_page_has_no_script_or_style_of_its_own():
    markup = (Path(__file__).parents[2] / "service" / "page" / "index.html").read_text()
    assert not any(words in markup for words in ("<style", "style=", " onclick", "javascript:"))
    assert markup.count("<script") == markup.count('<script type="module" src="page/')
