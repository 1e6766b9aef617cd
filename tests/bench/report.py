"""From measurements to tables: medians of all rounds, and how each server compares with sdserve. No I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median

from tests.bench.loads import Load
from tests.bench.measure import Run

BASES = ("sdserve", "sdserve-16")  # what the others are compared with: the first that was measured
HEAD = ("server", "requests/s", "p50 ms", "p99 ms", "CPU us/req", "PSS MiB", "rate vs sdserve", "CPU vs sdserve")


@dataclass(frozen=True)
class Outcome:
    """All rounds of one server under one load: what was measured, and what went wrong."""

    runs: Sequence[Run] = ()
    failures: Sequence[str] = ()


def middle(runs: Sequence[Run]) -> Run:
    """The median of each figure by itself. Raises statistics.StatisticsError when there are no runs."""
    return Run(**{field.name: median(getattr(run, field.name) for run in runs) for field in fields(Run)})


def ratio(value: float, base: float) -> float | None:
    """`value` in units of `base`; None when there is no base to speak of."""
    return value / base if base > 0 else None


def row(name: str, outcome: Outcome, base: Run | None) -> tuple[str, ...]:
    """One server's cells. A round that went wrong is named, also beside rounds that went well."""
    if not outcome.runs:
        return (name, f"failed: {outcome.failures[0]}" if outcome.failures else "not run", *[""] * (len(HEAD) - 2))
    run = middle(outcome.runs)
    mark = f" ({len(outcome.failures)} of {len(outcome.runs) + len(outcome.failures)} rounds failed)"
    return (
        name + (mark if outcome.failures else ""),
        f"{run.rate:,.0f}",
        f"{run.p50 * 1e3:.2f}",
        f"{run.p99 * 1e3:.2f}",
        f"{run.cpu * 1e6:.0f}",
        f"{run.memory / 2**20:.1f}",
        _times(base, run, lambda r: r.rate),
        _times(base, run, lambda r: r.cpu),
    )


def _times(base: Run | None, run: Run, figure: Callable[[Run], float]) -> str:
    found = ratio(figure(run), figure(base)) if base is not None else None
    return "" if found is None else f"{found:.2f}"


def notes(load: Load, outcomes: Mapping[str, Outcome]) -> list[str]:
    """What only some loads show: how work was shared between workers, how many idle connections were kept."""
    lines = []
    for name, outcome in outcomes.items():
        if not outcome.runs:
            continue
        run = middle(outcome.runs)
        if load.workers > 1:
            lines.append(f"{name}: busiest process {run.busiest:.0%} of the CPU time")
        if load.idle:
            lines.append(f"{name}: {run.idle_left:.0f} of {load.idle} idle connections kept")
    return lines


def table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is aligned for the eye, too: names to the left, figures to the right."""
    rows = [HEAD, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *padded[1:]])} |"

    rule = "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths))
    return "\n".join([line(rows[0]), f"|{rule}|", *map(line, rows[1:])])


def chapter(load: Load, outcomes: Mapping[str, Outcome]) -> str:
    """Everything about one load: title, table, notes."""
    of = next((middle(outcomes[name].runs) for name in BASES if name in outcomes and outcomes[name].runs), None)
    lines = [f"### {load.name}: {load.title}", "", table(row(name, o, of) for name, o in outcomes.items())]
    if said := notes(load, outcomes):
        lines += ["", *(f"- {line}" for line in said)]
    return "\n".join([*lines, ""])


def spread(runs: Sequence[Run]) -> float:
    """How far the rates of rounds lie apart, in units of their median: what smaller differences mean nothing beside."""
    rates = [run.rate for run in runs]
    return (max(rates) - min(rates)) / median(rates)
