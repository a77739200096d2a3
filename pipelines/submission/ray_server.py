"""The job server of a Ray cluster: where it is, its token, and what goes wrong on the way, in this program's words."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from skipvision.errors import ConfigError, JobStoppedError

VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Where the address is looked for that no flag names; Ray itself reads them in this order."""

_ANSWER_SECONDS = 30.0
_STATISTICS_SECONDS = 20.0
"""A node that has just started has not said yet what machine it is."""


class JobServer(JobSubmissionClient):
    """Ray's client, which waits for an answer no longer than it should, and says plainly that there was none."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> requests.Response:
        try:
            return super()._do_request(method, endpoint, timeout=_ANSWER_SECONDS, **more)
        except (requests.RequestException, OSError) as error:
            raise JobStoppedError(
                f"Ray's job server at {self._address} does not answer; the job goes on as long as its cluster does"
            ) from error

    @property
    def address(self) -> str:
        return str(self._address)

    def log(self, submission_id: str) -> AsyncIterator[str]:
        """Pieces of a job's log from its start on, until the job is over."""
        return self.tail_job_logs(submission_id)

    def is_this_machine(self) -> bool:
        """Whether every node of the cluster is on this machine, by its name and the time it was switched on."""
        until = time.monotonic() + _STATISTICS_SECONDS
        while True:
            answer = self._do_request("GET", "/nodes?view=summary")
            nodes = answer.json().get("data", {}).get("summary", []) if answer.status_code == 200 else []
            alive = [node for node in nodes if node.get("raylet", {}).get("state") == "ALIVE"]
            told = {(node.get("hostname"), node.get("bootTime")) for node in alive}
            if (told and (None, None) not in told) or time.monotonic() > until:
                return told == {(socket.gethostname(), _switched_on())}
            time.sleep(0.5)


def connect(address: str | None) -> JobServer:
    """The job server at an address.

    Args:
        address: `http://host:8265`. None: what the environment says.

    Raises:
        ConfigError: nobody answers there, it is no job server, or it wants another token.
    """
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.WARNING)
    named = address or next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)
    if named is None:
        raise ConfigError("no cluster is named: say --address http://host:8265, or set RAY_API_SERVER_ADDRESS")
    if address is not None and not address.startswith(("http://", "https://")):
        raise ConfigError(f"--address is {address}; it is the web address of Ray's job server, http://host:8265")
    try:
        with _address_in_environment(named):
            return JobServer(headers=_token())
    except AuthenticationError as error:
        raise ConfigError(
            f"the job server at {named} wants a token, and it is not the one found here: set RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH, to the token of the cluster"
        ) from error
    except JobStoppedError as error:
        raise ConfigError(f"no Ray job server answers at {named}; see that its address and port are right") from error
    except (requests.RequestException, RuntimeError, ValueError, KeyError, OSError) as error:
        raise ConfigError(f"what answers at {named} is not Ray's job server: {_last_line(error)}") from error


def _token() -> dict[str, str]:
    """The header with the token that Ray finds on this machine; nothing where there is none, or Ray is told not to.

    Ray's own client sends it only where a variable asks for it, while clusters want one as soon as they find one.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return {}
    return dict(AuthenticationTokenLoader.instance().get_token_for_http_header(ignore_auth_mode=True))


@contextmanager
def _address_in_environment(address: str) -> Iterator[None]:
    """Ray's client heeds its argument only where no variable names another address."""
    name = VARIABLES[0]
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _switched_on() -> float:
    """When this machine was, in seconds since 1970, as nodes of Ray tell it."""
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
