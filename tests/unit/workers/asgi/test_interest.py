"""What is polled for during a call, and what an event means that may be older than that."""

from itertools import product

import pytest

from sdserve.workers.asgi.interest import BROKEN, EPOLLRDHUP, News, interest, news
from sdserve.workers.http.client import EPOLLIN, EPOLLOUT

HUP = 0x10
NOTHING_READ = (EPOLLRDHUP, EPOLLRDHUP | EPOLLOUT, BROKEN, BROKEN | EPOLLOUT)


@pytest.mark.parametrize("owed", [False, True])
def test_bytes_are_polled_for_while_there_is_room_and_only_the_end_behind_them_without(owed: bool) -> None:
    room = EPOLLOUT if owed else 0
    for between in (False, True):
        assert interest(half_closed=False, reads=True, between=between, owed=owed) == EPOLLIN | room
    assert interest(half_closed=False, reads=False, between=True, owed=owed) == EPOLLRDHUP | room
    assert interest(half_closed=False, reads=False, between=False, owed=owed) == BROKEN | room


def test_of_a_client_that_has_ended_nothing_is_polled_for_but_room() -> None:
    """An end that is known would be reported again and again."""
    for reads, between in product((False, True), repeat=2):
        assert interest(half_closed=True, reads=reads, between=between, owed=False) == BROKEN
        assert interest(half_closed=True, reads=reads, between=between, owed=True) == BROKEN | EPOLLOUT


def test_whatever_is_reported_while_bytes_are_polled_for_reading_tells() -> None:
    for event, polled in product((EPOLLIN, EPOLLRDHUP, HUP, EPOLLIN | BROKEN), (EPOLLIN, EPOLLIN | EPOLLOUT)):
        assert news(event, polled) is News.BYTES


def test_room_is_no_news() -> None:
    for polled in (EPOLLIN, EPOLLIN | EPOLLOUT, *NOTHING_READ, 0):
        assert news(EPOLLOUT, polled) is News.NONE


def test_bytes_that_nobody_polls_for_any_more_are_no_end() -> None:
    for event, polled in product((EPOLLIN, EPOLLIN | EPOLLOUT), NOTHING_READ):
        assert news(event, polled) is News.NONE


def test_the_end_is_one_if_it_is_asked_for() -> None:
    for event in (EPOLLRDHUP, EPOLLRDHUP | EPOLLIN, EPOLLRDHUP | EPOLLOUT):
        assert news(event, EPOLLRDHUP) is News.END
        assert news(event, EPOLLRDHUP | EPOLLOUT) is News.END
        assert news(event, BROKEN) is News.NONE  # it is known, or stands behind a part of a body that waits


def test_a_broken_connection_is_one_whatever_is_polled_for() -> None:
    for event, polled in product((HUP, BROKEN, HUP | EPOLLRDHUP, HUP | EPOLLIN | EPOLLRDHUP), NOTHING_READ):
        assert news(event, polled) is News.BROKEN
