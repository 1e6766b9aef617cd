"""Work that takes longer than it may is interrupted, and whenever the alarm comes, nothing of it stays behind."""

import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from sdserve.process.timelimit import TimeIsUp, limited

HEARD: list[int] = []


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    """Somebody else's handler, which is to be in force again."""

    def hear(signum: int, frame: FrameType | None) -> None:
        HEARD.append(signum)

    before = signal.signal(signal.SIGALRM, hear)
    yield hear
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def timer() -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]


def test_what_the_work_gives_is_given_back(handler: Any) -> None:
    assert limited(5, lambda: "done" if timer() > 0 else "no timer runs") == "done"
    assert timer() == 0
    assert signal.getsignal(signal.SIGALRM) is handler


def test_what_the_work_raises_is_raised(handler: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        limited(5, lambda: 1 // 0)
    assert timer() == 0
    assert signal.getsignal(signal.SIGALRM) is handler


def test_no_limit_sets_no_timer() -> None:
    assert limited(0, timer) == 0


def test_time_is_up_in_pure_python_too() -> None:
    late = time.monotonic() + 15

    def work() -> None:
        while time.monotonic() < late:
            pass

    with pytest.raises(TimeIsUp):
        limited(0.05, work)


def test_wherever_the_alarm_comes_nothing_is_left_behind(handler: Any) -> None:
    """It comes at the beginning and the end of each call in turn, Python's and C's: where handlers run."""
    for moment in range(100):
        left = moment

        def alarm(frame: FrameType, event: str, arg: object) -> None:
            nonlocal left
            left -= 1
            if left == -1:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGALRM)

        sys.setprofile(alarm)
        try:
            assert limited(5, lambda: len("done")) == 4
        except TimeIsUp:
            assert left == -1
        finally:
            sys.setprofile(None)
        assert timer() == 0, moment
        assert signal.getsignal(signal.SIGALRM) is handler, moment
        if left >= 0:
            break
    assert moment > 8, "nothing was tried"
