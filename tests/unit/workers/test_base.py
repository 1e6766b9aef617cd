"""The base of worker classes: what a worker hears, says and counts. Its life as a process is test_boot.py's matter."""

import faulthandler
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from sdserve.config import Config, load
from sdserve.log import Logger
from sdserve.process.counter_memory import CounterMemory
from sdserve.process.counters import BYTES
from sdserve.process.scoreboard import (
    HAND_ON,
    HAND_ON_CRASH,
    HAND_ON_RESTART,
    HAND_ON_SUCCESSORS,
    REQUESTS,
    WATCHED,
    Scoreboard,
)
from sdserve.workers.application import Application
from sdserve.workers.base import Worker
from sdserve.workers.words import BUSY, RECYCLE, RETIRE, RETIRING


class Made:
    """A worker as the master makes it, and the master's end of its channel. It never leaves this process."""

    def __init__(self, *argv: str) -> None:
        cfg: Config = load(["app:app", *argv], {})
        self.worker = Worker(1, os.getppid(), [], Application("app:app"), cfg.timeout, cfg, Logger())
        self.worker.cell = Scoreboard(1).take()
        self.master, self.worker.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.master.setblocking(False)
        self.worker.channel.setblocking(False)
        self.worker.booted = True

    def said(self) -> list[bytes]:
        messages: list[bytes] = []
        while True:
            try:
                message = self.master.recv(4096)
            except BlockingIOError:
                return messages
            if not message:
                return messages
            messages.append(message)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()  # the end of a worker that has lost its master
        self.master.close()
        self.worker.channel.close()


@pytest.fixture
def made() -> Iterator[Made]:
    made = Made("--graceful-timeout", "7")
    yield made
    made.close()


def test_term_retires_once(made: Made) -> None:
    worker = made.worker
    before = time.monotonic()
    worker.handle_signal(signal.SIGTERM)
    assert (worker.alive, worker.quick) == (False, False)
    assert worker.drain_by is not None and before + 7 <= worker.drain_by <= time.monotonic() + 7
    drain_by = worker.drain_by
    worker.handle_signal(signal.SIGTERM)
    assert worker.drain_by == drain_by
    assert made.said() == [RETIRING]


def test_who_is_no_longer_alive_knows_until_when_it_may_drain(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of the application, or a signal handler, may look between any two steps."""
    seen: list[float | None] = []

    def look(worker: Worker, name: str, value: object) -> None:
        object.__setattr__(worker, name, value)
        if not worker.alive:
            seen.append(worker.drain_by)

    monkeypatch.setattr(type(made.worker), "__setattr__", look)
    made.worker.retire()
    assert seen and None not in seen


def test_who_is_told_by_somebody_else_hears_from_the_master_who_follows(made: Made) -> None:
    made.worker.handle_signal(signal.SIGTERM)
    assert not made.worker.knows_who_follows()
    made.master.send(RETIRE)
    made.worker.handle_control(made.worker.channel.fileno())
    assert made.worker.knows_who_follows()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_end_at_once_also_while_it_retires(made: Made, signum: int) -> None:
    made.worker.handle_signal(signal.SIGTERM)
    made.worker.handle_signal(signum)
    assert (made.worker.alive, made.worker.quick) == (False, True)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_one_that_has_not_booted_need_not_finish_anything(made: Made, signum: int) -> None:
    made.worker.booted = False
    with pytest.raises(SystemExit) as leaving:
        made.worker.handle_signal(signum)
    assert leaving.value.code == 0


def test_the_end_of_the_master_retires(made: Made) -> None:
    fd = made.worker.channel.fileno()
    made.worker.handle_control(fd)  # nothing was said
    assert made.worker.alive
    made.master.close()
    made.worker.handle_control(fd)
    assert not made.worker.alive
    made.worker.handle_control(fd)
    assert_bounded(made)


def test_the_end_of_the_master_bounds_a_retirement_that_goes_on(made: Made) -> None:
    made.worker.retire()
    assert made.worker.drain_by is not None
    assert made.worker.drain_by > time.monotonic() + made.worker.cfg.orphan_timeout
    made.master.close()
    made.worker.handle_control(made.worker.channel.fileno())
    assert_bounded(made)


def assert_bounded(made: Made) -> None:
    assert made.worker.drain_by is not None
    assert made.worker.drain_by <= time.monotonic() + made.worker.cfg.orphan_timeout


def test_the_last_word_of_a_master_is_heard(made: Made) -> None:
    """A master that has died without reading all that it was told resets the channel before its last word (unix(7))."""
    worker, fd = made.worker, made.worker.channel.fileno()
    worker.tell(BUSY)
    made.master.send(RETIRE)
    made.master.close()
    worker.handle_control(fd)
    assert worker.knows_who_follows() and not worker.alive and not worker.orphaned
    worker.handle_control(fd)
    assert worker.orphaned


@pytest.mark.parametrize(
    ("word", "serving", "orphaned"),
    [
        (0, False, False),
        (HAND_ON_SUCCESSORS, True, False),
        (HAND_ON_CRASH, False, True),
        (HAND_ON_SUCCESSORS | HAND_ON_CRASH, True, True),
        (HAND_ON_RESTART | HAND_ON_CRASH, True, True),
    ],
)
def test_who_takes_what_it_holds(made: Made, word: int, serving: bool, orphaned: bool) -> None:
    """While the master lives, and after its death."""
    made.worker.adoption = object()  # type: ignore[assignment]
    made.worker.cell.set_word(HAND_ON, word)
    assert made.worker.hands_on() is serving
    made.master.close()
    made.worker.handle_control(made.worker.channel.fileno())
    assert made.worker.hands_on() is orphaned
    assert not made.worker.has_successors()


def test_telling_a_master_that_is_gone(made: Made) -> None:
    made.master.close()
    made.worker.tell(BUSY)
    made.worker.handle_control(made.worker.channel.fileno())
    assert not made.worker.alive
    assert made.worker.drain_by is not None


def test_telling_a_master_that_does_not_read(made: Made) -> None:
    for _ in range(100_000):
        made.worker.tell(BUSY)
    assert made.worker.alive
    assert 0 < len(made.said()) < 100_000


def test_the_master_is_told_of_the_first_request_only(made: Made) -> None:
    worker = made.worker
    worker.request_begins(5.0)
    assert worker.cell.busy_since == 5.0
    worker.request_ends()
    worker.request_begins(6.0)
    worker.request_ends()
    assert worker.cell.busy_since == 0.0
    assert made.said() == [BUSY]
    worker.cell.set_word(WATCHED, 0)
    worker.request_begins(7.0)
    assert made.said() == [BUSY]


def test_counters(made: Made) -> None:
    made.worker.count_request(100)
    made.worker.count_request(20, errors=1)
    cell = made.worker.cell
    assert (made.worker.nr, cell.word(REQUESTS)) == (2, 2)
    assert made.said() == []


def test_what_a_class_of_ones_own_counts_is_in_the_metrics(made: Made) -> None:
    worker, memory = made.worker, CounterMemory.private()
    worker.counters = memory.take()
    worker.request_begins(time.monotonic() - 0.3)
    worker.request_ends()
    worker.count_request(100)
    worker.request_begins(time.monotonic())
    worker.count_request(20, errors=1)
    totals = memory.totals()
    assert {name: row.count for name, row in totals.answers.items() if row.count} == {"2xx": 1, "5xx": 1}
    assert 0.3 <= totals.answers["2xx"].seconds < 3 and totals.answers["5xx"].seconds < 0.3
    assert totals.words[BYTES] == 120
    assert worker.cell.last_busy > 0


def test_max_requests_asks_for_a_replacement_once_and_serves_on() -> None:
    made = Made("--max-requests", "3")
    for _ in range(10):
        made.worker.count_request()
    assert made.worker.alive
    assert made.said() == [RECYCLE]
    made.close()


def test_who_cannot_ask_for_its_replacement_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application has closed the channel; or it is full, and the master hears of it later."""
    made, said = Made("--max-requests", "3"), []
    monkeypatch.setattr(Logger, "event", lambda self, event, **about: said.append(event.name))
    ours = made.worker.channel
    made.worker.channel = socket.socket(fileno=os.dup(ours.fileno()))
    made.worker.channel.close()
    for _ in range(10):
        made.worker.count_request()
    assert said == ["worker-recycled"]
    made.worker.channel = ours
    for _ in range(10):
        made.worker.count_request()
    assert made.said() == [RECYCLE]
    assert said == ["worker-recycled"]
    made.close()


def test_what_has_the_number_of_a_closed_channel_is_sent_nothing(made: Made) -> None:
    """The application has closed it, and opened a socket of its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    os.dup2(ours.fileno(), made.worker.channel.fileno())
    assert not made.worker.tell(BUSY)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    ours.close()
    theirs.close()


def test_jitter() -> None:
    limits = set()
    for _ in range(100):
        made = Made("--max-requests", "10", "--max-requests-jitter", "5")
        limits.add(made.worker.max_requests)
        made.close()
    assert limits <= set(range(10, 16))
    assert len(limits) > 1


def test_a_class_without_run(made: Made) -> None:
    with pytest.raises(NotImplementedError, match=r"Worker does not say how it serves: it has no run\(\)"):
        made.worker.run()
