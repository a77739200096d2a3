"""The files that Ray Serve and the batch job are given hold what their readers take, and nothing unknown."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from k8s.rendering import HERE, UNITS
from service.config import ServiceConfig
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError

SERVE = sorted(HERE.glob("*/**/serve.yaml"))
JOBS = sorted(HERE.glob("*/**/job.yaml"))


def unknown_keys(value: Any, kind: Any, place: str = "") -> list[str]:
    """Keys that a model of Ray's passes over in silence."""
    models = [each for each in (kind, *_inner(kind)) if isinstance(each, type) and issubclass(each, BaseModel)]
    if isinstance(value, list):
        return [key for number, each in enumerate(value) for key in unknown_keys(each, kind, f"{place}{number}.")]
    if not models or not isinstance(value, dict):
        return []
    fields = models[0].model_fields
    found = [f"{place}{key}" for key in value.keys() - fields.keys()]
    for key in value.keys() & fields.keys():
        found += unknown_keys(value[key], fields[key].annotation, f"{place}{key}.")
    return found


def _inner(kind: Any) -> list[Any]:
    return [each for arg in get_args(kind) for each in (arg, *_inner(arg))]


@pytest.mark.parametrize("path", SERVE, ids=lambda path: str(path.relative_to(HERE)))
def test_a_serve_config_is_one_that_ray_serve_takes_whole(path):
    config = yaml.safe_load(path.read_text())
    ServeDeploySchema.model_validate(config)
    assert unknown_keys(config, ServeDeploySchema) == []
    assert [each["import_path"] for each in config["applications"]] == ["service:application"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"proxy_locaton": "EveryNode"}, "proxy_locaton"),
        ({"http_options": {"prot": 8000}}, "http_options.prot"),
        ({"applications": [{"import_path": "a:b", "rout_prefix": "/"}]}, "applications.0.rout_prefix"),
    ],
)
def test_a_key_that_ray_serve_passes_over_is_named(wrong, named):
    assert unknown_keys(wrong, ServeDeploySchema) == [named]


@pytest.mark.parametrize("path", SERVE, ids=lambda path: str(path.relative_to(HERE)))
def test_its_arguments_are_settings_of_the_service(path):
    [application] = yaml.safe_load(path.read_text())["applications"]
    check(application["args"], ServiceConfig, origin=str(path))
    with pytest.raises(ConfigError, match="metrics_prot"):
        check(application["args"] | {"metrics_prot": 9400}, ServiceConfig, origin=str(path))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: str(path.relative_to(HERE)))
def test_a_job_file_holds_settings_of_a_job(path):
    settings = yaml.safe_load(path.read_text())
    check(settings, JobConfig, origin=str(path))
    with pytest.raises(ConfigError, match="rows_per_shart"):
        check(settings | {"rows_per_shart": 1}, JobConfig, origin=str(path))


def test_the_import_path_leads_to_the_application():
    import service

    assert callable(service.application)


def test_each_overlay_runs_one_of_the_files():
    texts = {path.read_text() for path in SERVE}
    for unit in UNITS:
        if unit.is_overlay:
            [api] = [each for each in unit.manifests() if each["kind"] == "RayService"]
            assert api["spec"]["serveConfigV2"] in texts


def test_the_price_list_is_the_example():
    assert (HERE / "base/config/prices.yaml").read_text() == (HERE.parent / "examples/prices.yaml").read_text()
