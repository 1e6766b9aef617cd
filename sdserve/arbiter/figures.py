"""The figures of a service for who follows them, from memory that its processes share.

The queues of its listeners are the kernel's word (ops/backlog.py), the requests that last what workers have said
(slow.py). Nothing here waits for anybody, or is kept for the next look.
"""

from sdserve.arbiter import slow
from sdserve.arbiter.service import Service
from sdserve.ops.backlog import waiting
from sdserve.ops.view import Watched, lives, look
from sdserve.process.counters import BOUNDS, OUTCOMES, RELOADS, UPGRADES
from sdserve.status import Answers, Backlog, Figures, WorkerFigures


def figures(service: Service) -> Figures:
    """What there is now, and all that was counted."""
    now = service.loop.now()
    view = look(Watched(service.cell, service.counters, service.children.scoreboard), now, lives)
    queues = [(str(each), waiting(each.sock)) for each in service.listeners if each.fileno() >= 0]
    reloads, upgrades = (view.totals.by_name(first, OUTCOMES) for first in (RELOADS, UPGRADES))
    return Figures(
        at=now,
        state=view.state,
        wanted=view.wanted,
        generation=view.generation,
        bounds=BOUNDS,
        answers=tuple(Answers(code, row.buckets) for code, row in view.totals.answers.items()),
        reloads=reloads["succeeded"],
        reloads_failed=reloads["failed"],
        upgrades=upgrades["succeeded"],
        upgrades_failed=upgrades["failed"],
        trouble=service.trouble,
        backlogs=tuple(Backlog(name, *queue) for name, queue in queues if queue is not None),
        workers=tuple(
            WorkerFigures(
                pid=each.pid,
                slot=each.slot,
                generation=each.generation,
                state=each.state,
                age=each.age,
                requests=each.requests,
                threads=each.threads,
                calls=each.calls,
                connections=each.connections,
                busy=each.busy or None,
            )
            for each in view.workers
        ),
        slow=slow.requests(service.children, now),
    )
