"""Whether another master has an address as well, and what becomes of one that this master serves no more.

Two masters may have the same listener: one has passed it to the other, at an upgrade or at a reload during one. What
one of them gives up stays open, and keeps its file, until the other no longer serves it. Until then it can be served
again: nobody could open it anew.

At a stop the address is shut before the workers are told to leave, and given up a moment later. Otherwise clients would
wait in the copy that a booting worker has, and nobody would ever accept them.
"""

from collections.abc import Iterable, Sequence

from sdserve.arbiter.generation import Generation
from sdserve.arbiter.service import Service
from sdserve.process.giving_up import HANDSHAKE, give_up, shut
from sdserve.process.listeners import OBSERVED, Listener
from sdserve.workers.words import RETIRE

GIVEN_UP = 2.5 * HANDSHAKE  # seconds after the workers were told to leave; their last look is before that


class Addresses:
    """Of one master: of all its listeners, those of a generation that is not in force and those for metrics too."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._passed: list[Listener] = []  # by the old master to this one, or by this one to a new one
        self._left: list[Listener] = []  # given up here, while another master may serve them
        self._ending: list[Listener] = []  # at the end of this master, until nobody waits there

    # --- between two masters ------------------------------------------------------------------------------------------

    def share(self, listeners: Iterable[Listener]) -> None:
        """The old master has passed these to this one, or this one to a new one."""
        self._passed += listeners

    def pass_all(self) -> Sequence[Listener]:
        """What a new master is executed with."""
        self._passed = [*self._service.listeners, *self._service.observed]
        return self._passed

    def unshared(self, listeners: Iterable[Listener]) -> Sequence[Listener]:
        """Those of them that the new master has still to get, since they were opened after it was executed."""
        return [each for each in listeners if each not in self._passed]

    def alone(self) -> None:
        """No other master serves any more: what was left to it is given up, by nobody else."""
        left, self._left, self._passed = self._left, [], []
        held = [*self._service.listeners, *self._service.outgoing]
        for listener in left:
            if listener not in held:  # served again since
                self._give_up(listener)

    def _shared(self, listener: Listener) -> bool:
        return listener in self._passed and self._service.shares_listeners

    # --- what is served no more ---------------------------------------------------------------------------------------

    @property
    def unserved(self) -> Sequence[Listener]:
        """The listeners that are open here, and that no worker of the generation in force serves."""
        service = self._service
        return [*service.outgoing, *(each for each in self._left if each not in service.listeners)]

    def available(self, generation: Generation) -> list[Listener]:
        """Those that the generation after this one may serve, so that it need not open them."""
        return [*generation.listeners, *(each for each in self._left if each.name not in OBSERVED)]

    def leave(self, listeners: Iterable[Listener]) -> None:
        """These are open, and nobody serves them here: another master may, and a reload may take them up."""
        self._left += listeners

    def take_up(self, listeners: Sequence[Listener]) -> None:
        """These are served here again."""
        self._left = [each for each in self._left if each not in listeners]

    def let_go(self, listener: Listener) -> None:
        """Nobody here serves it any more."""
        if self._shared(listener):
            self._left.append(listener)
        else:
            self._give_up(listener)

    def shut(self, listeners: Iterable[Listener]) -> None:
        """Before all workers leave: nobody else arrives at what we bound. The workers take those who have."""
        self._ending = [each for each in listeners if each.own and not self._shared(each) and shut(each)]

    def end(self, listeners: Iterable[Listener]) -> None:
        """The workers have been told to leave. Nobody shall wait in the copy that a booting one has."""
        self.close(each for each in listeners if each not in self._ending)
        for listener in self._ending:
            listener.unlink()
        self._service.loop.call_at(self._service.loop.now() + GIVEN_UP, self._end)

    def _end(self) -> None:
        """Whoever came after the workers' last look goes to the adoption queue, from which they take it back."""
        ending, self._ending = self._ending, []
        for listener in ending:
            self._give_up(listener)
        for handle in self._service.children:
            handle.tell(RETIRE)  # once more: it wakes a worker that waits for the last of its requests

    def close(self, listeners: Iterable[Listener]) -> None:
        """At the end of this master. A Unix socket's file is removed by the last one that has it."""
        for listener in listeners:
            if not self._shared(listener):
                listener.unlink()
            listener.close()

    def _give_up(self, listener: Listener) -> None:
        """Clients that wait at it have arrived: the workers that serve on get them."""
        service = self._service
        listener.unlink()
        adopts = service.generation is not None and service.generation.worker_class.adopts
        if adopts and listener.own and listener.name not in OBSERVED:
            trouble = give_up(listener, service.adoption.queue)
            if trouble is not None:
                service.log.warning("%s is given up, and some who waited there are lost: %s", listener, trouble)
        listener.close()
