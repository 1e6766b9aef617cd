"""What one client of the control socket asks and is told: its stages, and the moves between them. No I/O, no clock.

A client asks, waits, is answered, takes the answer, and asks again: one request after the other, in the order in which
they came. In sdservectl's dialect the first answer is the last. What is told meanwhile, and is not taken, waits here,
up to a limit: whoever reads a stream more slowly than it flows is told so, and nothing more.
"""

from collections import deque
from collections.abc import Mapping
from enum import Enum

from sdserve.arbiter.call import Message
from sdserve.arbiter.lifecycle import advance
from sdserve.ops import dialects
from sdserve.ops.dialects import NUL, Framer, Request, TooLongError

MOST_UNREAD = 256 * 1024  # bytes of a stream that wait for a client to take them


class Stage(Enum):
    """What a client is doing, and so what is waited for."""

    ASKING = "asking"  # its next request is not whole yet
    READY = "ready"  # that is whole, and its turn comes: nothing is read before
    WAITING = "waiting"  # for the answer to a call, or for one more of several
    MUTE = "mute"  # the same, and it has closed its half: it may still listen, or it may have gone
    BEHIND = "behind"  # the same, and it has not taken yet what it was told so far
    ANSWERED = "answered"  # it has not taken its answer yet; then it may ask again
    LEAVING = "leaving"  # it has not taken yet the last that it is told
    OVER = "over"


class Event(Enum):
    ASKS = "a request is whole"
    CALLS = "its request is the service's now"
    CLOSES = "it closes its half"
    TOLD = "it is told one thing of several"
    ANSWERED = "it is answered"
    DISMISSED = "it is told the last"
    TAKES = "it has taken all that it was told"
    ENDS = "it has gone, or is not waited for"


S, E = Stage, Event
MOVES: Mapping[Stage, Mapping[Event, Stage]] = {
    S.ASKING: {E.ASKS: S.READY, E.CLOSES: S.OVER, E.ENDS: S.OVER},
    S.READY: {E.CALLS: S.WAITING, E.ANSWERED: S.ANSWERED, E.DISMISSED: S.LEAVING, E.ENDS: S.OVER},
    S.WAITING: {
        E.TOLD: S.BEHIND,
        E.ANSWERED: S.ANSWERED,
        E.DISMISSED: S.LEAVING,
        E.CLOSES: S.MUTE,
        E.ENDS: S.OVER,
    },
    S.MUTE: {E.TOLD: S.BEHIND, E.ANSWERED: S.ANSWERED, E.DISMISSED: S.LEAVING, E.ENDS: S.OVER},
    S.BEHIND: {
        E.TOLD: S.BEHIND,
        E.TAKES: S.WAITING,  # a mute one is found to be so again
        E.ANSWERED: S.ANSWERED,
        E.DISMISSED: S.LEAVING,
        E.ENDS: S.OVER,
    },
    S.ANSWERED: {E.TAKES: S.ASKING, E.ENDS: S.OVER},
    S.LEAVING: {E.TAKES: S.OVER, E.ENDS: S.OVER},
    S.OVER: {E.ENDS: S.OVER},
}


class Conversation:
    """One client's. `unread` is what it has not taken yet: `sent` says how much of the first piece it has."""

    def __init__(self) -> None:
        self.stage = Stage.ASKING
        self.unread: deque[bytes] = deque()
        self._framer = Framer()
        self._oneway = False  # the present request wants no answer

    def hear(self, data: bytes) -> None:
        """Bytes have come; none: it has closed its half."""
        if not data:
            self._move(Event.CLOSES)
            return
        try:
            self._framer.feed(data)
        except TooLongError:
            self._move(Event.ENDS)
            return
        self._look_for_request()

    def take(self) -> Request | None:
        """The request whose turn has come, if it is for the service; any other is answered here, or ends all."""
        try:
            message = self._framer.next()
        except TooLongError:
            self._move(Event.ENDS)
            return None
        assert message is not None, "no request is whole"
        dialect = self._framer.dialect
        request = dialects.read(dialect, message)
        if request is None:
            self._move(Event.ENDS)
            return None
        self._oneway = request.oneway
        if request.answered is not None:
            self._answer(dialects.introspected(request.answered))
        elif request.command is None:
            self._answer(dialects.refusal(dialect, request.failure, request.text, request.fields))
        else:
            self._move(Event.CALLS)
            return request
        return None

    def say(self, message: Message) -> bool:
        """Tells it what has come of its call; whether it hears more of that."""
        dialect, text, fields = self._framer.dialect, message.text, message.fields
        if message.failure:
            self._answer(dialects.refusal(dialect, message.failure, text, fields))
        elif not message.continues:
            self._answer(dialects.answer(dialect, text, fields))
        elif sum(map(len, self.unread)) > MOST_UNREAD:
            self._leave_behind()
        else:
            self._tell(Event.TOLD, dialects.answer(dialect, text, fields, continues=True))
            return True
        return False

    def sent(self, count: int) -> None:
        """It has taken so many bytes of the first piece."""
        piece = self.unread.popleft()
        if count < len(piece):
            self.unread.appendleft(piece[count:])
        self._look_whether_taken()

    def end(self) -> None:
        """It has gone, or is not waited for: nothing of it is kept."""
        self._move(Event.ENDS)
        self.unread.clear()
        self._framer = Framer()

    def _move(self, event: Event) -> None:
        self.stage = advance(MOVES, self.stage, event)

    def _answer(self, data: bytes) -> None:
        self._tell(Event.ANSWERED if self._framer.dialect == NUL else Event.DISMISSED, data)

    def _leave_behind(self) -> None:
        """Drops what it has not taken, except a message that it has begun to take, and tells it so."""
        lost = len(self.unread)  # without the first one, which is sent to its end, and with the one that comes now
        text = f"{lost} messages were not read in time and are lost, nothing follows"
        told = dialects.refusal(self._framer.dialect, "TooSlow", text, {"lost": lost})
        while len(self.unread) > 1:
            self.unread.pop()
        self._tell(Event.DISMISSED, told)

    def _tell(self, event: Event, data: bytes) -> None:
        self._move(event)
        if not self._oneway:
            self.unread.append(data)
        self._look_whether_taken()

    def _look_whether_taken(self) -> None:
        if not self.unread:
            self._move(Event.TAKES)
            self._look_for_request()

    def _look_for_request(self) -> None:
        if self.stage is Stage.ASKING and self._framer.has_next:
            self._move(Event.ASKS)
