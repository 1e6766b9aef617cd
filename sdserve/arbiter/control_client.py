"""One connection to the control socket: it moves the bytes of a conversation (conversation.py), and bounds its time.

Nothing here waits for the client, and nobody waits for it: of many requests one is heard in each turn of the loop. A
client that asks nothing, or does not read an answer, is forgotten after a while.
"""

import select
import socket
from collections.abc import Callable
from functools import partial

from sdserve.arbiter.call import Call, Message
from sdserve.arbiter.conversation import Conversation, Stage
from sdserve.arbiter.loop import NO_DEADLINE, Loop
from sdserve.ops import dialects
from sdserve.ops.commands import Command

READING = (Stage.ASKING, Stage.WAITING)
WRITING = (Stage.BEHIND, Stage.ANSWERED, Stage.LEAVING)
READ_WITHIN = 10.0  # seconds within which a client has to read a part of what it is told
# Seconds that a stage may last; an answer takes as long as it likes.
WITHIN = {
    Stage.ASKING: 10.0,  # from the connection, or the last answer, to the end of a request
    Stage.READY: 0.0,  # the loop has a turn for others in between
    Stage.MUTE: 10.0,  # between two looks whether it is still there
    **dict.fromkeys(WRITING, READ_WITHIN),
}


class ControlClient:
    """One client. Calls `on_call` with each command, and `on_end` when the connection is over."""

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        on_call: Callable[["ControlClient", Command, Call], None],
        on_end: Callable[["ControlClient"], None],
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_call = on_call
        self._on_end = on_end
        self._talk = Conversation()
        self._settled: Stage | None = None  # the stage that the loop waits for
        self._call: Call | None = None  # the one that it waits for
        self._deadline = NO_DEADLINE
        sock.setblocking(False)
        self._settle()

    @property
    def waits(self) -> bool:
        """Whether it waits for an answer."""
        return self._call is not None

    @property
    def follows(self) -> bool:
        """Whether it is told one thing after the other, until it goes."""
        return self._call is not None and self._call.more

    def refuse(self, failure: str, text: str) -> None:
        """Has what it waits for end so."""
        if self._call is not None:
            self._call.fail(failure, text)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """Closes the connection, in a forked child too; `end` is for who lives on."""
        self._sock.close()

    def end(self) -> None:
        """Forgets the client."""
        if self._settled is Stage.OVER:
            return
        self._settled = Stage.OVER
        self._talk.end()
        if self._call is not None:
            self._call.drop()
            self._call = None
        self._deadline.cancel()
        self._loop.drop(self)
        self._on_end(self)

    # --- what the loop waits for --------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Has the loop wait for what the stage waits for, if that is another one than before."""
        stage = self._talk.stage
        if stage is self._settled:
            return
        if stage is Stage.OVER:
            self.end()
            return
        self._settled = stage
        self._loop.unwatch(self)
        if stage in READING:
            self._loop.watch(self, partial(self._or_end, self._readable))
        elif stage in WRITING:
            self._loop.watch(self, partial(self._or_end, self._flush), full=True)
        self._give_time()

    def _give_time(self) -> None:
        """The time that the stage may last begins."""
        self._deadline.cancel()
        seconds = WITHIN.get(self._talk.stage)
        if seconds is not None:
            self._deadline = self._loop.call_at(self._loop.now() + seconds, partial(self._or_end, self._due))

    def _or_end(self, step: Callable[[], None]) -> None:
        """What fails in a way that nobody foresaw ends the client, and is for the loop to tell."""
        try:
            step()
        except Exception:
            self.end()
            raise

    # --- what the loop has found --------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._sock.recv(dialects.LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._talk.hear(data)
        self._settle()
        if self._talk.stage is Stage.MUTE:
            self._look()

    def _due(self) -> None:
        if self._talk.stage is Stage.READY:
            self._hear()
        elif self._talk.stage is Stage.MUTE:
            self._look()
        else:
            self.end()

    def _look(self) -> None:
        """Forgets a mute client that has gone, and lets another one wait: recv(2) cannot tell them apart."""
        looked = select.poll()
        looked.register(self._sock, 0)  # poll(2) reports POLLHUP unasked
        if looked.poll(0):
            self.end()
        else:
            self._give_time()

    def _hear(self) -> None:
        self._settled = None  # it may be ready again at once, and has another turn then
        request = self._talk.take()
        if request is not None and request.command is not None:
            self._call = call = Call(self._say, request.parameters, request.more)
            self._on_call(self, request.command, call)
            self._settle()
        else:
            self._flush()

    def _say(self, message: Message) -> bool:
        """What a call is answered by. Whether anybody hears more of it."""
        was_full = bool(self._talk.unread)
        if not self._talk.say(message):
            self._call = None
        if was_full:
            self._settle()
        else:
            self._flush()
        return self.waits

    def _flush(self) -> None:
        """Sends what the client takes now."""
        talk = self._talk
        try:
            while talk.unread:
                talk.sent(self._sock.send(talk.unread[0]))
        except BlockingIOError:
            self._give_time()
        except OSError:  # it has gone
            self.end()
        self._settle()
