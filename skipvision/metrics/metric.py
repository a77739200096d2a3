"""What a published number is: its name, kind, unit and meaning, and the labels it may carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "latest"]

RESERVED_LABELS = frozenset({"job", "instance", "le", "quantile"})
"""Prometheus and its exporters own these label names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One published number: its name, meaning and the labels it may carry."""

    name: str
    """Prefix `skipvision_`, base unit in the name, `_total` at the end of a counter."""

    kind: Kind
    unit: str
    help: str

    named: tuple[str, ...] = ()
    """Labels whose values come from settings, such as the model's name: few, and known before anything is counted."""

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Label name -> every value it may take: closed sets, so that each series exists from the start."""

    pairs: tuple[tuple[str, ...], ...] = ()
    """The combinations of `labels` that there are, where not all of them are."""

    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending; the open one above them is implied."""

    merge: Merge = "sum"
    """How a gauge's values from several processes become one: of those that live, added up or the highest; or what was
    said last, which stays when the process is gone."""

    def __post_init__(self) -> None:
        assert self.name.startswith("skipvision_"), self.name
        assert self.name.endswith("_total") == (self.kind == "counter"), self.name
        assert bool(self.buckets) == (self.kind == "histogram"), self.name
        assert not RESERVED_LABELS & {*self.labels, *self.named}, self.name
        assert not set(self.labels) & set(self.named), self.name

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of a series, in order."""
        return (*self.named, *self.labels)

    def series(self) -> Iterator[tuple[str, ...]]:
        """Every combination of the values of `labels`."""
        return iter(self.pairs) if self.pairs else product(*self.labels.values())
