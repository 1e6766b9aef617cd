"""What a client is polled for while the application has its request, and what its events mean: no sockets here.

An event may be older than what is polled for now. Between the poll and its turn the calls of other clients come, and
they may change that: a message to this client leaves no room for what it sends itself. So an event says no more than
its own bits do, and only what is still asked for. What is ignored is reported again once somebody wants it. Nor need it
be of this client: that of another one, which was closed meanwhile, may have had the descriptor. An end is asked of the
socket itself, before it is believed. Whatever else an event is about, reading or writing shows.
"""

import select
from enum import Enum

from sdserve.workers.http.client import EPOLLIN, EPOLLOUT

EPOLLRDHUP = select.EPOLLRDHUP
BROKEN = select.EPOLLERR | select.EPOLLHUP  # epoll(7) reports these unasked; asked for alone they poll for nothing


class News(Enum):
    NONE = 0
    BYTES = 1  # or the end behind them, or an error: reading tells
    END = 2  # the client sends nothing more
    BROKEN = 3  # nor does it take anything


def interest(half_closed: bool, reads: bool, between: bool, owed: bool) -> int:
    """What to poll for. Bytes as long as there is room for them (`reads`); without it, the end behind what waits, where
    that is no part of a body (`between` requests): a body must have ended first. Room, if the client is `owed` some of
    its answer."""
    if half_closed:
        mask = BROKEN
    elif reads:
        mask = EPOLLIN
    else:
        mask = EPOLLRDHUP if between else BROKEN
    return mask | EPOLLOUT if owed else mask


def news(event: int, interest: int) -> News:
    """What an event says of what the client sends, `interest` being what is polled for by now."""
    if not event & ~EPOLLOUT:
        return News.NONE
    if interest & EPOLLIN:
        return News.BYTES
    if event & BROKEN:
        return News.BROKEN
    return News.END if event & interest & EPOLLRDHUP else News.NONE
