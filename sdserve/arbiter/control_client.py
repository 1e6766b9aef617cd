"""One connection to the control socket: reads what it asks, and keeps what it is told until it has read that.

Nothing here waits for the client, and nobody waits for it: of many requests one is heard in each turn of the loop. A
client that asks nothing, or does not read an answer, is forgotten after a while. One that reads a stream more slowly
than it flows is told that it has missed something, and nothing more.
"""

import select
import socket
from collections import deque
from collections.abc import Callable

from sdserve.arbiter.call import Call, Message
from sdserve.arbiter.loop import NO_DEADLINE, Loop
from sdserve.ops import dialects
from sdserve.ops.commands import Command
from sdserve.ops.dialects import NUL, Framer, Request, TooLongError

ASK_WITHIN = 10.0  # seconds from the connection, or the last answer, to the end of a request
READ_WITHIN = 10.0  # seconds within which a client has to read a part of its answer
LOOK_EVERY = 10.0  # seconds between two looks whether a client that has closed its half is still there
MOST_UNREAD = 256 * 1024  # bytes of a stream that wait for a client to read them


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
        self._framer = Framer()
        self._call: Call | None = None
        self._oneway = False
        self._unread: deque[bytes] = deque()
        self._full = False  # the socket takes no more for now
        self._deaf = False  # the client has closed its half, and may still wait for the answer
        self._last = False  # the connection ends once everything is written
        self._taking = False
        self._ended = False
        self._deadline = NO_DEADLINE
        sock.setblocking(False)
        loop.watch(self, self._readable)
        self._end_within(ASK_WITHIN)

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
        if self._ended:
            return
        self._ended = True
        if self._call is not None:
            self._call.drop()
        self._deadline.cancel()
        self._loop.drop(self)
        self._on_end(self)

    def _end_within(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self._loop.call_at(self._loop.now() + seconds, self.end)

    def _stay(self) -> None:
        """Lets a client wait that has closed its half; forgets one that has gone: recv(2) cannot tell them apart."""
        self._deadline.cancel()
        looked = select.poll()
        looked.register(self._sock, 0)  # poll(2) reports POLLHUP unasked
        if looked.poll(0):
            self.end()
        else:
            self._deadline = self._loop.call_at(self._loop.now() + LOOK_EVERY, self._stay)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(dialects.LONGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data and self._call is not None:
            self._deaf = True
            self._loop.unwatch(self)
            self._stay()
            return
        try:
            self._framer.feed(data)
        except TooLongError:
            data = b""
        if data:
            self._take()
        else:
            self.end()

    def _take(self) -> None:
        """Takes the next request. In sdservectl's dialect a connection has one."""
        if self._taking or not self._listens or (message := self._framer.next()) is None:
            return
        self._taking = True
        request = dialects.read(self._framer.dialect, message)
        if request is None:
            self.end()
        else:
            self._hear(request)
        self._taking = False
        if self._listens and self._framer.has_next:
            self._loop.call_at(self._loop.now(), self._take)

    @property
    def _listens(self) -> bool:
        """Whether another request can be heard: the last one has been answered, and the answer was taken."""
        return not (self._call or self._unread or self._last or self._ended)

    def _hear(self, request: Request) -> None:
        self._oneway = request.oneway
        self._last = self._framer.dialect != NUL
        if request.answered is not None:
            self._write(dialects.introspected(request.answered))
        elif request.command is None:
            self._write(dialects.refusal(self._framer.dialect, request.failure, request.text, request.fields))
        else:
            self._last = False
            self._deadline.cancel()  # the answer may take as long as it likes
            self._call = call = Call(self._say, request.parameters, request.more)
            self._on_call(self, request.command, call)

    def _say(self, message: Message) -> bool:
        if self._ended or self._last:
            return False
        dialect = self._framer.dialect
        if message.continues:
            if sum(map(len, self._unread)) > MOST_UNREAD:
                self._leave_behind()
                return False
            self._write(dialects.answer(dialect, message.text, message.fields, continues=True))
            return not self._ended
        if message.failure:
            data = dialects.refusal(dialect, message.failure, message.text, message.fields)
        else:
            data = dialects.answer(dialect, message.text, message.fields)
        self._call = None
        self._last = dialect != NUL
        self._write(data)
        return False

    def _leave_behind(self) -> None:
        """Drops what the client has not read, except a message that it has begun to read, and tells it so."""
        lost = len(self._unread)  # without the first one, which is written to its end, and with the one that comes now
        self._unread = deque([self._unread[0]])
        self._last, self._call = True, None
        text = f"{lost} messages were not read in time and are lost, nothing follows"
        self._write(dialects.refusal(self._framer.dialect, "TooSlow", text, {"lost": lost}))

    def _write(self, data: bytes) -> None:
        if not self._oneway:
            self._unread.append(data)
        if not self._full:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unread:
                sent = self._sock.send(self._unread[0])
                if sent < len(self._unread[0]):
                    self._unread[0] = self._unread[0][sent:]
                else:
                    self._unread.popleft()
        except BlockingIOError:
            self._end_within(READ_WITHIN)
            self._await_room(True)
            return
        except OSError:  # it has gone
            self.end()
            return
        if self._last:
            self.end()
            return
        self._await_room(False)
        if self._call is None:
            self._end_within(ASK_WITHIN)
            self._take()
        elif self._deaf:
            self._stay()
        else:
            self._deadline.cancel()

    def _await_room(self, full: bool) -> None:
        """Waits for room to write instead of for something to read, or the other way round."""
        if self._full is full:
            return
        self._full = full
        self._loop.unwatch(self)
        if full:
            self._loop.watch(self, self._flush, full=True)
        elif not self._deaf:
            self._loop.watch(self, self._readable)
