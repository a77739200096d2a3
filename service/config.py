"""Settings of the service: which models, where it listens, who may ask, and what a request may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from monitoring.publishing import Publishing
from service.auth import TenantConfig
from skipvision.config import Skip
from skipvision.errors import ConfigError
from skipvision.image_formats import OptionalFormat
from skipvision.prices import load_prices
from skipvision.tracing import check_address

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One model that requests may name, and the replicas that answer with it."""

    name: Name | None = None
    """What requests call it. None: the hub id, or the name of the folder."""

    model: str | None = None
    """Checkpoint folder or hub id. None: the model that ships with the package."""

    skip: Skip = "auto"
    """Of requests that do not say: `off`, `R/S` such as `100/156`, a reduction such as `uniform:64`, or `auto`: what
    the checkpoint carries."""

    adapters: Mapping[Name, str] = field(default_factory=dict)
    """LoRA adapters, name -> folder as peft saves it; requests name one as a model of its own, `model:adapter`."""

    device: str = "auto"
    """`auto`: a GPU where the cluster has any, else the CPU; or a torch device name."""

    dtype: str = "auto"
    """`auto`, `float32`, `bfloat16` or `float16`."""

    max_running: Annotated[int, Field(ge=1)] = 32
    """Requests that one replica answers at a time."""

    max_waiting: Annotated[int, Field(ge=1)] = 256
    """Requests that may wait at one replica; further ones are told to come again."""

    cpus: Annotated[float, Field(gt=0)] = 1.0
    """Of Ray's, for each replica on a CPU; also the threads it computes with."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    """0: none while nobody asks; the next request waits until one has started."""

    max_replicas: Annotated[int, Field(ge=1)] = 1

    target_tokens: Annotated[int, Field(ge=1)] = 32_768
    """Tokens in flight, prompts and answers that may follow, for one replica; with more, another starts."""

    upscale_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long there must be more to do before another replica starts. The first one starts at once."""

    downscale_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long there must be less to do before a replica is taken away."""

    zero_seconds: Annotated[float, Field(ge=0)] = 600.0
    """How long nobody must have asked before the last replica is taken away, with `min_replicas: 0`."""

    stall_seconds: Seconds = 120.0
    """Longest step of an engine; longer, and its replica is taken for hung and replaced."""

    def __post_init__(self) -> None:
        if self.min_replicas > self.max_replicas:
            raise ConfigError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}; the most cannot be fewer"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceConfig:
    """One service."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    models: tuple[ModelConfig, ...] = (ModelConfig(),)

    host: str = "127.0.0.1"
    """Address to listen at. One that others can reach needs `tenants`, or `insecure`."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8000

    insecure: bool = False
    """Answer everybody who reaches the address, without keys."""

    tenants: tuple[TenantConfig, ...] = ()
    """Who may ask, by API key, and how much. None: everybody, without a key, as `anonymous` says."""

    anonymous: TenantConfig = field(default_factory=lambda: TenantConfig(name="anonymous"))
    """What may be asked where no tenants are set; it has no keys."""

    ledger: str | None = None
    """File in which the tenants' daily budgets are kept. None: in memory, until the service ends."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    """Of requests that do not say. 0 always takes the likeliest token."""

    max_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest answer of requests that do not say."""

    most_tokens: Annotated[int, Field(ge=1)] = 4096
    """Longest answer that a request may ask for."""

    most_answers: Annotated[int, Field(ge=1, le=128)] = 8
    """Answers to one request."""

    most_images: Annotated[int, Field(ge=0)] = 16
    """Images in one request."""

    most_text: Annotated[int, Field(ge=1)] = 262_144
    """Characters of all messages of a request together."""

    max_body_mib: Annotated[int, Field(ge=1, le=256)] = 32
    """Size of a request."""

    body_seconds: Seconds = 20.0
    """Longest time between two parts of a request as it comes in."""

    request_seconds: Seconds = 300.0
    """Longest time for a request, from its last byte in to its last byte out."""

    max_queued: Annotated[int, Field(ge=1)] = 1024
    """Requests that may wait in a door, while replicas start or are full; further ones are told to come again."""

    allow_http: bool = False
    """Fetch images at http:// addresses too, whose answers others on the way could change."""

    deny_networks: tuple[str, ...] = ()
    """Networks that image addresses may not point into although they are public."""

    image_formats: tuple[OptionalFormat, ...] = ()
    """Formats to read beside JPEG, PNG, WebP, GIF, BMP and TIFF: AVIF, and HEIC, which needs `skipvision[heif]`."""

    decode_seconds: Seconds = 10.0
    """Longest time that one image may take to decode."""

    decode_memory_mib: Annotated[int, Field(ge=64)] = 1024
    """Most memory that decoding one image may take."""

    decoders: Annotated[int, Field(ge=1)] = 2
    """Images that a door decodes at a time, each in a process of its own."""

    drain_seconds: Seconds = 60.0
    """How long a replica or a door that is taken away may take to finish what it has begun."""

    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port at which the cluster's metrics hub answers `/metrics`, to anybody who reaches it; it is started if the
    cluster has none. None: numbers go to the hub that is there, and nowhere if none is."""

    metrics_host: str = "127.0.0.1"
    """Address of that port."""

    metrics_totals: str | None = None
    """File on the head node that the hub keeps its totals in, across its own restarts. None: in memory."""

    prices: str | None = None
    """A price list (YAML), by which money is counted. None: seconds are counted, and money is not."""

    traces: str | None = None
    """Address of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318, to which a trace
    of each request is sent. None: none is made."""

    traces_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the requests that bring no `traceparent`; where one is brought, it decides."""

    ray_address: str | None = None
    """A running Ray cluster. None: start Ray on this machine for the time of the service."""

    def publishing(self) -> Publishing:
        """Where numbers go. Reads the price list.

        Raises:
            ConfigError: it cannot be read, or a value is wrong.
        """
        return Publishing(
            port=self.metrics_port,
            host=self.metrics_host,
            totals=self.metrics_totals,
            prices=load_prices(self.prices),
        )

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("models is empty; name at least one, or leave it out for the model that ships")
        if self.anonymous.key_hashes or self.anonymous.key_files or self.anonymous.key_env:
            raise ConfigError("anonymous has keys, and is for those who have none; put it among the tenants")
        check_address(self.traces)
        if self.metrics_port == self.port:
            raise ConfigError(f"metrics_port is {self.port}, where requests are answered; choose another")
        if self.max_tokens > self.most_tokens:
            raise ConfigError(f"max_tokens is {self.max_tokens} and most_tokens {self.most_tokens}; raise the latter")
        if not (self.tenants or self.insecure or _is_loopback(self.host)):
            raise ConfigError(
                f"at {self.host} others can reach the service and would need no key: set tenants, listen at "
                "127.0.0.1, or say insecure"
            )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
