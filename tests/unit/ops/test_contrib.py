"""The dashboard and the alert rules ask for series that the exposition has, by labels and values that it has."""

import re

import pytest

from sdserve.ops.families import FAMILIES, Family
from tests.support.prometheus import alerts, dashboard_queries

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
SERIES: dict[str, Family] = {family.name + suffix: family for family in FAMILIES for suffix in SUFFIXES[family.kind]}
FROM_PROMETHEUS = {"instance", "job", "le"}  # labels that every scrape and every histogram has


QUERIES = {query for _, query in dashboard_queries("example:1", "1m")} | set(alerts().values())


@pytest.mark.parametrize("query", sorted(QUERIES))
def test_what_is_asked_for_is_there(query: str) -> None:
    asked = re.findall(r"(sdserve_\w+)(?:\{([^}]*)\})?", query)
    assert asked
    labels = FROM_PROMETHEUS.copy()
    for name, selector in asked:
        family = SERIES[name]
        labels |= set(family.labels)
        assert set(re.findall(r"(\w+)[!=]", selector)) <= FROM_PROMETHEUS | set(family.labels)
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert set(grouped.split(", ")) <= labels
