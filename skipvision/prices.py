"""What GPUs and CPU cores cost: a dated list of the user's own, named with every figure that is counted with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from skipvision.config import load
from skipvision.errors import ConfigError
from skipvision.metrics import BASES, BUDGET, PRICE, PRICE_LIST, Recorder, Registry
from skipvision.metrics.catalogue import BASELINE_COST, BASELINE_DEVICE_SECONDS, COST, DEVICE_SECONDS

Capacity = Literal["on_demand", "spot"]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]
DeviceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]

CPU, GPU = "cpu", "gpu"
CAPACITIES: tuple[Capacity, ...] = ("on_demand", "spot")


@dataclass(frozen=True, kw_only=True, slots=True)
class PricePerHour:
    """Of one GPU or one CPU core, in US dollars."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    on_demand: Usd
    spot: Usd | None = None
    """None: as on demand."""

    def of(self, capacity: str) -> float:
        return self.on_demand if capacity != "spot" or self.spot is None else self.spot


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceList:
    """Prices, who says so, and since when."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """What figures call it."""

    since: date
    """The day from which the prices were taken."""

    source: str = ""
    """Where from, for people."""

    usd_per_hour: Mapping[DeviceName, PricePerHour]
    """`cpu` is one core, `gpu` any GPU that is not named; others are kinds of GPU as Ray calls them, in lower case."""

    budget_usd_per_day: Usd | None = None
    """More than that in a day, and an alert says so. None: there is no budget."""

    def __post_init__(self) -> None:
        if missing := [name for name in (CPU, GPU) if name not in self.usd_per_hour]:
            raise ConfigError(
                f"the price list {self.name} has no price for {' and '.join(missing)}; it needs cpu, one core, and "
                "gpu, any GPU that is not named"
            )

    def __str__(self) -> str:
        return f"{self.name} of {self.since.isoformat()}"

    def device(self, kind: str) -> str:
        """What a kind of device is called in the list."""
        return kind if kind in self.usd_per_hour else GPU

    def usd(self, device: str, capacity: str, seconds: float) -> float:
        """What a device costs for so many seconds."""
        return self.usd_per_hour[self.device(device)].of(capacity) * seconds / 3600


def load_prices(file: str | None) -> PriceList | None:
    """The list in a YAML file; None where none is named.

    Raises:
        ConfigError: it cannot be read, or a value is wrong.
    """
    return None if file is None else load(Path(file), PriceList)


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Seconds for which devices of one kind were held, times how many of them there were."""

    device: str
    """`cpu`, or a kind of GPU in lower case."""
    capacity: str
    busy: float
    idle: float
    modelled: float
    """The same with all visual tokens, busy and idle, by formula."""
    measured: float | None = None
    """The same as measured; None: it was not."""

    @property
    def seconds(self) -> float:
        return self.busy + self.idle


@dataclass(frozen=True, kw_only=True, slots=True)
class Money:
    """US dollars, by a price list."""

    spent: float = 0.0
    modelled: float = 0.0
    """With all visual tokens, by formula; and as measured, None where it was not:"""
    measured: float | None = None


class Till:
    """Enters what was held, and what it cost, for one piece of work.

    Args:
        recorder: of the work.
        prices: None: seconds are counted and money is not.
    """

    def __init__(self, recorder: Recorder, prices: PriceList | None) -> None:
        self._recorder, self._prices = recorder, prices

    def open(self) -> None:
        """Have every device that may be held stand at 0."""
        for device in self._prices.usd_per_hour if self._prices else (CPU, GPU):
            for capacity in CAPACITIES:
                self._recorder.within(device=device, capacity=capacity)

    def enter(self, held: Held) -> None:
        """Count seconds and money, and what they would have been. What was not measured is not entered as measured."""
        device = self._device(held)
        to = self._recorder.within(device=device, capacity=held.capacity)
        to.add(DEVICE_SECONDS, held.busy, state="busy", basis="measured")
        to.add(DEVICE_SECONDS, held.idle, state="idle", basis="measured")
        to.add(COST, self._usd(held, held.seconds), basis="measured")
        self.enter_baseline(held, "modelled")
        if held.measured is not None:
            self.enter_baseline(held, "measured")

    def enter_baseline(self, held: Held, basis: str) -> None:
        """Count only what it would have been with all visual tokens."""
        assert basis in BASES, basis
        seconds = held.measured if basis == "measured" else held.modelled
        assert seconds is not None, "what was not measured has no baseline of that kind"
        to = self._recorder.within(device=self._device(held), capacity=held.capacity)
        to.add(BASELINE_DEVICE_SECONDS, seconds, basis=basis)
        to.add(BASELINE_COST, self._usd(held, seconds), basis=basis)

    def _device(self, held: Held) -> str:
        if self._prices is not None:
            return self._prices.device(held.device)
        return CPU if held.device == CPU else GPU

    def _usd(self, held: Held, seconds: float) -> float:
        return 0.0 if self._prices is None else self._prices.usd(held.device, held.capacity, seconds)


def money_of(held: list[Held], prices: PriceList) -> Money:
    """What was held, in dollars."""

    def usd(seconds: Iterator[float]) -> float:
        return math.fsum(prices.usd(h.device, h.capacity, s) for h, s in zip(held, seconds, strict=True))

    measured = [h.measured for h in held if h.measured is not None]
    return Money(
        spent=usd(h.seconds for h in held),
        modelled=usd(h.modelled for h in held),
        measured=usd(iter(measured)) if len(measured) == len(held) and held else None,
    )


def publish_prices(registry: Registry, prices: PriceList | None) -> None:
    """Say what things cost, and may cost."""
    if prices is None:
        return
    taken = datetime.combine(prices.since, datetime.min.time(), UTC).timestamp()
    registry.set(PRICE_LIST, taken, price_list=prices.name)
    for device, price in prices.usd_per_hour.items():
        for capacity in CAPACITIES:
            registry.set(PRICE, price.of(capacity), device=device, capacity=capacity)
    if prices.budget_usd_per_day is not None:
        registry.set(BUDGET, prices.budget_usd_per_day)
