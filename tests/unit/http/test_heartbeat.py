"""The heartbeat of a WebSocket: silence is asked about, and only silence ends it."""

from math import inf as NEVER

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdserve.http.heartbeat import Beat, Heartbeat

WAIT, PING, GONE = Beat


def test_silence_is_asked_about_and_an_answer_begins_anew() -> None:
    heart = Heartbeat(20, 10, 100)
    assert (heart.due(), heart.beat(119.9)) == (120, WAIT)
    assert (heart.beat(120), heart.due()) == (PING, 130)
    heart.heard = 121
    assert (heart.beat(130), heart.due()) == (WAIT, 141)
    assert (heart.beat(141), heart.beat(150.9), heart.beat(151)) == (PING, WAIT, GONE)


def test_who_is_busy_sending_is_never_pinged() -> None:
    heart = Heartbeat(20, 10, 0)
    for now in range(1000):
        heart.heard = now
        assert heart.beat(now + 1) is WAIT


def test_an_answer_in_the_same_moment_is_one() -> None:
    heart = Heartbeat(20, 10, 0)
    assert heart.beat(20) is PING
    heart.heard = 20
    assert (heart.due(), heart.beat(30)) == (40, WAIT)


def test_without_an_interval_nothing_is_asked() -> None:
    heart = Heartbeat(0, 10, 0)
    assert (heart.due(), heart.beat(1e9)) == (NEVER, WAIT)


def test_without_a_timeout_nobody_is_gone() -> None:
    heart = Heartbeat(20, 0, 0)
    assert [heart.beat(now) for now in (20, 30, 40, 60)] == [PING, WAIT, PING, PING]


@pytest.mark.parametrize("timeout", [1, 5, 50])
@given(silences=st.lists(st.integers(1, 100), max_size=20))
def test_gone_is_who_was_silent_for_interval_and_timeout(timeout: int, silences: list[int]) -> None:
    """Looked at whenever it is due, as a loop does."""
    heart, now = Heartbeat(20, timeout, 0), 0.0
    for silence in silences:
        end, gone = now + silence, False
        while (due := heart.due()) < end and not gone:
            gone = heart.beat(due) is GONE
        assert gone == (silence > 20 + timeout)
        if gone:
            return
        now = heart.heard = end
