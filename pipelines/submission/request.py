"""What is sent: the settings of one job, its price list, and the id under which it is found again.

The id comes from the job's output alone, as the output is what the job is: whoever sends the same job again finds the
one that is there instead of starting a second.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from pipelines.folder import name_of
from skipvision.config import JobConfig
from skipvision.errors import ConfigError

MAX_ID = 47
"""Characters that KubeRay accepts in the name of a RayJob."""
MAX_BYTES = 64 << 10
"""Of settings and price list together. Both travel in one command line, of which Linux takes twice as much."""

_HASH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """One job as it is sent, whoever reads it there."""

    settings: Mapping[str, Any]
    """Those of `JobConfig` that are not at their defaults, without `ray_address` and `prices`: where they are is known
    only where the job runs."""
    prices: Mapping[str, Any] | None = None
    """The content of the price list."""

    @classmethod
    def of(cls, config: JobConfig) -> JobRequest:
        """The job of some settings.

        Raises:
            ConfigError: the price list cannot be read, or there is more than a command line takes.
        """
        values = asdict(config)
        settings = {
            field.name: list(value) if isinstance(value := values[field.name], tuple) else value
            for field in fields(JobConfig)
            if field.name not in ("ray_address", "prices") and values[field.name] != field.default
        }
        prices = None if config.prices is None else yaml.safe_load(Path(config.prices).read_text(encoding="utf-8"))
        request = cls(settings=settings, prices=prices)
        if (size := len((request.job_file() + (request.price_file() or "")).encode())) > MAX_BYTES:
            raise ConfigError(
                f"the job file and its price list have {size:,} bytes, and {MAX_BYTES:,} can be sent; a long prompt "
                "can stand in a column of the input (prompt_column)"
            )
        return request

    @classmethod
    def from_files(cls, job: str, prices: str | None) -> JobRequest:
        """The inverse of `job_file` and `price_file`."""
        return cls(settings=yaml.safe_load(job), prices=yaml.safe_load(prices) if prices else None)

    @property
    def output(self) -> str:
        return str(self.settings["output"])

    @property
    def name(self) -> str:
        """What dashboards call the job."""
        return str(self.settings.get("name") or name_of(self.output))

    @property
    def id(self) -> str:
        return job_id(self.output)

    def job_file(self, **more: str) -> str:
        """The job file, with settings that are known only where it runs."""
        return yaml.safe_dump({**self.settings, **more}, sort_keys=False, allow_unicode=True)

    def price_file(self) -> str | None:
        return None if self.prices is None else yaml.safe_dump(dict(self.prices), sort_keys=False, allow_unicode=True)

    def differences(self, other: JobRequest) -> list[str]:
        """The names of settings in which two jobs differ."""
        names = {*self.settings, *other.settings}
        differ = sorted(name for name in names if self.settings.get(name) != other.settings.get(name))
        return differ if self.prices == other.prices else [*differ, "prices"]


def job_id(output: str) -> str:
    """The id of the job that stands at an address: a DNS label that begins with a letter.

    >>> job_id("s3://photos/Captions 2026/")
    'captions-2026-82f9b44e'
    """
    address = output.rstrip("/")
    words = re.sub(r"[^a-z0-9]+", "-", name_of(address).lower()).strip("-")
    if not words[:1].isalpha():
        words = f"job-{words}".rstrip("-")
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH]
    return f"{words[: MAX_ID - _HASH - 1].rstrip('-')}-{digest}"
