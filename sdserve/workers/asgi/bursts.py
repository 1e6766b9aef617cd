"""Large pieces of answers that come one after the other: they leave together.

An application that sends much in one step of the event loop would cost a system call for each piece, and its client as
many awakenings. So pieces of `BULK` bytes and more are gathered, until they are enough, or a small one comes, or the
answer is over, or the event loop is about to poll. What is small may be what somebody waits for, while the application
blocks the event loop: it leaves at once. All of it is in a send buffer when `send` returns, as the protocol has it.

What is enough grows with what the client takes at once, and falls back when it does not: nobody who reads slowly has
more waiting here than the kernel has already taken.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter

from sdserve.gateway.answer import Sink
from sdserve.gateway.asgi_call import Call, Host
from sdserve.http.writer import ClientGone
from sdserve.workers.http.client import PARTS

BULK = 4096  # bytes
LITTLE, MUCH = 65536, 262144  # bytes for one system call: what is enough at first, and at most


class Burst:
    """Where the pieces of a call's answer go, on their way to `sink`: one more Sink. While something is gathered,
    nothing else waits for the client."""

    __slots__ = ("_bursts", "_enough", "_parts", "_sink", "call", "size")

    full = property(attrgetter("_sink.full"))  # asked twice for each piece of an answer: no frame for that

    def __init__(self, call: Call, sink: Sink, bursts: "Bursts") -> None:
        self.call = call
        self._sink = sink
        self.size = 0  # bytes that were gathered
        self._parts: list[bytes] = []
        self._bursts = bursts
        self._enough = LITTLE

    def gone(self, quiet: float) -> bool:
        return self._sink.gone(quiet)

    def send(self, data: bytes) -> None:
        size = self.size
        if not size and (len(data) < BULK or self._sink.full):
            self._sink.send(data)
            return
        if not size:
            self._bursts.add(self)
        self._parts.append(data)
        self.size = size = size + len(data)
        if size >= self._enough or len(data) < BULK:
            self.release()

    def send_parts(self, parts: Sequence[bytes], *, whole: bool) -> None:
        """What comes in parts is large."""
        if self._sink.full:
            self._sink.send_parts(parts, whole=whole)
            return
        if not self.size:
            self._bursts.add(self)
        self._parts += parts
        self.size += sum(map(len, parts))
        if self.size >= self._enough:
            self.release()

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self.release()
        self._sink.send_file(head, fd, offset, count)

    def release(self) -> None:
        """Sends what was gathered."""
        if parts := self._parts:
            if len(parts) > PARTS:
                self._sink.send(b"".join(parts))
            else:
                self._sink.send_parts(parts, whole=True)
            self._parts, self.size = [], 0
            self._enough = LITTLE if self.full else min(MUCH, 2 * self._enough)

    def forget(self) -> None:
        """Nothing more of it is sent."""
        self._parts, self.size = [], 0


class Bursts:
    """Those of a worker. `settle` has `release` called before the event loop polls again."""

    def __init__(self, host: Host, settle: Callable[[], None]) -> None:
        self._host = host
        self._settle = settle
        self._gathering: list[Burst] = []

    def add(self, burst: Burst) -> None:
        """Something is gathered in it."""
        self._gathering.append(burst)
        self._settle()

    def release(self) -> None:
        """Sends what was gathered."""
        if self._gathering:
            bursts, self._gathering = self._gathering, []
            for burst in bursts:
                self.release_one(burst)

    def release_one(self, burst: Burst) -> None:
        """The host hears of who has gone, and who has not taken all."""
        if burst.size:
            try:
                burst.release()
            except ClientGone as error:
                self._host.lost(burst.call, error)
            else:
                if burst.full:
                    self._host.wants_room(burst.call)
