"""The one place that waits: descriptors, deadlines, and callbacks that change both under its hands."""

import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from sdserve.arbiter.loop import TRY_AGAIN, Loop, Pipe
from sdserve.errors import BootError


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


class Full(selectors.DefaultSelector):
    """The kernel has no memory for one more, for a while."""

    full = True

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.full:
            raise OSError("no room")
        return super().register(fileobj, events, data)


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


def test_what_a_callback_looks_away_from_is_looked_at_again_later() -> None:
    """A child that has ended, and that its tracer has not let go yet, must not have the loop turn all the time."""
    clock = [100.0]
    loop, heard = Loop(clock=lambda: clock[0]), []
    ready = woken(loop)

    def cannot_yet() -> None:
        heard.append("ready")
        loop.look_away(ready)

    loop.watch(ready, cannot_yet)
    loop.turn()
    assert loop.timeout() == TRY_AGAIN
    clock[0] += TRY_AGAIN
    loop.turn()
    assert heard == ["ready"]
    loop.turn()
    assert heard == ["ready", "ready"]
    loop.drop(ready)
    loop.close()


class TestDeadlines:
    def test_in_the_order_of_time_not_of_calls(self, loop: Loop) -> None:
        now = time.monotonic()
        heard: list[str] = []
        for name, when in (("third", now), ("first", now - 2), ("second", now - 1)):
            loop.call_at(when, partial(heard.append, name))
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

    def test_cancelled_ones_do_not_pile_up(self, loop: Loop) -> None:
        """Each client that waits for something for a week, and goes away, leaves none behind."""
        far = time.monotonic() + 604800
        kept = [loop.call_at(far + number, lambda: None) for number in range(100)]
        for _ in range(10_000):
            loop.call_at(far, lambda: None).cancel()
        assert len(loop._deadlines) <= 2 * len(kept)
        assert {deadline for _, _, deadline in loop._deadlines} >= set(kept)
        heard: list[str] = []
        loop.call_at(time.monotonic(), lambda: heard.append("in time"))
        loop.turn()
        assert heard == ["in time"]

    def test_a_callback_cancels_the_next(self, loop: Loop) -> None:
        now = time.monotonic()
        heard: list[str] = []
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

        def second() -> None:
            loop.call_at(time.monotonic(), lambda: heard.append("second"))

        loop.call_at(time.monotonic(), second)
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
            loop.watch(pipe, partial(first_come, index))
        loop.turn()
        assert len(heard) == 1

    def test_a_number_that_is_used_again_in_the_same_turn(self, loop: Loop) -> None:
        """What was readable is gone, and a newcomer has its number: the news is not for that, nor for the old one."""
        pairs = [socket.socketpair(), socket.socketpair()]
        newcomers: list[socket.socket] = []
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
            loop.watch(ours, partial(first_come, index))
        loop.turn()
        assert heard == ["first"]
        newcomers[1].send(b"x")
        loop.turn()
        assert heard == ["first", "newcomer"]
        for sock in (*newcomers[1:], *(sock for pair in pairs for sock in pair)):
            sock.close()

    def test_what_was_never_watched(self, loop: Loop) -> None:
        """Nothing comes of it, for what is watched neither; and it is not heard of, then or later."""
        stranger, watched, heard = woken(loop), woken(loop), []
        loop.watch(watched, lambda: heard.append("watched"))
        loop.unwatch(stranger)
        loop.turn()
        loop.unwatch(watched)
        loop.unwatch(watched)
        loop.call_at(time.monotonic(), lambda: heard.append("late"))
        loop.turn()
        assert heard == ["watched", "late"]
        for pipe in (stranger, watched):
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
        with pytest.raises(BlockingIOError):
            os.read(pipe.fileno(), 1)
        pipe.close()


class TestFailures:
    """What fails is told, left alone for a moment, and called again; all others are called as ever."""

    @pytest.fixture
    def told(self) -> list[str]:
        return []

    @pytest.fixture
    def clock(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def loop(self, told: list[str], clock: list[float]) -> Iterator[Loop]:
        loop = Loop(clock=lambda: clock[0], on_failure=lambda: told.append(str(sys.exception())))
        yield loop
        loop.close()

    def fails(self, times: int, then: list[str]) -> Callable[[], None]:
        left = [times]

        def callback() -> None:
            left[0] -= 1
            if left[0] >= 0:
                raise OSError("no memory")
            then.append("done")

        return callback

    def test_a_watched_one(self, loop: Loop, told: list[str], clock: list[float]) -> None:
        bad, good = woken(loop), woken(loop)
        heard: list[str] = []
        loop.watch(bad, self.fails(1, heard))
        loop.watch(good, lambda: heard.append("good"))
        loop.turn()
        loop.turn()
        assert (heard, told) == (["good", "good"], ["no memory"])
        clock[0] += TRY_AGAIN
        loop.turn()  # looks at it again from the end of this turn on
        loop.turn()
        assert "done" in heard
        assert told == ["no memory"]

    def test_a_deadline(self, loop: Loop, told: list[str], clock: list[float]) -> None:
        heard: list[str] = []
        loop.call_at(clock[0], self.fails(2, heard))
        loop.call_at(clock[0], lambda: heard.append("other"))
        for _ in range(3):
            loop.turn()
            clock[0] += TRY_AGAIN
        assert (heard, len(told)) == (["other", "done"], 2)

    def test_a_deadline_that_failed_can_be_cancelled(self, loop: Loop, clock: list[float]) -> None:
        heard: list[str] = []
        deadline = loop.call_at(clock[0], self.fails(1, heard))
        loop.turn()
        deadline.cancel()
        clock[0] += TRY_AGAIN
        loop.call_at(clock[0], lambda: heard.append("other"))
        loop.turn()
        assert heard == ["other"]

    def test_one_that_rests_can_be_left_alone_for_good(self, loop: Loop, clock: list[float]) -> None:
        bad = woken(loop)
        heard: list[str] = []
        loop.watch(bad, self.fails(1, heard))
        loop.turn()
        loop.unwatch(bad)
        clock[0] += TRY_AGAIN
        loop.call_at(clock[0], lambda: heard.append("other"))
        loop.turn()
        loop.call_at(clock[0], lambda: heard.append("other"))
        loop.turn()
        assert heard == ["other", "other"]

    def test_one_that_cannot_be_registered_yet(self, loop: Loop, told: list[str], clock: list[float]) -> None:
        selector = Full()
        loop = Loop(selector, lambda: clock[0], lambda: told.append(str(sys.exception())))
        pipe, heard = woken(loop), []
        loop.watch(pipe, lambda: heard.append("heard"))
        selector.full = False
        clock[0] += TRY_AGAIN
        loop.turn()
        loop.turn()
        assert (heard, told) == (["heard"], ["no room"])
        loop.close()

    @pytest.mark.parametrize("full_again", [False, True])
    def test_one_that_rests_and_is_watched_for_something_else(
        self, told: list[str], clock: list[float], full_again: bool
    ) -> None:
        """Another phase of the same client began meanwhile: the old one is over."""
        selector = Full()
        loop = Loop(selector, lambda: clock[0], lambda: told.append(str(sys.exception())))
        pipe, heard = woken(loop), []
        loop.watch(pipe, lambda: heard.append("old"))
        clock[0] += TRY_AGAIN / 2
        loop.unwatch(pipe)
        selector.full = full_again
        loop.watch(pipe, lambda: heard.append("new"))
        selector.full = False
        for _ in range(3):
            clock[0] += TRY_AGAIN / 2
            loop.call_at(clock[0], lambda: None)
            loop.turn()
        assert set(heard) == {"new"}
        assert set(told) == {"no room"}
        loop.close()

    def test_typed_errors_are_the_callers(self, loop: Loop, told: list[str], clock: list[float]) -> None:
        def give_up() -> None:
            raise BootError("nothing boots")

        loop.call_at(clock[0], give_up)
        with pytest.raises(BootError):
            loop.turn()
        assert not told
