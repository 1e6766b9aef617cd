"""The one place that waits: descriptors, deadlines, and callbacks that change both under its hands."""

import os
import socket
import time
from collections.abc import Iterator

import pytest

from sdserve.arbiter.loop import Loop, Pipe


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def woken(loop: Loop) -> Pipe:
    """A pipe that is readable."""
    pipe = Pipe()
    pipe.wake()
    return pipe


def test_callbacks_run_for_what_is_readable(loop: Loop) -> None:
    ready, idle = woken(loop), Pipe()
    heard: list[str] = []
    loop.watch(ready, lambda: heard.append("ready"))
    loop.watch(idle, lambda: heard.append("idle"))
    loop.turn()
    loop.turn()  # level-triggered: it has not been read
    assert heard == ["ready", "ready"]
    ready.drain()
    loop.call_at(time.monotonic(), lambda: heard.append("late"))
    loop.turn()
    assert heard[2:] == ["late"]


class TestDeadlines:
    def test_in_the_order_of_time_not_of_calls(self, loop: Loop) -> None:
        now, heard = time.monotonic(), []
        for name, when in (("third", now), ("first", now - 2), ("second", now - 1)):
            loop.call_at(when, lambda name=name: heard.append(name))
        loop.turn()
        assert heard == ["first", "second", "third"]

    def test_the_loop_sleeps_until_the_earliest(self, loop: Loop) -> None:
        when, heard = time.monotonic() + 0.05, []
        loop.call_at(when + 60, lambda: heard.append("far"))
        loop.call_at(when, lambda: heard.append("near"))
        while not heard:
            loop.turn()
        assert time.monotonic() >= when
        assert heard == ["near"]

    def test_cancelled_ones_do_not_run_nor_wake(self, loop: Loop) -> None:
        heard: list[str] = []
        deadline = loop.call_at(time.monotonic() - 1, lambda: heard.append("cancelled"))
        deadline.cancel()
        deadline.cancel()
        assert deadline.cancelled
        loop.call_at(time.monotonic(), lambda: heard.append("other"))
        loop.turn()
        assert heard == ["other"]

    def test_a_callback_cancels_the_next(self, loop: Loop) -> None:
        now, heard = time.monotonic(), []
        loop.call_at(now - 2, lambda: later.cancel())
        later = loop.call_at(now - 1, lambda: heard.append("cancelled"))
        loop.turn()
        assert heard == []

    def test_what_is_readable_cancels_what_is_due(self, loop: Loop) -> None:
        heard: list[str] = []
        loop.watch(woken(loop), lambda: deadline.cancel())
        deadline = loop.call_at(time.monotonic() - 1, lambda: heard.append("late"))
        loop.turn()
        assert heard == []

    def test_it_ran_only_once(self, loop: Loop) -> None:
        heard: list[int] = []
        deadline = loop.call_at(time.monotonic(), lambda: heard.append(1))
        loop.turn()
        assert deadline.cancelled
        deadline.run()
        assert heard == [1]

    def test_a_callback_sets_another(self, loop: Loop) -> None:
        heard: list[str] = []
        loop.call_at(time.monotonic(), lambda: loop.call_at(time.monotonic(), lambda: heard.append("second")))
        while not heard:
            loop.turn()
        assert heard == ["second"]


class TestUnwatch:
    def test_inside_a_callback_of_the_same_turn(self, loop: Loop) -> None:
        """Two workers die at once, and the first news ends the watch for the second."""
        pipes, heard = [woken(loop), woken(loop)], []

        def first_come(index: int) -> None:
            heard.append(index)
            loop.unwatch(pipes[1 - index])
            pipes[1 - index].close()

        for index, pipe in enumerate(pipes):
            loop.watch(pipe, lambda index=index: first_come(index))
        loop.turn()
        assert len(heard) == 1

    def test_a_number_that_is_used_again_in_the_same_turn(self, loop: Loop) -> None:
        """What was readable is gone, and a newcomer has its number: the news is not for that, nor for the old one."""
        pairs = [socket.socketpair(), socket.socketpair()]
        newcomers = []
        heard: list[str] = []

        def first_come(index: int) -> None:
            heard.append("first")
            other = pairs[1 - index][0]
            number = other.fileno()
            loop.unwatch(other)
            other.close()
            ours, theirs = socket.socketpair()
            assert ours.fileno() == number  # the lowest free one
            newcomers.extend((ours, theirs))
            loop.unwatch(pairs[index][0])
            loop.watch(ours, lambda: heard.append("newcomer"))

        for index, (ours, theirs) in enumerate(pairs):
            theirs.send(b"x")
            loop.watch(ours, lambda index=index: first_come(index))
        loop.turn()
        assert heard == ["first"]
        newcomers[1].send(b"x")
        loop.turn()
        assert heard == ["first", "newcomer"]
        for sock in (*newcomers[1:], *(sock for pair in pairs for sock in pair)):
            sock.close()

    def test_what_was_never_watched(self, loop: Loop) -> None:
        pipe = Pipe()
        loop.unwatch(pipe)
        pipe.close()


def test_closing_closes_all_that_is_watched() -> None:
    """In a forked child: it must hold no end of its siblings' channels."""
    loop, ends = Loop(), [socket.socketpair() for _ in range(2)]
    for ours, _ in ends:
        loop.watch(ours, lambda: None)
    loop.close()
    for ours, theirs in ends:
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""
        theirs.close()


class TestPipe:
    def test_many_wakes_are_one(self) -> None:
        pipe = Pipe()
        for _ in range(100_000):  # more than a pipe holds
            pipe.wake()
        pipe.drain()
        pipe.drain()
        with pytest.raises(BlockingIOError):
            os.read(pipe.fileno(), 1)
        pipe.close()

    def test_drained_when_a_read_takes_just_all(self) -> None:
        pipe = Pipe()
        for _ in range(4096):
            pipe.wake()
        pipe.drain()
        pipe.close()
