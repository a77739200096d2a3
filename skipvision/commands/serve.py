"""`skipvision serve`: the service, from a settings file, from flags, or from both."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from skipvision.config import check, load
from skipvision.errors import ConfigError


def serve(
    settings_file: Annotated[
        Path | None, typer.Argument(help="Settings (YAML) as docs/serving.md lists them.", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: 8000.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint folder or hub id. Default: the model that ships.")
    ] = None,
    skip: Annotated[
        str | None, typer.Option(help="R/S such as 100/156, uniform:64, off, or auto: what the checkpoint carries.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Answer everybody who reaches the address, without keys.")
    ] = False,
) -> None:
    """Answer over HTTP, as OpenAI's API does, until it is stopped. Flags stand above what the file says."""
    if find_spec("ray") is None or find_spec("fastapi") is None:
        raise ConfigError(
            "the service stands on Ray Serve, which is not installed here: pip install 'skipvision[serve]'"
        )
    from service.config import ServiceConfig
    from service.running import run

    given: dict[str, Any] = {
        name: value for name, value in {"host": host, "port": port, "insecure": insecure or None}.items() if value
    }
    if model is not None or skip is not None:
        given["models"] = [{name: value for name, value in {"model": model, "skip": skip}.items() if value is not None}]
    if settings_file is None:
        run(check(given, ServiceConfig, origin="the command line"))
    elif not given:
        run(load(settings_file, ServiceConfig))
    else:
        settings = asdict(load(settings_file, ServiceConfig)) | given
        run(check(settings, ServiceConfig, origin=f"{settings_file} with the flags"))


def key() -> None:
    """Make an API key: print it, and the hash that goes into the settings in its place."""
    from service.auth import new_key

    made, hashed = new_key()
    print(f"key (for whoever asks; it is kept nowhere): {made}\nfor key_hashes of a tenant: {hashed}")
