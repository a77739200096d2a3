"""Take the picture of the page that stands in the docs: `python -m tests.service.photograph [FILE]`.

Without the address of a service, one that only repeats a sentence stands in for it, and no figure in the picture is
a measurement.
"""

from __future__ import annotations

import argparse
import base64
import io
from contextlib import nullcontext
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.browser import browser, prefer, resize
from tests.service.page_server import PageServer, serving

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "page.png"


def photograph(driver: Chrome, address: str, *, width: int, dark: bool) -> Image.Image:
    """Race on the sample, and take the whole page."""
    prefer(driver, color_scheme="dark" if dark else "light", reduced_motion="reduce")
    resize(driver, width, 900)
    driver.get(address)
    driver.find_element(By.ID, "try-sample").click()
    driver.find_element(By.ID, "race").click()
    WebDriverWait(driver, 60).until(lambda page: page.find_element(By.ID, "verdict").is_displayed())
    driver.execute_script("document.activeElement.blur()")
    resize(driver, width, driver.execute_script("return document.documentElement.scrollHeight"))
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    return Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=PICTURE)
    parser.add_argument("--address", help="of a service that runs; without it, a stand-in's")
    parser.add_argument("--width", type=int, default=1200, help="pixels")
    parser.add_argument("--dark", action="store_true", help="as a visitor sees it who prefers dark")
    wish = parser.parse_args()
    stand_in = PageServer()
    stand_in.pause_seconds = 0.08
    service = nullcontext(wish.address) if wish.address else serving(stand_in)
    with service as address, browser() as driver:
        picture = photograph(driver, address, width=wish.width, dark=wish.dark)
    picture.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(wish.file, optimize=True)


if __name__ == "__main__":
    main()
