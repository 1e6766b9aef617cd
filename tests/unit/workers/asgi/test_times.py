"""How requests and the application's shutdown share the time in which an ASGI worker leaves."""

import faulthandler
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from sdserve.config import load
from sdserve.gateway.lifespan import Lifespan
from sdserve.log import Logger
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers.application import Application
from sdserve.workers.asgi.worker import ASGIWorker

Make = Callable[..., ASGIWorker]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr("sdserve.workers.asgi.worker.monotonic", clock)
    return clock


@pytest.fixture
def make(clock: Clock) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(*argv: str, lifespan: bool = True) -> ASGIWorker:
            cfg, log = load(["app:app", *argv], {}), Logger()
            worker = ASGIWorker(1, os.getppid(), [], Application("app:app"), cfg.timeout, cfg, log)
            worker.cell = Scoreboard(1).take()
            _master, worker.channel = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            worker.lifespan = Lifespan(worker, "auto", log)  # type: ignore[arg-type]
            worker.lifespan.supported = lifespan
            worker.booted = True
            return worker

        yield make
    faulthandler.cancel_dump_traceback_later()  # the end of a worker that has lost its master


def requests(worker: ASGIWorker) -> float:
    """Seconds that they have from now on."""
    assert worker.drain_by is not None
    return worker.drain_by - time.monotonic()


@pytest.mark.parametrize(
    ("orphan", "configured", "left"), [("5", "5", 2.5), ("5", "1", 4.0), ("5", "0", 2.5), ("20", "5", 15.0)]
)
def test_without_a_master_requests_have_half_of_the_time_at_least(
    make: Make, orphan: str, configured: str, left: float
) -> None:
    worker = make("--orphan-timeout", orphan, "--lifespan-shutdown-timeout", configured)
    worker.outlive_master()
    assert requests(worker) == left
    assert worker._for_shutdown() == min(float(configured) or float(orphan), float(orphan))


def test_without_a_lifespan_requests_have_all_of_it(make: Make) -> None:
    worker = make(lifespan=False)
    worker.outlive_master()
    assert requests(worker) == 5


def test_the_shutdown_has_what_requests_leave(make: Make, clock: Clock) -> None:
    worker = make("--orphan-timeout", "5")
    worker.outlive_master()
    clock.now += 1
    assert worker._for_shutdown() == 4
    clock.now += 3
    assert worker._for_shutdown() == 2.5, "what is cut takes its time, and the share is the shutdown's still"


@pytest.mark.parametrize(("before", "left"), [(10, 2.5), (24, 1), (28, -3)])
def test_a_master_that_dies_gives_nobody_longer_than_there_was(
    make: Make, clock: Clock, before: int, left: float
) -> None:
    worker = make("--graceful-timeout", "30")
    worker.retire()
    assert requests(worker) == 25
    clock.now += before
    worker.outlive_master()
    assert requests(worker) == left
    assert 2.5 <= worker._for_shutdown() <= 5


def test_to_hear_it_twice_changes_nothing(make: Make, clock: Clock) -> None:
    worker = make()
    worker.outlive_master()
    clock.now += 1
    worker.outlive_master()
    assert requests(worker) == 1.5


def test_who_leaves_untold_has_time_for_its_shutdown(make: Make) -> None:
    assert make()._for_shutdown() == 5
    assert make("--lifespan-shutdown-timeout", "0")._for_shutdown() == 15
