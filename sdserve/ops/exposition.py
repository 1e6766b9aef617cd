"""Metrics as text: OpenMetrics where the scraper asks for it, else Prometheus's own format. Pure, from what was read.

The formats are a few kinds of lines, so they are written here: prometheus_client loads 86 modules for them, among them
a web server, TLS and e-mail, and a first scrape would take ten times as long. The tests hold the text against that
library's parsers, against promtool, and against Prometheus.

https://prometheus.io/docs/specs/om/open_metrics_spec/ and
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator
from math import inf, isnan

from sdserve.ops.families import FAMILIES, Family, Scrape
from sdserve.process.counters import BOUNDS, Row

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
SPOKEN = ("", "1.0.0")  # versions of OpenMetrics that are asked for and fit
SUFFIXES = {"counter": "_total", "info": "_info"}  # of the sample, where a family's own name is another
UPPER = (*map(str, BOUNDS), "+Inf")


def text(scrape: Scrape, accept: str) -> tuple[str, bytes]:
    """The content type and the text, in the format that the header field Accept asks for."""
    if asks_for_openmetrics(accept):
        return OPENMETRICS, "".join([*_openmetrics(scrape), "# EOF\n"]).encode()
    return PLAIN, "".join(_plain(scrape)).encode()


def asks_for_openmetrics(accept: str) -> bool:
    """Whether it is among what is accepted, in a version that is spoken here."""
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        if kind == "application/openmetrics-text" and given.get("version", "").strip('"') in SPOKEN:
            return True
    return False


def _openmetrics(scrape: Scrape) -> Iterator[str]:
    for family in FAMILIES:
        yield f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n"
        for labels, value in _labelled(family, scrape):
            yield from _sample(family, labels, value)
            if family.kind == "counter":
                yield _line(f"{family.name}_created", labels, scrape.view.created)


def _plain(scrape: Scrape) -> Iterator[str]:
    """As above, but for the names of families, and when a counter began is a gauge of its own."""
    for family in FAMILIES:
        name = family.name + SUFFIXES.get(family.kind, "")
        told = list(_labelled(family, scrape))
        yield f"# HELP {name} {family.help}\n# TYPE {name} {'gauge' if family.kind == 'info' else family.kind}\n"
        for labels, value in told:
            yield from _sample(family, labels, value)
        if family.kind == "counter":
            created = f"{family.name}_created"
            yield f"# HELP {created} {family.help}\n# TYPE {created} gauge\n"
            for labels, _ in told:
                yield _line(created, labels, scrape.view.created)


def _labelled(family: Family, scrape: Scrape) -> Iterator[tuple[str, float | Row]]:
    """Each sample, its labels as they are written between braces."""
    for values, value in family.read(scrape):
        yield _labels(zip(family.labels, values, strict=True)), value


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")) for name, value in pairs)
    return ",".join(f'{name}="{value}"' for name, value in escaped)


def _sample(family: Family, labels: str, value: float | Row) -> Iterator[str]:
    if isinstance(value, Row):
        below = 0  # of Prometheus's buckets each contains the one before
        for bound, number in zip(UPPER, value.buckets, strict=True):
            below += number
            yield _line(f"{family.name}_bucket", f'{labels}{"," if labels else ""}le="{bound}"', below)
        yield _line(f"{family.name}_count", labels, below)
        yield _line(f"{family.name}_sum", labels, value.seconds)
    else:
        yield _line(family.name + SUFFIXES.get(family.kind, ""), labels, value)


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {_number(value)}\n" if labels else f"{name} {_number(value)}\n"


def _number(value: float) -> str:
    if isnan(value):
        return "NaN"
    return ("+Inf" if value > 0 else "-Inf") if value in (inf, -inf) else repr(value)
