"""Where the adoption queue comes from, and when a leaving worker may use it.

The queue (process/adoption.py) is made once and then inherited: from the old master at an upgrade, from systemd's fd
store at a restart and after a crash. A connection in it is safe as long as somebody will serve it: a worker that stays
or follows, or, when this master ends, the next one, if systemd keeps the queue and starts the service again.

Whether it does, the signal says that ends this master (RestartKillSignal=, systemd.kill(5)). At a stop the store is
emptied, and whoever had sent a request to a connection in the queue would hear no more of it.
"""

import os
from collections.abc import Iterable

from sdserve.process.adoption import AdoptionQueue
from sdserve.process.scoreboard import HAND_ON, HAND_ON_CRASH, HAND_ON_RESTART, HAND_ON_SUCCESSORS, Cell
from sdserve.systemd import fdstore
from sdserve.systemd.activation import Passed
from sdserve.systemd.notify import Notifier


class Adoption:
    """The queue of one service as its master sees it. `kept` says that systemd keeps it beyond this master.

    A queue that an earlier master had is in the store already, so it is kept though systemd does not hear of it again.
    """

    def __init__(self, queue: AdoptionQueue, kept: bool, *, fresh: bool = False) -> None:
        self.queue = queue
        self.kept = self._to_be_kept = kept
        self._fresh = fresh
        self._stored = HAND_ON_CRASH

    @classmethod
    def found(cls, stored: Iterable[Passed], inherited: list[int], *, kept: bool) -> "Adoption":
        """The queue from systemd's store (`stored`), from the old master (`inherited`: its two ends), or a new one."""
        ends = {each.name: each.fd for each in stored}
        if len(inherited) == len(fdstore.NAMES):
            return cls(AdoptionQueue.inherited(*inherited), kept)
        if set(ends) >= set(fdstore.NAMES):
            return cls(AdoptionQueue.inherited(*(ends[name] for name in fdstore.NAMES)), True)
        for name in ends.keys() & set(fdstore.NAMES):  # one alone is no queue: whoever waits in it would do so for ever
            os.close(ends[name])
        return cls(AdoptionQueue.new(), kept, fresh=True)

    def store(self, notifier: Notifier) -> fdstore.Proof | None:
        """Has systemd keep both ends; storing what it has already changes nothing.

        Returns what becomes readable when it does not keep them; None where nobody is asked to.
        """
        self.kept = self._to_be_kept = self._to_be_kept and notifier.enabled
        if not self.kept or notifier.muted:
            return None
        proof = fdstore.Proof(notifier, dict(zip(fdstore.NAMES, self.queue.fds(), strict=True)))
        self.kept = proof.heard or not self._fresh
        return proof

    def refused(self) -> None:
        """systemd does not keep the queue: it is not asked again."""
        self.kept = self._to_be_kept = False

    def ends(self, *, restart: bool) -> None:
        """This master is ending, and no other serves: what is in the store is taken up by a restart only."""
        self._stored = HAND_ON_RESTART | HAND_ON_CRASH if restart else 0

    def allow(self, cell: Cell, *, successors: bool) -> None:
        """Tells a worker whether its idle connections will find somebody when it leaves.

        `successors` says that another worker serves, or will, whatever becomes of this master.
        """
        cell.set_word(HAND_ON, (HAND_ON_SUCCESSORS if successors else 0) | (self._stored if self.kept else 0))
