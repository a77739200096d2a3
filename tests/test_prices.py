"""Price lists are checked before anything starts, and money is seconds times prices, measured and modelled apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from skipvision import metrics
from skipvision.errors import ConfigError
from skipvision.metrics import Registry
from skipvision.prices import Held, Till, load_prices, money_of, publish_prices

EXAMPLE = Path(__file__).parents[1] / "examples" / "prices.yaml"
WORK = {"workload": "batch", "model": "m", "skip": "44/69"}


def written(folder: Path, **changes: object) -> str:
    settings = yaml.safe_load(EXAMPLE.read_text()) | changes
    (folder / "prices.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
    return str(folder / "prices.yaml")


def held(**changes: object) -> Held:
    return Held(**{"device": "cpu", "capacity": "spot", "busy": 3000.0, "idle": 600.0, "modelled": 7200.0, **changes})


def test_the_example_has_a_name_a_day_and_prices():
    prices = load_prices(str(EXAMPLE))
    assert str(prices) == "example of 2026-11-01"
    assert prices.usd("h200", "spot", 3600) == 1.6
    assert prices.usd("cpu", "on_demand", 900) == 0.01


def test_no_list_is_no_list():
    assert load_prices(None) is None


def test_a_kind_of_gpu_that_is_not_named_costs_what_any_does():
    prices = load_prices(str(EXAMPLE))
    assert prices.usd("b200", "on_demand", 3600) == 2.0
    assert prices.device("b200") == "gpu"


def test_what_has_no_spot_price_costs_the_same_on_spot(tmp_path):
    prices = load_prices(written(tmp_path, usd_per_hour={"cpu": {"on_demand": 0.04}, "gpu": {"on_demand": 2}}))
    assert prices.usd("gpu", "spot", 3600) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"usd_per_hour": {"cpu": {"on_demand": 1}}}, "has no price for gpu; it needs cpu, one core, and gpu"),
        ({"usd_per_hour": {"cpu": {"on_demand": -1}, "gpu": {"on_demand": 1}}}, "usd_per_hour.cpu.on_demand"),
        ({"usd_per_hour": {"H100": {"on_demand": 1}}}, "usd_per_hour.H100"),
        ({"since": "some day"}, "since: "),
        ({"since": None}, "since: Field required"),
        ({"name": ""}, "name: "),
        ({"budget_usd_per_day": float("nan")}, "budget_usd_per_day: "),
        ({"currency": "EUR"}, "currency: "),
    ],
)
def test_a_list_that_is_wrong_is_refused_with_the_place(tmp_path, changes, says):
    with pytest.raises(ConfigError, match=says):
        load_prices(written(tmp_path, **changes))


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml cannot be read"):
        load_prices(str(tmp_path / "gone.yaml"))


def test_seconds_and_money_are_entered_beside_their_baseline():
    registry = Registry()
    Till(registry.within(**WORK), load_prices(str(EXAMPLE))).enter(held())
    device = {**WORK, "device": "cpu", "capacity": "spot"}
    value = registry.value
    assert value(metrics.DEVICE_SECONDS, **device, state="busy", basis="measured") == 3000
    assert value(metrics.DEVICE_SECONDS, **device, state="idle", basis="measured") == 600
    assert value(metrics.COST, **device, basis="measured") == pytest.approx(0.012)
    assert value(metrics.BASELINE_COST, **device, basis="modelled") == pytest.approx(0.024)
    assert value(metrics.BASELINE_COST, **device, basis="measured") == 0, "it was not measured"


def test_without_a_list_seconds_are_counted_and_money_is_not():
    registry = Registry()
    Till(registry.within(**WORK), None).enter(held(device="h200", measured=5000.0))
    device = {**WORK, "device": "gpu", "capacity": "spot"}
    assert registry.value(metrics.DEVICE_SECONDS, **device, state="busy", basis="measured") == 3000
    assert registry.value(metrics.BASELINE_DEVICE_SECONDS, **device, basis="measured") == 5000
    assert registry.value(metrics.COST, **device, basis="measured") == 0


def test_every_device_of_the_list_stands_at_zero_before_it_is_held():
    registry = Registry()
    Till(registry.within(**WORK), load_prices(str(EXAMPLE))).open()
    lines = [line for line in registry.text().splitlines() if line.startswith("skipvision_cost_usd_total{")]
    assert len(lines) == 4 * 2
    assert all(line.endswith(" 0.0") for line in lines)


def test_money_that_was_measured_in_part_is_not_called_measured():
    prices = load_prices(str(EXAMPLE))
    assert money_of([held(measured=7200.0), held(measured=3600.0)], prices).measured == pytest.approx(0.036)
    assert money_of([held(measured=7200.0), held()], prices).measured is None
    assert money_of([], prices).spent == 0


def test_what_things_cost_is_published_with_its_day():
    registry = Registry()
    publish_prices(registry, load_prices(str(EXAMPLE)))
    assert registry.value(metrics.PRICE, device="h100", capacity="spot") == 1.2
    assert registry.value(metrics.PRICE_LIST, price_list="example") == 1793491200
    assert registry.value(metrics.BUDGET) == 100
