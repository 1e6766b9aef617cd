"""What a worker says of requests that last, when its master asks for somebody who follows `sdservectl top`.

One datagram: the time, and a line for each request, all in printable ASCII, whatever clients have sent. The worker
finds the requests only when it is asked, so that those that do not last cost nothing.
"""

import math
from collections.abc import Iterable
from heapq import nsmallest

from sdserve.immutable import Immutable
from sdserve.status import plain

LASTS = 1.0  # seconds after which a request is named
MOST = 8  # requests that one worker names
LONGEST = 200  # characters of a request
CUT = "..."


class Lasting(Immutable):
    """A request in the application. `began`: monotonic seconds; `answers`: its answer has begun, as a stream's has."""

    answers: bool
    began: float
    request: str


def encode(calls: Iterable[Lasting], now: float) -> bytes:
    """What there is to say at `now`: those that have not begun to answer come first, then those that last longest."""
    lasting = [call for call in calls if now - call.began >= LASTS]
    lines = [
        f"{call.began:.3f} {call.answers:d} {_short(call.request)}"
        for call in nsmallest(MOST, lasting, key=lambda call: (call.answers, call.began))
    ]
    return "\n".join([repr(now), *lines]).encode("ascii")  # in full: it must not seem to come before the question


def decode(said: bytes) -> tuple[float, tuple[Lasting, ...]]:
    """When it was said, and what. Raises ValueError where that makes no sense: a broken worker may say anything."""
    first, *lines = said.decode("ascii").split("\n")
    parts = [line.split(" ", 2) for line in lines[:MOST]]
    calls = tuple(Lasting(answers == "1", _time(began), _short(request)) for began, answers, request in parts)
    return _time(first), calls


def _time(text: str) -> float:
    when = float(text)
    if not 0.0 <= when < math.inf:
        raise ValueError(f"{text} is no time")
    return when


def _short(text: str) -> str:
    text = plain(text)
    return text if len(text) <= LONGEST else text[: LONGEST - len(CUT)] + CUT
