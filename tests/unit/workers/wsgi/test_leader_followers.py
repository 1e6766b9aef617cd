"""Who leads while calls last: real threads, and calls that end when the test says so."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from time import monotonic

import pytest

from sdserve.http.connection import Connection
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.log import Logger
from sdserve.workers.http.spool import Quota
from sdserve.workers.http.write_buffer import Store
from sdserve.workers.wsgi.client import WSGIClient
from sdserve.workers.wsgi.leader_followers import LeaderFollowers
from sdserve.workers.wsgi.watcher import Callbacks
from tests.support.waiting import eventually

PATIENCE = 10  # seconds; a test that waits so long has failed
LOG = Logger("-", None, "critical")

Work = Callable[[], object]
Turn = Callable[[], bool]


class Crew:
    """A lead whose turns are taken from a queue; the watcher has a thread, too, which is not the test's."""

    def __init__(self, threads: int, timeout: float = 0) -> None:
        self.turns: SimpleQueue[Turn | None] = SimpleQueue()
        self.answered: SimpleQueue[tuple[WSGIClient, int]] = SimpleQueue()
        self.given_back: SimpleQueue[WSGIClient] = SimpleQueue()
        self.broken: SimpleQueue[tuple[WSGIClient, BaseException | None]] = SimpleQueue()
        self.too_long: SimpleQueue[tuple[WSGIClient, int]] = SimpleQueue()
        self.clients: list[WSGIClient] = []
        self.failing = 0  # looks of the watcher that will fail
        self.in_demand: Callable[[], bool] = lambda: not self.turns.empty()
        self._work: dict[WSGIClient, Work] = {}
        self._reader = RequestReader(Limits())
        tell = Callbacks(
            answer=self._answer,
            give_back=lambda client, leads: self.given_back.put(client),
            broken=lambda client: self.broken.put((client, sys.exception())),
            too_long=lambda client, seconds, thread: self.too_long.put((client, thread)),
            well=lambda now: None,
            in_demand=self._in_demand,
            wake=lambda: self.turns.put(self.lead.take_orphan),
        )
        self.lead = LeaderFollowers(threads, timeout, tell, LOG)
        self._watcher = threading.Thread(target=self.lead.share, args=(self._turn,))
        self._watcher.start()

    def call(self, path: str, work: Work = lambda: None) -> WSGIClient:
        """Has whoever leads do `work` for a request of a new connection."""
        client = self._client(path)
        request = client.request
        assert request is not None
        self._work[client] = work
        self.turns.put(lambda: self.lead.call(client, request, monotonic()))
        return client

    def resume(self, owner: int, work: Work = lambda: None) -> WSGIClient:
        """Has the leader resume a suspended response, which belongs to the thread `owner`."""
        client = self._client("/suspended")

        def step() -> None:
            work()
            self.answered.put((client, threading.get_ident()))

        self.turns.put(lambda: self.lead.resume(client, owner, step))
        return client

    def answer(self) -> tuple[WSGIClient, int]:
        """The next client that was answered, and by which thread."""
        return self.answered.get(timeout=PATIENCE)

    def stop(self) -> None:
        self.turns.put(None)
        self._watcher.join(PATIENCE)
        assert not self._watcher.is_alive()
        for client in self.clients:
            client.close()

    def _client(self, path: str) -> WSGIClient:
        ours, theirs = socket.socketpair()
        theirs.close()
        client = WSGIClient(ours, Connection(self._reader, Limits()), {}, ("", ""), Store(Quota(0), print, 5))
        client.request = self._reader.read(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        self.clients.append(client)
        return client

    def _in_demand(self) -> bool:
        if self.failing:
            self.failing -= 1
            raise OSError("no memory")
        return self.in_demand()

    def _turn(self) -> None:
        while turn := self.turns.get():
            if not turn():
                return
        self.lead.stop()

    def _answer(self, client: WSGIClient, request: Request, now: float) -> None:
        self._work[client]()
        self.answered.put((client, threading.get_ident()))


@pytest.fixture
def crew() -> Iterator[Callable[..., Crew]]:
    crews: list[Crew] = []

    def make(threads: int, timeout: float = 0) -> Crew:
        crews.append(Crew(threads, timeout))
        return crews[-1]

    yield make
    for each in crews:
        each.stop()


class Held:
    """A call that has begun and waits."""

    def __init__(self, crew: Crew, path: str = "/held") -> None:
        self._begun, self._door = threading.Event(), threading.Event()
        self.thread = 0
        self.client = crew.call(path, self._wait)
        assert self._begun.wait(PATIENCE)

    def _wait(self) -> None:
        self.thread = threading.get_ident()
        self._begun.set()
        assert self._door.wait(PATIENCE)

    def end(self) -> None:
        self._door.set()


def test_quick_calls_stay_with_one_thread(crew: Callable[..., Crew]) -> None:
    one = crew(4)
    for number in range(50):
        one.call(f"/{number}")
    threads = {one.answer()[1] for _ in range(50)}
    assert len(threads) == 1 and threading.main_thread().ident not in threads
    assert one.given_back.empty()


def test_a_call_that_lasts_loses_the_lead_and_gives_its_stream_back(crew: Callable[..., Crew]) -> None:
    one = crew(2)
    slow = Held(one)
    quick = one.call("/quick")
    assert one.answer()[0] is quick
    slow.end()
    assert one.answer()[0] is slow.client
    assert one.given_back.get(timeout=PATIENCE) is slow.client
    assert one.given_back.empty()


def test_a_watcher_that_fails_watches_on(crew: Callable[..., Crew]) -> None:
    one = crew(2)
    one.failing = 1
    slow = Held(one)
    quick = one.call("/quick")
    assert one.answer()[0] is quick  # somebody has seen that the leader's call lasts
    assert not one.failing
    slow.end()
    assert one.answer()[0] is slow.client


def test_a_call_that_returns_as_the_watcher_looks_is_not_shown(crew: Callable[..., Crew]) -> None:
    """It was found to last, and is over before the lead can be taken from it: none lasts then."""
    one = crew(2)
    shown: list[int] = []
    found, over = threading.Event(), threading.Event()

    def in_demand() -> bool:
        found.set()
        return over.wait(PATIENCE)

    def turn() -> bool:
        over.set()  # the leader is in its next turn: the token of the call is off the table
        return True

    one.lead.running.show, one.in_demand = shown.append, in_demand
    brief = Held(one)
    assert found.wait(PATIENCE)
    one.turns.put(turn)
    brief.end()
    one.stop()  # the watcher has taken its look
    assert over.is_set()
    assert shown == []


def test_calls_without_the_lead_are_shown(crew: Callable[..., Crew]) -> None:
    one = crew(3)
    shown: SimpleQueue[int] = SimpleQueue()
    one.lead.running.show = shown.put
    held = [Held(one), Held(one), Held(one)]
    assert [shown.get(timeout=PATIENCE) for _ in held] == [1, 2, 3]
    for each, left in zip(held, (2, 1, 0), strict=True):
        each.end()
        assert shown.get(timeout=PATIENCE) == left


def test_a_call_that_returns_leaves_the_token_of_another_call_alone(crew: Callable[..., Crew]) -> None:
    """The lead was taken from the first call. It ends while the next leader is in a call, which then hangs."""
    one = crew(3, timeout=0.5)
    first = Held(one, "/first")
    second = Held(one, "/second")
    first.end()
    assert one.given_back.get(timeout=PATIENCE) is first.client
    client, thread = one.too_long.get(timeout=PATIENCE)
    assert (client, thread) == (second.client, second.thread)
    second.end()
    assert one.given_back.get(timeout=PATIENCE) is second.client
    assert one.given_back.empty()


def test_as_many_calls_as_threads_run_at_a_time(crew: Callable[..., Crew]) -> None:
    one = crew(4)
    for _ in range(3):  # the path is unknown at first, and expected to be slow later
        together = threading.Barrier(4)
        for _ in range(4):
            one.call("/slow", partial(together.wait, PATIENCE))
        assert len({one.answer()[1] for _ in range(4)}) == 4


def test_the_thread_that_rested_last_is_woken_first(crew: Callable[..., Crew]) -> None:
    one = crew(8)
    threads = set()
    for _ in range(20):
        slow = Held(one)
        one.call("/quick")
        threads |= {slow.thread, one.answer()[1]}
        slow.end()
        one.answer()
        one.given_back.get(timeout=PATIENCE)
    assert len(threads) <= 4


def test_a_call_beyond_the_time_out_is_reported_once_with_its_thread(crew: Callable[..., Crew]) -> None:
    one = crew(2, timeout=0.05)
    stuck = Held(one)
    assert one.too_long.get(timeout=PATIENCE) == (stuck.client, stuck.thread)
    stuck.end()
    assert one.answer() == (stuck.client, stuck.thread)
    assert one.given_back.get(timeout=PATIENCE) is stuck.client
    assert one.too_long.empty()


def test_a_call_beyond_the_time_out_is_reported_while_others_are_answered(crew: Callable[..., Crew]) -> None:
    one = crew(2, timeout=0.05)
    stuck = Held(one)
    while one.too_long.empty():
        one.call("/quick")
        one.answer()
    assert one.too_long.get() == (stuck.client, stuck.thread)
    stuck.end()


def test_when_all_threads_are_stuck_one_more_finishes_the_rest(crew: Callable[..., Crew]) -> None:
    one = crew(2, timeout=0.05)
    stuck = [Held(one), Held(one)]
    rest = one.call("/rest")
    assert one.answer()[0] is rest
    for held in stuck:
        held.end()
    assert {one.answer()[0] for _ in range(2)} == {held.client for held in stuck}


def test_nothing_of_a_finished_call_is_kept(crew: Callable[..., Crew]) -> None:
    one = crew(3, timeout=5)
    for _ in range(5):
        held = [Held(one), Held(one)]
        for each in held:
            each.end()
        for _ in held:
            one.answer()
        eventually(lambda: not one.lead.running.calls and not one.lead.running.stuck, "nothing runs")


@pytest.mark.parametrize("error", [RuntimeError("of an extension"), SystemExit(1), MemoryError(), KeyboardInterrupt()])
def test_an_exception_ends_one_connection_and_nothing_else(crew: Callable[..., Crew], error: BaseException) -> None:
    def fail() -> None:
        raise error

    one = crew(2)
    failed = one.call("/fails", fail)
    assert one.broken.get(timeout=PATIENCE) == (failed, error)
    for _ in range(3):
        held = Held(one)
        assert one.call("/after") is one.answer()[0]
        held.end()
        assert one.answer()[0] is held.client


# --- what belongs to one thread ---------------------------------------------------------------------------------------


def other_thread(crew: Crew) -> int:
    """A thread that does not lead, and is idle."""
    held = Held(crew)
    crew.call("/quick")
    crew.answer()  # by the new leader
    held.end()
    crew.answer()
    crew.given_back.get(timeout=PATIENCE)
    return held.thread


def test_a_suspended_response_is_resumed_by_the_leader_itself_if_it_is_its_own(crew: Callable[..., Crew]) -> None:
    one = crew(3)
    one.call("/quick")
    _, owner = one.answer()
    suspended = one.resume(owner)
    assert one.answer() == (suspended, owner)
    assert one.given_back.get(timeout=PATIENCE) is suspended
    one.call("/quick")
    assert one.answer()[1] == owner  # it has kept the lead


def test_a_suspended_response_is_resumed_by_the_thread_that_began_it(crew: Callable[..., Crew]) -> None:
    one = crew(3)
    owner = other_thread(one)
    for _ in range(10):
        suspended = one.resume(owner)
        assert one.answer() == (suspended, owner)
        assert one.given_back.get(timeout=PATIENCE) is suspended


def test_a_thread_in_a_call_resumes_its_responses_when_that_returns(crew: Callable[..., Crew]) -> None:
    one = crew(3)
    held = Held(one)
    suspended = [one.resume(held.thread), one.resume(held.thread)]
    one.call("/quick")
    assert one.answer()[1] != held.thread  # nobody waits for it
    held.end()
    assert one.answer() == (held.client, held.thread)
    assert [one.answer(), one.answer()] == [(client, held.thread) for client in suspended]


def test_the_leader_loses_the_lead_to_a_step_that_lasts(crew: Callable[..., Crew]) -> None:
    one = crew(2)
    one.call("/quick")
    _, owner = one.answer()
    door = threading.Event()
    suspended = one.resume(owner, lambda: door.wait(PATIENCE))
    quick = one.call("/quick")
    client, thread = one.answer()
    assert client is quick and thread != owner
    door.set()
    assert one.answer() == (suspended, owner)
    assert one.given_back.get(timeout=PATIENCE) is suspended


def test_a_stuck_thread_strands_none_of_its_responses(crew: Callable[..., Crew]) -> None:
    one = crew(2, timeout=0.1)
    held = Held(one)
    early = one.resume(held.thread)  # waits for it
    assert one.too_long.get(timeout=PATIENCE)[0] is held.client
    late = one.resume(held.thread)  # it is known to be stuck
    answers = {one.answer(), one.answer()}
    assert {client for client, _ in answers} == {early, late}
    assert held.thread not in {thread for _, thread in answers}
    held.end()


def test_a_response_of_a_thread_that_is_gone_is_resumed_by_another(crew: Callable[..., Crew]) -> None:
    one = crew(2)
    suspended = one.resume(0)
    assert one.answer()[0] is suspended


def test_an_exception_of_a_step_ends_one_connection_and_nothing_else(crew: Callable[..., Crew]) -> None:
    def fail() -> None:
        raise ValueError("Token was created in a different Context")

    one = crew(3)
    owner = other_thread(one)
    failed = one.resume(owner, fail)
    assert one.broken.get(timeout=PATIENCE)[0] is failed
    assert one.given_back.get(timeout=PATIENCE) is failed
    assert one.resume(owner) is one.answer()[0]


# --- threads that end, or never begin ---------------------------------------------------------------------------------


def test_a_leader_that_dies_hands_the_lead_on_and_is_replaced(crew: Callable[..., Crew]) -> None:
    died: SimpleQueue[threading.Thread] = SimpleQueue()

    def die() -> bool:
        died.put(threading.current_thread())
        raise SystemExit("whatever it was")

    one = crew(2)
    for _ in range(3):
        one.turns.put(die)
        client = one.call("/after")
        assert one.answer()[0] is client
        leader = died.get(timeout=PATIENCE)
        leader.join(PATIENCE)
        assert not leader.is_alive()
    together = threading.Barrier(2)  # which takes both threads that were wanted
    for _ in range(2):
        one.call("/slow", lambda: together.wait(PATIENCE))
    assert len({one.answer()[1] for _ in range(2)}) == 2


def test_threads_that_cannot_be_started_are_done_without(
    crew: Callable[..., Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, room = threading.Thread.start, 2

    def limited(thread: threading.Thread) -> None:
        nonlocal room
        if thread.name.startswith("sdserve-"):
            if not room:
                raise RuntimeError("can't start new thread")
            room -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    one = crew(4)
    held = Held(one)
    assert one.call("/quick") is one.answer()[0]
    held.end()
    assert one.answer()[0] is held.client
    room = 4
    together = threading.Barrier(4)  # which takes all threads that were wanted
    for _ in range(4):
        one.call("/slow", lambda: together.wait(PATIENCE))
    assert len({one.answer()[1] for _ in range(4)}) == 4


def test_without_a_single_thread_more_the_first_one_serves(
    crew: Callable[..., Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("sdserve-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    one = crew(4)
    for _ in range(3):
        assert one.call("/quick") is one.answer()[0]
