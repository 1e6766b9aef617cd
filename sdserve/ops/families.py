"""Every metric of a service, declared once as data: the exposition and its page in docs/reference follow from it.

Names are Prometheus's: base units, `_total` for what only grows (the exposition adds it). Labels have few values, all
of them ours: a slot, a state, the address of a listener. Nothing that a client sent is ever one.
"""

from collections.abc import Callable, Iterable

from sdserve import __version__
from sdserve.immutable import Immutable
from sdserve.ops.health import readiness
from sdserve.ops.view import WORKER_STATES, View
from sdserve.process.counters import (
    ACCEPTED,
    ADOPTED,
    BYTES,
    CAUSES,
    DROPPED,
    EXITS,
    GIVEN_AWAY,
    OUTCOMES,
    RELOADS,
    UPGRADES,
    Row,
)


class Scrape(Immutable):
    """What one scrape tells. What is not known is not there.

    backlogs: (listener, connections that wait, how many may)
    pss: bytes of each worker's memory, by pid
    """

    view: View
    backlogs: tuple[tuple[str, int, int], ...] = ()
    pss: dict[int, int] = {}  # noqa: RUF012 - immutable like all of it


Samples = Iterable[tuple[tuple[str, ...], float | Row]]  # the values of the labels, and the value


class Family(Immutable):
    """One metric. `kind` is counter, gauge, histogram or info; `read` gives its samples."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Scrape], Samples]


def _one(value: Callable[[Scrape], float | Row]) -> Callable[[Scrape], Samples]:
    return lambda scrape: [((), value(scrape))]


def _counted(word: int) -> Callable[[Scrape], Samples]:
    return _one(lambda scrape: scrape.view.totals.words[word])


def _by_name(first: int, names: tuple[str, ...]) -> Callable[[Scrape], Samples]:
    return lambda scrape: [((name,), value) for name, value in scrape.view.totals.by_name(first, names).items()]


def _states(scrape: Scrape) -> Samples:
    states = [worker.state for worker in scrape.view.workers]
    return [((state,), states.count(state)) for state in WORKER_STATES]


def _connections(scrape: Scrape) -> Samples:
    workers = scrape.view.workers
    active = sum(worker.calls for worker in workers)
    return [(("active",), active), (("idle",), max(0, sum(worker.connections for worker in workers) - active))]


def _pss(scrape: Scrape) -> Samples:
    ours = [worker for worker in scrape.view.workers if worker.ours]
    by_slot = dict[int, int]()
    for worker in ours:  # of two in one slot, one is being replaced: both hold memory
        if worker.pid in scrape.pss:
            by_slot[worker.slot] = by_slot.get(worker.slot, 0) + scrape.pss[worker.pid]
    return [((str(slot),), size) for slot, size in by_slot.items()]


def _oldest(value: Callable[..., float]) -> Callable[[Scrape], Samples]:
    def read(scrape: Scrape) -> Samples:
        by_slot = dict[int, float]()
        for worker in scrape.view.workers:
            if worker.ours:
                by_slot[worker.slot] = max(by_slot.get(worker.slot, 0.0), value(worker))
        return [((str(slot),), seconds) for slot, seconds in by_slot.items()]

    return read


FAMILIES = (
    Family(
        "sdserve_requests",
        "counter",
        "Answers by class of status. 1xx: WebSockets, when they have ended. gone: the client left before its answer "
        "began. Refused requests count as well.",
        ("code",),
        lambda scrape: [((name,), row.count) for name, row in scrape.view.totals.answers.items()],
    ),
    Family(
        "sdserve_request_duration_seconds",
        "histogram",
        "Seconds from the whole head of a request to the last byte of its answer that the kernel took, by class of "
        "status. The time in a queue before a worker accepts is not in it: see sdserve_request_queue_seconds.",
        ("code",),
        lambda scrape: [((name,), row) for name, row in scrape.view.totals.answers.items()],
    ),
    Family(
        "sdserve_request_queue_seconds",
        "histogram",
        "Seconds between the time in X-Request-Start, which a trusted proxy in front has set, and the reading of the "
        "request here: the proxy's own queue, the network, and the listen backlog together.",
        (),
        _one(lambda scrape: scrape.view.totals.queued),
    ),
    Family(
        "sdserve_response_body_bytes",
        "counter",
        "Bytes of response bodies that were sent.",
        (),
        _counted(BYTES),
    ),
    Family(
        "sdserve_requests_in_progress",
        "gauge",
        "Requests that the application has now.",
        (),
        _one(lambda scrape: sum(worker.calls for worker in scrape.view.workers)),
    ),
    Family(
        "sdserve_threads",
        "gauge",
        "Threads that call WSGI applications, in all workers. An ASGI worker has none: see "
        "sdserve_requests_in_progress.",
        (),
        _one(lambda scrape: sum(worker.threads for worker in scrape.view.workers)),
    ),
    Family(
        "sdserve_threads_busy",
        "gauge",
        "How many of these are in a request. Equal to sdserve_threads: what comes now waits in the listen backlog.",
        (),
        _one(lambda scrape: sum(worker.calls for worker in scrape.view.workers if worker.threads)),
    ),
    Family(
        "sdserve_workers",
        "gauge",
        "Worker processes by what they do. stopped: by SIGSTOP. ending: they are being killed.",
        ("state",),
        _states,
    ),
    Family(
        "sdserve_workers_wanted",
        "gauge",
        "Worker processes that are wanted.",
        (),
        _one(lambda scrape: scrape.view.wanted),
    ),
    Family(
        "sdserve_worker_busy_seconds",
        "gauge",
        "For how long the worker in a slot has not looked at its sockets; 0 at rest. A request that hangs shows here.",
        ("slot",),
        _oldest(lambda worker: worker.busy),
    ),
    Family(
        "sdserve_worker_age_seconds",
        "gauge",
        "Seconds since the worker in a slot was forked.",
        ("slot",),
        _oldest(lambda worker: worker.age),
    ),
    Family(
        "sdserve_worker_pss_bytes",
        "gauge",
        "Memory of the worker in a slot, with its share of what it shares (PSS). At most 10 seconds old; absent where "
        "the kernel does not tell.",
        ("slot",),
        _pss,
    ),
    Family(
        "sdserve_worker_exits",
        "counter",
        "Ends of workers by cause. told: reload, upgrade, stop, a smaller pool. recycled: max_requests, max_age, "
        "max_memory. timeout: a request took too long. late: not finished within graceful_timeout. killed: SIGKILL "
        "from outside, as by the OOM killer. crashed: another signal. exited: by itself. boot: before it served.",
        ("cause",),
        _by_name(EXITS, CAUSES),
    ),
    Family(
        "sdserve_listen_backlog",
        "gauge",
        "Connections that the kernel has taken and no worker has accepted yet: the socket's accept queue, not a queue "
        "of ours. Absent where the kernel does not tell.",
        ("listener",),
        lambda scrape: [((name,), now) for name, now, _ in scrape.backlogs],
    ),
    Family(
        "sdserve_listen_backlog_limit",
        "gauge",
        "How many connections the accept queue holds; more are refused or wait for their SYN to be sent again.",
        ("listener",),
        lambda scrape: [((name,), most) for name, _, most in scrape.backlogs],
    ),
    Family(
        "sdserve_connections",
        "gauge",
        "Open connections. active: with a request in the application. idle: without one.",
        ("state",),
        _connections,
    ),
    Family(
        "sdserve_connections_accepted",
        "counter",
        "Connections that workers accepted.",
        (),
        _counted(ACCEPTED),
    ),
    Family(
        "sdserve_connections_adopted",
        "counter",
        "Connections that workers took over from others.",
        (),
        _counted(ADOPTED),
    ),
    Family(
        "sdserve_connections_given_away",
        "counter",
        "Connections that workers gave away, as they left or had too many. Those in the queue are not adopted yet.",
        (),
        _counted(GIVEN_AWAY),
    ),
    Family(
        "sdserve_reloads",
        "counter",
        "Reloads by outcome. A failed one was rolled back.",
        ("outcome",),
        _by_name(RELOADS, OUTCOMES),
    ),
    Family(
        "sdserve_upgrades",
        "counter",
        "Upgrades by outcome. After a failed one the old master serves on.",
        ("outcome",),
        _by_name(UPGRADES, OUTCOMES),
    ),
    Family(
        "sdserve_log_records_dropped",
        "counter",
        "Log records that could not be written.",
        (),
        _counted(DROPPED),
    ),
    Family(
        "sdserve_generation",
        "gauge",
        "The generation of the configuration: 1 after a start or an upgrade, one more with each reload.",
        (),
        _one(lambda scrape: scrape.view.generation),
    ),
    Family(
        "sdserve_start_time_seconds",
        "gauge",
        "When the master began, in seconds since the epoch.",
        (),
        _one(lambda scrape: scrape.view.began),
    ),
    Family(
        "sdserve_ready",
        "gauge",
        "1 while the service wants requests, as /readyz says, else 0.",
        (),
        _one(lambda scrape: float(readiness(scrape.view)[0])),
    ),
    Family(
        "sdserve",
        "info",
        "The version of sdserve.",
        ("version",),
        lambda scrape: [((__version__,), 1)],
    ),
)
