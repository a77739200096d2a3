"""A real browser without a window, for tests of the page and for its picture in the docs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@contextmanager
def browser() -> Iterator[Chrome]:
    """Start Chromium and end it again. Its console is kept, to be read once."""
    options = ChromeOptions()
    options.binary_location = _program("chromium", package="chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ARGUMENTS:
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(_program("chromedriver", package="chromium-driver")))
    try:
        yield driver
    finally:
        driver.quit()


def resize(driver: Chrome, width: int, height: int) -> None:
    """Give the page exactly this many pixels, fewer than a window could have too."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(driver: Chrome, **features: str) -> None:
    """Let the visitor prefer, for example, `color_scheme="dark"`."""
    wishes = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wishes})


def _program(name: str, *, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"tests of the page need {name}: install Debian's package {package}")
    return found
