"""A call is a task like any other: what asyncio and its libraries expect of one is there from its first step."""

import json
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.support.corners import LOOPS, Corners, corners
from tests.support.wire import get

WORKS = ["current_task", "timeout", "wait_for", "TaskGroup", "anyio scope", "anyio thread", "thread", "cancelled"]


@pytest.fixture(scope="module", params=LOOPS)
def at(request: pytest.FixtureRequest) -> Iterator[Corners]:
    with corners(request.param) as served:
        yield served


def test_libraries_find_what_they_need(at: Corners) -> None:
    with at.wire(get("/tasks") * 3 + get("/at_first")) as wire:
        for _ in range(3):
            assert json.loads(wire.response().body) == WORKS
        assert wire.response().body == b"at first"


def test_requests_of_one_connection_have_contexts_of_their_own(at: Corners) -> None:
    with at.wire(b"".join(get(f"/context?{number}") for number in range(50))) as wire:
        assert [wire.response().body for _ in range(50)] == [b"nobody"] * 50


def test_so_have_those_at_the_same_time(at: Corners) -> None:
    found: list[bytes] = []

    def ask() -> None:
        with at.wire(b"".join(get(f"/context?{number}") for number in range(20))) as wire:
            found.extend(wire.response().body for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"nobody"] * 160


def test_a_call_that_cancels_itself_harms_nobody(at: Corners) -> None:
    with at.wire(get("/")) as other:
        assert other.response().body == b"hello"
        assert at.ask("/cancels_itself").status == 500
        assert other.send(get("/")).response().body == b"hello"


def test_a_signal_that_the_application_took_and_gave_back_means_what_it_did(at: Corners) -> None:
    """Libraries do that with SIGTERM, and asyncio gives it back as one that kills."""
    (worker,) = at.server.wait_workers(1)
    before, during, after = json.loads(at.ask("/signals").body)
    assert before == after != during
    with at.wire(get("/echo", "Content-Length: 5", method="POST") + b"he") as wire:
        os.kill(worker.pid, signal.SIGHUP)
        at.is_well()
        os.kill(worker.pid, signal.SIGTERM)
        at.server.wait_workers(2)
        assert wire.send(b"llo").response().body == b"hello"
    at.server.wait_workers(1, besides=[worker.pid])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_worker_leaves_as_soon_as_its_last_call_is_over(loop: str) -> None:
    """Nothing else happens then that would wake it: there is no timer."""
    args = ("--timeout", "0", "--stream-grace", "0", "--graceful-timeout", "600")
    with corners(loop, *args) as at, at.wire(get("/listens")) as wire:
        wire.head()
        at.server.kill(signal.SIGTERM)
        assert at.server.wait(timeout=10) == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_worker_that_leaves_waits_for_what_goes_on_behind_an_answer(loop: str) -> None:
    with corners(loop) as at:
        assert at.ask("/behind?k").body == b"hello"
        with at.wire(get("/")) as wire:
            assert wire.response().body == b"hello"
            assert at.wait_seen("k", 1) == ["waits"]
            with at.wire(get("/slowly?k")) as slow:
                at.wait_seen("k", 2)
                at.let("k")
                at.server.kill(signal.SIGTERM)
                assert slow.response().body == b"0"
        assert at.server.wait() == 0
        assert "is cut" not in at.server.log
