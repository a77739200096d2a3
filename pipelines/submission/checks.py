"""What is found out before anything is sent: all that `skipvision run` looks at and that can be known from here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict

from pipelines.folder import JobFolder
from pipelines.layout import has_plan, refuse_foreign_folder
from pipelines.model import choose_model
from pipelines.plan import check_same_job, read_plan
from pipelines.sources import find_source
from pipelines.submission.request import JobRequest
from skipvision.config import JobConfig, check
from skipvision.errors import ConfigError
from skipvision.families.checkpoint import SHIPPED_MODELS
from skipvision.fetch import FetchPolicy
from skipvision.prices import load_prices


def check_settings(config: JobConfig) -> None:
    """Refuse settings that are wrong wherever the job would run.

    Raises:
        ConfigError: naming the setting.
    """
    if config.ray_address not in (None, "auto"):
        raise ConfigError(
            f"ray_address is {config.ray_address}, and a job that is submitted runs on the cluster it is sent to; "
            "leave it out"
        )
    FetchPolicy(allow_networks=config.allow_networks, deny_networks=config.deny_networks)
    load_prices(config.prices)
    _check_model(config)


def request_for(config: JobConfig, *, is_this_machine: Callable[[], bool], shared_files: bool) -> JobRequest:
    """The job as it is sent to a cluster.

    Args:
        is_this_machine: whether the cluster is this machine, so that what is not here is not there.
        shared_files: the user says that the cluster has the same files under the same paths.

    Raises:
        ConfigError: a setting names a file that the cluster does not have.
    """
    local = _local_paths(config)
    if local and not shared_files:
        if not is_this_machine():
            raise ConfigError(_not_there(local))
        refuse_foreign_folder(config.output)
        if "input" in local and not has_plan(config.output):
            find_source(config.input)
    absolute = {name: os.path.abspath(path) for name, path in local.items()}
    return JobRequest.of(check(asdict(config) | absolute, JobConfig, origin="the job"))


def _local_paths(config: JobConfig) -> dict[str, str]:
    """Settings that name files of a machine."""
    paths = {name: getattr(config, name) for name in ("input", "output") if "://" not in getattr(config, name)}
    # Any other name is a hub's, which the cluster asks itself.
    if config.model and (os.path.isdir(config.model) or config.model.startswith(("/", "./", "../"))):
        paths["model"] = config.model
    return paths


def _not_there(local: dict[str, str]) -> str:
    """Why paths are refused: answers in a folder of a machine in the cluster would go down with it."""
    named = "\n".join(f"  {name}: {path} is a path of this machine" for name, path in local.items())
    return (
        f"the cluster is not known to have these files:\n{named}\nname a store such as s3://bucket/folder, or, if all "
        "machines of the cluster have the same folders under the same paths, say --shared-files"
    )


def _check_model(config: JobConfig) -> None:
    """Settings that do not fit the model, or a job that stands in the output, where both can be seen from here."""
    if config.model is not None and config.model not in SHIPPED_MODELS and not os.path.isdir(config.model):
        return
    model = choose_model(config)
    try:
        planned = has_plan(config.output)
    except ConfigError:
        return  # the cluster may read what this machine may not
    if planned:
        check_same_job(read_plan(JobFolder(config.output)), config, model)
