"""One measurement: one server under one load, from its start to its end, with every answer checked."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench import procfs, wrk
from tests.bench.apps import ANSWERS
from tests.bench.hostile import Hostile
from tests.bench.idle import Idle
from tests.bench.loads import Load
from tests.bench.peers import HOST, Peer
from tests.bench.servers import Server

WARM_UP = 1.0  # seconds of the same load before what counts: connections, caches and allocators settle


@dataclass(frozen=True)
class Run:
    """What was measured. Times in seconds, memory in bytes."""

    rate: float
    """Requests a second."""
    p50: float
    p99: float
    cpu: float
    """Processor time a request, of the whole process tree."""
    memory: float
    """PSS of the tree under load."""
    busiest: float = 1.0
    """The largest share of one process in the tree's processor time; with N equal workers 1/N."""
    idle_left: int = 0
    """Idle connections that the server has kept open."""


def measure(peer: Peer, load: Load, bin: Path, seconds: float) -> Run:
    """Runs `load` on `peer` for `seconds`. Raises WrongAnswer when anything was not answered as it should be."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(peer, bin, load))
        server.probe(load.path)
        idle = stack.enter_context(Idle(HOST, server.port, load.idle))
        if load.hostile:
            stack.enter_context(Hostile(HOST, server.port))
        url = server.url(load.path)
        wrk.end(wrk.begin(load, url, WARM_UP))
        beside = None
        if load.beside is not None:
            connections, path = load.beside
            # Ends a little later than the load, so that the load is never without it.
            beside = wrk.begin(Load(load.name, load.title), server.url(path), seconds + 1, connections)
        before = procfs.snapshot(server.pid)
        result = wrk.end(wrk.begin(load, url, seconds))
        after = procfs.snapshot(server.pid)
        memory = procfs.pss(after)
        if beside is not None:
            wrk.check(wrk.end(beside), len(ANSWERS[load.beside[1]]) if load.beside else 0)
        wrk.check(result, len(ANSWERS[load.path]))
        left = idle.left()
        server.probe(load.path)
    return Run(
        rate=result.requests / result.seconds,
        p50=result.p50,
        p99=result.p99,
        cpu=procfs.cpu(before, after) / result.requests,
        memory=memory,
        busiest=procfs.busiest(server.pid, before, after),
        idle_left=left,
    )
