"""Which requests last: asked of the workers while somebody looks, and not waited for.

Nothing is written down for a request that does not last, so the worker has to be asked. It answers from a signal
handler of Python's, wherever its main thread is. One that is in C code answers when that comes back to the
interpreter, perhaps late; until then it is shown as one that has not said. The signal may interrupt what the
application waits for, so a worker in which nothing moves is asked once.
"""

from collections.abc import Iterable

from sdserve.arbiter.worker_handle import WorkerHandle
from sdserve.immutable import Immutable
from sdserve.process.counters import BUSY, THREADS
from sdserve.process.proc import standing
from sdserve.status import SlowRequest
from sdserve.workers.lasting import LASTS
from sdserve.workers.words import ASKED_CALLS

SOON = 0.05  # seconds in which one that can answer does, as a rule
AGAIN = 0.5  # seconds between two questions, at least, however many look
MOST = 32  # requests that are told


class Sight(Immutable):
    """What the master sees of a worker without asking it. Times are monotonic seconds, 0.0: never.

    alone: it has one thread, whose busy mark is that of its request; with more, or an event loop, the mark is renewed
    calls: requests that others than the leader have
    busy_since: its busy mark
    asked, answered: when it last was, and last did
    told: how many requests it named then
    """

    alone: bool
    calls: int
    busy_since: float
    asked: float
    answered: float
    told: int

    def is_busy(self, now: float) -> bool:
        """Whether it has not come to rest, or renewed its mark, for so long that a request may last."""
        return 0.0 < self.busy_since <= now - LASTS

    def is_to_be_asked(self, now: float) -> bool:
        if not (self.is_busy(now) or (self.calls and not self.alone)) or now - self.asked < AGAIN:
            return False
        if self.asked <= self.busy_since:
            return True  # it has moved since
        return self.has_answered and not (self.alone and self.told)

    @property
    def has_answered(self) -> bool:
        return self.answered >= self.asked > 0.0

    @property
    def is_told(self) -> bool:
        """Whether what it said is still so."""
        if self.alone:
            return self.has_answered and 0.0 < self.busy_since < self.answered
        return self.has_answered and bool(self.calls or self.busy_since)


def ask(handles: Iterable[WorkerHandle], now: float) -> bool:
    """Asks the workers whose requests may last; whether any was asked."""
    asked = False
    for handle in handles:
        if sight(handle).is_to_be_asked(now) and _ask(handle):
            handle.asked = now
            asked = True
    return asked


def sight(handle: WorkerHandle) -> Sight:
    counters = handle.worker.counters
    return Sight(
        alone=counters.get(THREADS) == 1,
        calls=counters.get(BUSY),
        busy_since=handle.cell.busy_since,
        asked=handle.asked,
        answered=handle.answered,
        told=len(handle.lasting),
    )


def _ask(handle: WorkerHandle) -> bool:
    """Whether a worker can be asked: it has not been stopped, and has the handler, without which it would end."""
    try:
        process = standing(handle.pid)
    except OSError:  # it has ended
        return False
    if process.stopped or not process.handles(ASKED_CALLS) or process.waits_for(ASKED_CALLS):
        return False
    handle.send(ASKED_CALLS)
    return True


def requests(handles: Iterable[WorkerHandle], now: float) -> tuple[SlowRequest, ...]:
    """The requests that last, as far as workers have said: those that have not begun to answer first, the oldest first.

    A worker that has been asked and has not said stands there with no request.
    """
    found = []
    for handle in handles:
        seen = sight(handle)
        who = handle.pid, handle.worker.slot
        if seen.is_told:
            found += [SlowRequest(*who, now - call.began, call.answers, call.request) for call in handle.lasting]
        elif seen.is_busy(now) and seen.asked > max(seen.answered, seen.busy_since):
            found.append(SlowRequest(*who, now - seen.busy_since, False, ""))
    return tuple(sorted(found, key=lambda each: (each.answers, -each.seconds))[:MOST])
