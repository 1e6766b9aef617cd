"""What `sdservectl top` shows, from two looks at a service: rates, quantiles, and lines of a given width. All pure.

Counters only grow. Where they have shrunk (a restart has made new ones), there are no rates until the next look.
"""

from collections.abc import Mapping, Sequence

from sdserve.immutable import Immutable
from sdserve.process.counters import BOUNDS, BUCKETS, Row
from sdserve.status import Figures, SlowRequest, WorkerFigures, plain

SLOW_HEAD = f"{'SLOT':>4} {'PID':>8} {'FOR':>8}  REQUEST"
MOST_SLOW = 8  # slow requests that are shown
HEAD = f"{'SLOT':>4} {'PID':>8} {'STATE':<9} {'AGE':>7} {'REQ/S':>9} {'BUSY':>8} {'FOR':>8} {'CONNS':>6} {'PSS':>8}"


class Rates(Immutable):
    """What happened between two looks.

    seconds: between them
    by_code: answers per second, by class of status
    p50, p99: seconds, the upper ends of the buckets; None where nothing was answered, inf beyond the last bound
    by_pid: answers per second of each worker that was there before
    """

    seconds: float
    by_code: dict[str, float]
    p50: float | None
    p99: float | None
    by_pid: dict[int, float]

    @property
    def all(self) -> float:
        return sum(self.by_code.values())


def rates(before: Figures, now: Figures) -> Rates | None:
    """What happened between two looks; None where that cannot be told from them."""
    seconds = now.at - before.at
    old = {each.code: each.buckets for each in before.answers}
    new = {each.code: each.buckets for each in now.answers}
    if seconds <= 0 or old.keys() != new.keys() or not tuple(before.bounds) == tuple(now.bounds) == BOUNDS:
        return None
    if any(len(row) != BUCKETS for row in (*old.values(), *new.values())):
        return None
    grown = {code: [b - a for a, b in zip(old[code], new[code], strict=True)] for code in new}
    if any(number < 0 for row in grown.values() for number in row):
        return None
    row = Row(tuple(map(sum, zip(*grown.values(), strict=True))), 0.0)
    answered = {each.pid: each.requests for each in before.workers}
    return Rates(
        seconds=seconds,
        by_code={code: sum(row) / seconds for code, row in grown.items()},
        p50=row.quantile(0.5),
        p99=row.quantile(0.99),
        by_pid={
            each.pid: (each.requests - then) / seconds
            for each in now.workers
            if each.requests is not None and (then := answered.get(each.pid)) is not None and each.requests >= then
        },
    )


def lines(
    title: str, now: Figures, rate: Rates | None, pss: Mapping[int, int | None], size: tuple[int, int]
) -> list[str]:
    """What a terminal of (lines, columns) shows: workers that have been busy for longest first where not all fit.

    Requests that last stand below: they get the lines that the table of workers leaves, or half of its lines.
    pss: bytes of each worker, by pid
    """
    height, width = size
    shown = [title, _traffic(now, rate), _load(now), *_queues(now), _changes(now), "", HEAD]
    room = max(0, height - len(shown))
    slow = _slow(now.slow, max(room - len(now.workers), room // 2))
    room -= len(slow)
    workers = list(now.workers)
    if len(workers) > room:
        longest = sorted(workers, key=lambda worker: -(worker.busy or 0.0))[: max(0, room - 1)]
        workers = [worker for worker in workers if worker in longest]
    shown += [_worker(each, rate, pss.get(each.pid)) for each in workers]
    if hidden := len(now.workers) - len(workers):
        shown.append(f"{hidden} more workers, busy for less long")
    return [plain(line)[:width] for line in (shown + slow)[:height]]


def _slow(requests: Sequence[SlowRequest], room: int) -> list[str]:
    """The requests that last, on so many lines: a blank one, a head, and those that fit."""
    fit = min(MOST_SLOW, room - 2)
    if not requests or fit < 1:
        return []
    shown = [_request(each) for each in requests[:fit]]
    if len(requests) > fit:
        shown[-1] = f"{len(requests) - fit + 1} more slow requests"
    return ["", SLOW_HEAD, *shown]


def _request(slow: SlowRequest) -> str:
    what = slow.request or f"not said yet: see sdservectl stacks {slow.slot}"
    return f"{slow.slot:>4} {slow.pid:>8} {_lasts(slow.seconds):>8}  {what}{' (answers)' if slow.answers else ''}"


def _lasts(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 1000 else age(seconds)


def _traffic(now: Figures, rate: Rates | None) -> str:
    if rate is None:
        return "requests/s -"
    codes = [f"{code} {number:.1f}" for code, number in rate.by_code.items() if number]
    quantiles = [f"p50 {latency(rate.p50, now.bounds)}", f"p99 {latency(rate.p99, now.bounds)}"]
    return "   ".join([f"requests/s {rate.all:.1f}", *quantiles, *codes])


def latency(bound: float | None, bounds: tuple[float, ...]) -> str:
    """The bucket of a quantile, in words."""
    if bound is None:
        return "-"
    beyond = bound > bounds[-1]
    seconds = bounds[-1] if beyond else bound
    return f"{'>' if beyond else '<='} {f'{seconds * 1000:g} ms' if seconds < 1 else f'{seconds:g} s'}"


def _load(now: Figures) -> str:
    calls, threads = (sum(getattr(each, name) for each in now.workers) for name in ("calls", "threads"))
    busy = f"threads busy {calls} of {threads}" if threads else f"requests in progress {calls}"
    serving = sum(1 for each in now.workers if each.state == "serving")
    connections = sum(each.connections for each in now.workers)
    return f"{busy}   connections {connections}   workers serving {serving} of {now.wanted}"


def _queues(now: Figures) -> list[str]:
    return [f"backlog {each.waiting} of {each.limit} at {each.listener}" for each in now.backlogs]


def _changes(now: Figures) -> str:
    told = []
    for name, done, failed in (
        ("reloads", now.reloads, now.reloads_failed),
        ("upgrades", now.upgrades, now.upgrades_failed),
    ):
        told.append(f"{name} {done} done, {failed} failed")
    last = f"last: {now.trouble or 'succeeded'}" if any((now.reloads, now.upgrades, now.trouble)) else ""
    return "   ".join(filter(None, [*told, last]))


def _worker(worker: WorkerFigures, rate: Rates | None, pss: int | None) -> str:
    per_second = rate.by_pid.get(worker.pid) if rate is not None else None
    return (
        f"{worker.slot:>4} {worker.pid:>8} {worker.state:<9} {age(worker.age):>7} "
        f"{'-' if per_second is None else f'{per_second:.1f}':>9} "
        f"{f'{worker.calls}/{worker.threads}' if worker.threads else worker.calls:>8} "
        f"{'-' if worker.busy is None else _lasts(worker.busy):>8} {worker.connections:>6} "
        f"{'-' if pss is None else f'{pss / 2**20:.1f}M':>8}"
    )


def age(seconds: float) -> str:
    """A time in its two largest units."""
    whole = int(seconds)
    for name, unit, next_name, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // part:02d}{next_name}"
    return f"{whole}s"
