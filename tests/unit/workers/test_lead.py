"""Who leads while calls last: real threads, and calls that end when the test says so."""

import socket
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from time import monotonic

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.workers.lead import Lead
from sdserve.workers.stream import Stream

PATIENCE = 10  # seconds; a test that waits so long has failed

Work = Callable[[], object]


class Crew:
    """A lead whose turns take calls from a queue; the watcher has a thread, too, which is not the test's."""

    def __init__(self, threads: int, timeout: float = 0) -> None:
        self.jobs: SimpleQueue[tuple[Stream, Request] | None] = SimpleQueue()
        self.answered: SimpleQueue[tuple[Stream, int]] = SimpleQueue()
        self.given_back: SimpleQueue[Stream] = SimpleQueue()
        self.too_long: SimpleQueue[tuple[Request | None, int]] = SimpleQueue()
        self.work: dict[Stream, Work] = {}
        self._reader = RequestReader(Limits())
        self._lead = Lead(
            *(threads, timeout),
            answer=self._answer,
            give_back=self.given_back.put,
            too_long=lambda request, seconds, thread: self.too_long.put((request, thread)),
            well=lambda now: None,
        )
        self._watcher = threading.Thread(target=self._lead.share, args=(self._turns,))
        self._watcher.start()

    def call(self, path: str, work: Work = lambda: None) -> Stream:
        """Has whoever leads do `work` for a request of a new connection."""
        ours, theirs = socket.socketpair()
        theirs.close()
        stream = Stream(ours, Connection(self._reader, Limits()), {}, "", 5)
        stream.request = self._reader.read(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        self.work[stream] = work
        self.jobs.put((stream, stream.request))
        return stream

    def stop(self) -> None:
        self.jobs.put(None)
        self._watcher.join(PATIENCE)
        assert not self._watcher.is_alive()
        for stream in self.work:
            stream.close()

    def _turns(self) -> None:
        while job := self.jobs.get():
            if not self._lead.call(*job, monotonic()):
                return
        self._lead.stop()

    def _answer(self, stream: Stream, request: Request, now: float) -> None:
        self.work[stream]()
        self.answered.put((stream, threading.get_ident()))


@pytest.fixture
def crew() -> Iterator[Callable[..., Crew]]:
    crews: list[Crew] = []

    def make(threads: int, timeout: float = 0) -> Crew:
        crews.append(Crew(threads, timeout))
        return crews[-1]

    yield make
    for each in crews:
        each.stop()


def test_quick_calls_stay_with_one_thread(crew: Callable[..., Crew]) -> None:
    one = crew(4)
    for number in range(50):
        one.call(f"/{number}")
    threads = {one.answered.get(timeout=PATIENCE)[1] for _ in range(50)}
    assert len(threads) == 1 and threading.main_thread().ident not in threads
    assert one.given_back.empty()


def test_a_call_that_lasts_loses_the_lead_and_gives_its_stream_back(crew: Callable[..., Crew]) -> None:
    one = crew(2)
    door = threading.Event()
    slow = one.call("/slow", lambda: door.wait(PATIENCE))
    quick = one.call("/quick")
    assert one.answered.get(timeout=PATIENCE)[0] is quick
    door.set()
    assert one.answered.get(timeout=PATIENCE)[0] is slow
    assert one.given_back.get(timeout=PATIENCE) is slow
    assert one.given_back.empty()


def test_as_many_calls_as_threads_run_at_a_time(crew: Callable[..., Crew]) -> None:
    one = crew(4)
    for _ in range(3):  # the path is unknown at first, and expected to be slow later
        together = threading.Barrier(4)
        for _ in range(4):
            one.call("/slow", lambda together=together: together.wait(PATIENCE))
        assert len({one.answered.get(timeout=PATIENCE)[1] for _ in range(4)}) == 4


def test_a_call_beyond_the_time_out_is_reported_once_with_its_thread(crew: Callable[..., Crew]) -> None:
    one = crew(2, timeout=0.05)
    door = threading.Event()
    stuck = one.call("/stuck", lambda: door.wait(PATIENCE))
    request, thread = one.too_long.get(timeout=PATIENCE)
    assert request is stuck.request
    door.set()
    assert one.answered.get(timeout=PATIENCE) == (stuck, thread)
    assert one.given_back.get(timeout=PATIENCE) is stuck
    assert one.too_long.empty()


def test_when_all_threads_are_stuck_one_more_finishes_the_rest(crew: Callable[..., Crew]) -> None:
    one = crew(2, timeout=0.05)
    door = threading.Event()
    stuck = {one.call("/stuck", lambda: door.wait(PATIENCE)) for _ in range(2)}
    rest = one.call("/rest")
    assert one.answered.get(timeout=PATIENCE)[0] is rest
    door.set()
    assert {one.answered.get(timeout=PATIENCE)[0] for _ in range(2)} == stuck
