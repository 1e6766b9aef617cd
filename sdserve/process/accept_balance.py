"""The balance between workers that accept: one with more than its fair share steps aside for a moment.

The kernel wakes the first worker of a queue (EPOLLEXCLUSIVE, epoll_ctl(2)); one that takes a connection goes to its
end. That alone is not fair when many connections come at once: the worker that runs already takes most of them while
the others are being woken.
So each worker writes into its cell how many connections it holds and when it went to the end of the queue, and one that
holds clearly more than a neighbour lets the next connection wait for that neighbour, once for each connection.

It does so only at the end of the queue: then all before it have been told of the connection and are on their way, and
nobody sleeps while a client waits. Neighbours that compute for a while are not waited for. Connections that others gave
away are told to all at once, and there the end of the queue is everywhere.

Who was there first has more than its share all the same: whatever waited for the start, and all that lasts. When all
workers serve, each gives away what it has too many (`surplus`).

The word: 0 when the worker takes no connections, else ticket << 32 | connections + 1. Two workers that draw the same
ticket both believe to be last; the connection then waits for the moment at most.
"""

from sdserve.process.scoreboard import BUSY_SINCE, PLACE, Cell

NEIGHBOURS = 64  # cells that are looked at, at most: of more workers than that the rest are not waited for
BUSY = 0.25  # seconds: whoever is busy for longer is in one long call; a mark under load is renewed more often
SLACK = 2  # connections, and an eighth, that a worker may hold more than a neighbour
COUNT = 0xFFFFFFFF  # the half of the word that counts connections; also the last ticket


def behind(places: list[int]) -> int:
    """The ticket behind all others. After the last one the first is drawn again, and 0 never.

    Who still holds the last one counts as last until it moves: for so long nobody else steps aside.
    """
    return (max(places) >> 32) % COUNT + 1


class AcceptBalance:
    """One worker's view of the queue, in which `workers` stand, or twice as many while they are being replaced.

    The worker is outside of it until `join`.
    """

    __slots__ = ("_cell", "_places", "_since", "_ticket", "_waited", "held")

    def __init__(self, cell: Cell, workers: int) -> None:
        neighbours = min(NEIGHBOURS, 2 * workers + 2)  # the scoreboard gives out its first cells first
        self._cell = cell
        self._places = cell.column(PLACE, neighbours)
        self._since = cell.times(BUSY_SINCE, neighbours)
        self._ticket = 0  # 0: not in the queue
        self._waited = (-1, 0)  # for whom, and its word then
        self.held = 0

    def join(self) -> None:
        """The worker has registered for new connections, behind all others."""
        self._ticket = behind(self._places.tolist())
        self._write()

    def leave(self) -> None:
        """The worker takes no connections any more: nobody waits for it."""
        self._ticket = 0
        self._cell.set_word(PLACE, 0)

    def adopted(self, connections: int) -> None:
        """Some were taken from others, and so many are open now."""
        self._waited = (-1, 0)
        self.hold(connections)

    def hold(self, connections: int) -> None:
        """So many connections are open."""
        self.held = connections
        if self._ticket:
            self._write()

    def took(self, connections: int) -> bool:
        """One more connection was taken. True when others are in the queue, and the worker has to go to its end."""
        self.held = connections
        self._waited = (-1, 0)
        if not self._ticket:
            return False
        places = self._places.tolist()
        others = len(places) - places.count(0) > 1
        if others:
            self._ticket = behind(places)
        self._write()
        return others

    def steps_aside(self, now: float) -> bool:
        """Whether the connection that waits is left to a neighbour for a moment; `now` in monotonic seconds."""
        if not self._ticket or self.held <= SLACK:
            return False
        places = self._places.tolist()
        if max(places) >> 32 > self._ticket:
            return False
        return self._waits_for_one(places, now)

    def leaves_to_others(self, now: float) -> bool:
        """The same of what all workers were told of."""
        return self._ticket > 0 and self.held > SLACK and self._waits_for_one(self._places.tolist(), now)

    def surplus(self) -> int:
        """How many connections the worker has beyond its share; 0 if none in the queue has clearly fewer."""
        own = self._cell.index  # its place is empty while it is full, and not looked at while many others retire
        counts = [(place & COUNT) - 1 for i, place in enumerate(self._places.tolist()) if place and i != own]
        counts.append(self.held)
        if not self._leads(min(counts)):
            return 0
        return max(0, self.held - -(-sum(counts) // len(counts)))

    def _leads(self, fewer: int) -> bool:
        """Whether this worker has clearly more connections than one with `fewer`."""
        return self.held > fewer + SLACK + fewer // 8

    def _waits_for_one(self, places: list[int], now: float) -> bool:
        for index, (place, busy) in enumerate(zip(places, self._since.tolist(), strict=True)):
            if place and not (busy and now - busy > BUSY) and self._leads((place & COUNT) - 1):
                if self._waited == (index, place):  # in vain: it did not come
                    return False
                self._waited = (index, place)
                return True
        return False

    def _write(self) -> None:
        self._cell.set_word(PLACE, self._ticket << 32 | self.held + 1)
