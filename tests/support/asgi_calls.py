"""Who is on the other side of an ASGI call in its unit tests: the client and the worker in one, without sockets."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sdserve.gateway.asgi import AsgiHeads
from sdserve.http.errors import HTTPError
from sdserve.http.writer import ClientGone

LOG: Any = logging.getLogger(__name__)


class OtherSide:
    """The peer of a call, and its host. `sent` is what the peer was sent, `told` what the host was told."""

    call: Any

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.heads = AsgiHeads("sdserve")
        self.heads.clock(1000)
        self.sent = b""
        self.owed = 0
        self.stalls = False  # nothing of what it is sent is taken
        self.broken = False
        self.late = False  # what it has sent was not read yet
        self.told: list[str] = []

    # --- the peer

    @property
    def full(self) -> bool:
        return self.owed > 0

    def gone(self, quiet: float) -> bool:
        return False

    def send(self, data: bytes) -> None:
        if self.broken:
            raise ClientGone("broken pipe")
        self.sent += data
        if self.stalls:
            self.owed += len(data)

    def send_parts(self, parts: Any, *, whole: bool) -> None:
        self.send(b"".join(parts))

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None: ...

    def send_continue(self) -> None: ...

    def received(self, data: bytes, now: float) -> bool:
        return False

    def has_news(self) -> bool:
        return self.late

    def takes_all(self) -> None:
        """The peer reads what it was sent."""
        self.owed = 0
        self.call.news()

    # --- the host

    def wants_body(self, call: Any) -> None: ...

    def wants_room(self, call: Any) -> None:
        self.told.append("wants room")

    def in_pieces(self, call: Any) -> Any:
        return self

    def lost(self, call: Any, why: ClientGone) -> None:
        self.told.append("lost")
        call.lose()

    def refused(self, call: Any, error: HTTPError) -> None:
        self.told.append(f"refused with {error.status}")
        call.refuse()

    def completed(self, call: Any) -> None:
        assert call.complete
        self.told.append("completed")
        call.let_go()

    def cuts(self, call: Any) -> None:
        self.told.append("cut")

    def ended(self, call: Any) -> None: ...


C = TypeVar("C", bound=OtherSide)


def played(make: Callable[[], C], story: Callable[[C], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test of a coroutine, with another side of its own."""

    async def play() -> None:
        async with asyncio.timeout(20):
            await story(make())

    def test() -> None:
        asyncio.run(play())

    return test


async def turns() -> None:
    """Whatever can go on goes on."""
    for _ in range(5):
        await asyncio.sleep(0)
