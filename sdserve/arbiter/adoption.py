"""Where the adoption queue comes from, and when a leaving worker may use it.

The queue (process/adoption.py) is made once and then inherited: from the old master at an upgrade, from systemd's fd
store at a restart and after a crash. A connection in it is safe as long as somebody will serve it: a worker that stays
or follows, or, when this master ends, the next one, if the queue is in the store.
"""

from collections.abc import Iterable

from sdserve.process.adoption import AdoptionQueue
from sdserve.process.scoreboard import HAND_ON, HAND_ON_STORE, HAND_ON_SUCCESSORS, Cell
from sdserve.systemd import fdstore
from sdserve.systemd.activation import Passed
from sdserve.systemd.notify import Notifier


class Adoption:
    """The queue of one service as its master sees it. `kept` says that systemd keeps it beyond this master."""

    def __init__(self, queue: AdoptionQueue, kept: bool) -> None:
        self.queue = queue
        self.kept = kept

    @classmethod
    def found(cls, stored: Iterable[Passed], inherited: list[int], *, kept: bool) -> "Adoption":
        """The queue from systemd's store (`stored`), from the old master (`inherited`: its two ends), or a new one."""
        ends = {each.name: each.fd for each in stored}
        if len(inherited) == len(fdstore.NAMES):
            return cls(AdoptionQueue.inherited(*inherited), kept)
        if set(ends) >= set(fdstore.NAMES):
            return cls(AdoptionQueue.inherited(*(ends[name] for name in fdstore.NAMES)), True)
        return cls(AdoptionQueue.new(), kept)

    def store(self, notifier: Notifier) -> None:
        """Has systemd keep both ends; storing what it has already changes nothing."""
        if self.kept:
            fdstore.store(notifier, dict(zip(fdstore.NAMES, self.queue.fds(), strict=True)))

    def allow(self, cell: Cell, *, successors: bool) -> None:
        """Tells a worker whether its idle connections will find somebody when it leaves.

        `successors` says that another worker serves, or will, whatever becomes of this master. Whether the service will
        be there again after this master's end only systemd knows: its store forgets at a stop what nobody came for.
        """
        cell.set_word(HAND_ON, (HAND_ON_SUCCESSORS if successors else 0) | (HAND_ON_STORE if self.kept else 0))
