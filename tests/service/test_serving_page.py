"""What docs/serving.md shows is true of the service."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from openai import OpenAI

from service.config import ServiceConfig
from service.errors import RENAMED
from skipvision.config import check
from skipvision.metrics import ERROR_CODES
from tests.service.conftest import KEYS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_client_of_the_page_is_answered(service, picture_url, capsys, monkeypatch):
    [code] = [text for kind, text in BLOCKS if kind == "python"]
    code = code.replace("http://127.0.0.1:8000", service.address).replace('"none"', repr(KEYS["full"]))
    exec(code, {"picture": picture_url, "OpenAI": OpenAI})
    answer, saved = capsys.readouterr().out.strip().rsplit(" ", 1)
    assert "star" in answer
    assert int(saved) > 100


def test_the_settings_of_the_page_are_settings():
    settings, deployed = (yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml")
    assert check(settings, ServiceConfig, origin="the page").tenants[0].name == "search"
    [application] = deployed["applications"]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(__import__(module), name))
    assert check(application["args"], ServiceConfig, origin="the page").models[0].max_replicas == 2


def test_codes_that_the_page_names_exist():
    table = PAGE.partition("## What goes wrong")[2].partition("## Settings")[0]
    named = set(re.findall(r"^\| [0-9, ]+ \| (.*?) \|", table, re.MULTILINE))
    codes = {code for cell in named for code in re.findall(r"`(\w+)`", cell)}
    sources = "".join(path.read_text() for path in (ROOT / "service").glob("*.py"))
    assert len(codes) > 20
    assert {code for code in codes if f'"{code}"' not in sources} <= {*ERROR_CODES, *RENAMED.values()}
