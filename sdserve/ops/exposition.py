"""Metrics as text, by prometheus_client's exposition: OpenMetrics where the scraper asks for it.

The library costs 6 MiB and 64 ms, so the observer alone imports it, at its first scrape. It comes with the extra
`sdserve[metrics]`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from sdserve.ops.families import FAMILIES, Family, Scrape
from sdserve.process.counters import BOUNDS, Row

VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}")


class Exposition:
    """A registry that asks `scrape` each time it is collected."""

    def __init__(self, scrape: Callable[[], Scrape]) -> None:
        self._scrape = scrape
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> list[Metric]:
        """Nothing is collected for being registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        scrape = self._scrape()
        for family in FAMILIES:
            yield _metric(family, scrape)

    def text(self, accept: str) -> tuple[str, bytes]:
        """The content type and the text, in the best format of those that the header field Accept names."""
        encoder, kind = choose_encoder(understood(accept))
        return kind, encoder(self._registry)


def understood(accept: str) -> str:
    """A header field Accept without the formats whose version is none: the library compares versions as numbers, and
    repeats what was asked for."""
    return ",".join(kind for kind in accept.split(",") if all(map(VERSION.fullmatch, _versions(kind))))


def _versions(kind: str) -> Iterator[str]:
    for parameter in kind.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name == "version":
            yield value


def _metric(family: Family, scrape: Scrape) -> Metric:
    samples = family.read(scrape)
    metric: Any
    if family.kind == "counter":
        metric = CounterMetricFamily(family.name, family.help, labels=family.labels)
        for values, value in samples:
            metric.add_metric(values, value, created=scrape.view.created)
    elif family.kind == "histogram":
        metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for values, row in samples:
            assert isinstance(row, Row)
            metric.add_metric(values, _buckets(row), row.seconds)
    elif family.kind == "info":
        metric = InfoMetricFamily(family.name, family.help)
        for values, _ in samples:
            metric.add_metric([], dict(zip(family.labels, values, strict=True)))
    else:
        metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
        for values, value in samples:
            metric.add_metric(values, value)
    return metric  # type: ignore[no-any-return]


def _buckets(row: Row) -> list[tuple[str, float]]:
    """Bounds and how many lie below each: of Prometheus's buckets each contains the one before."""
    below, buckets = 0, list[tuple[str, float]]()
    for bound, number in zip((*map(str, BOUNDS), "+Inf"), row.buckets, strict=True):
        below += number
        buckets.append((bound, below))
    return buckets
