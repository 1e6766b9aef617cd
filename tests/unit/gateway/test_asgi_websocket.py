"""One WebSocket between an application and a worker: what waits for whom, and what each is told. Without sockets."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from math import inf as NEVER
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from sdserve.gateway.asgi import HIGH
from sdserve.gateway.asgi_call import Disconnected, Message
from sdserve.gateway.asgi_websocket import CLOSING, QUEUED, WebSocketCall
from sdserve.http.handshake import Handshake
from sdserve.http.heartbeat import Heartbeat
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.http.websocket import WebSocket
from sdserve.http.writer import ClientGone
from tests.support import asgi_calls
from tests.support.asgi_calls import LOG, OtherSide, turns

OPENING = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MOST = 32


class Client(OtherSide):
    """The other side of a WebSocket's call."""

    call: WebSocketCall

    def __init__(self) -> None:
        super().__init__()
        self.conn: Any = SimpleNamespace(state=None, buffered=b"")
        self.leaving = False
        request = RequestReader(Limits()).read(OPENING)
        socket = WebSocket(Handshake(request))
        self.call = WebSocketCall(self.heads, self, request, LOG, self, socket, Heartbeat(20, 10, 0), MOST)

    def takes_all(self) -> None:
        self.stalls = False
        super().takes_all()

    def wants_more(self, call: Any) -> None:
        self.told.append("wants more")
        assert call.reads() or call.goes_on()

    def opened(self, call: Any) -> None:
        self.told.append("opened")

    def waits_anew(self, call: Any) -> None:
        self.told.append("waits anew")

    async def accepted(self) -> WebSocketCall:
        assert await self.call.receive() == {"type": "websocket.connect"}
        await self.call.send({"type": "websocket.accept"})
        self.sent = b""
        return self.call

    def says(self, data: str | bytes, opcode: Opcode | None = None, now: float = 0.0) -> None:
        kind = opcode or (Opcode.TEXT if isinstance(data, str) else Opcode.BINARY)
        raw = data.encode() if isinstance(data, str) else data
        self.call.arrived(Frame(kind, raw).serialize(mask=True), now)


def played(story: Callable[[Client], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test of a coroutine, with a client of its own."""
    return asgi_calls.played(Client, story)


def text(content: str) -> Message:
    return {"type": "websocket.send", "text": content}


@played
async def test_nothing_is_received_before_it_is_accepted(client: Client) -> None:
    call = client.call
    assert (await call.receive())["type"] == "websocket.connect"
    waiting = asyncio.ensure_future(call.receive())
    await turns()
    assert not waiting.done()
    await call.send({"type": "websocket.accept"})
    client.says("first")
    assert await waiting == {"type": "websocket.receive", "text": "first"}
    assert client.told == ["opened"]


ACCEPT, CLOSE = {"type": "websocket.accept"}, {"type": "websocket.close"}
DENY: Message = {"type": "websocket.http.response.start", "status": 401, "headers": []}
DENIED: Message = {"type": "websocket.http.response.body", "body": b"no"}


@pytest.mark.parametrize(
    ("before", "message", "why"),
    [
        ([], text("hello"), "websocket.send was sent before it was accepted"),
        ([], {"type": "http.response.start"}, "'http.response.start' is not a message of a WebSocket"),
        ([ACCEPT], ACCEPT, "websocket.accept was sent after it was accepted"),
        ([ACCEPT], DENY, "websocket.http.response.start was sent after it was accepted"),
        ([DENY], ACCEPT, "websocket.accept was sent after it was denied"),
        ([DENY], CLOSE, "websocket.close was sent after it was denied"),
        ([DENY], DENY, "http.response.start was sent twice"),
        ([ACCEPT, CLOSE], text("hello"), "websocket.send was sent after the application had closed its WebSocket"),
        ([ACCEPT, CLOSE], CLOSE, "websocket.close was sent after the application had closed its WebSocket"),
    ],
)
def test_what_is_out_of_order_is_an_error(before: list[Message], message: Message, why: str) -> None:
    @played
    async def play(client: Client) -> None:
        for each in before:
            await client.call.send(each)
        with pytest.raises(RuntimeError, match=f"^{re.escape(why)}"):
            await client.call.send(message)
        assert client.call.upgraded is (ACCEPT in before)
        assert f"send raised RuntimeError: {why}" in client.call.shortfall(), "for the log, if this was caught"

    play()


@played
async def test_who_takes_nothing_has_no_more_time_by_what_it_says(client: Client) -> None:
    call = await client.accepted()
    client.stalls = True
    await call.send(text("x" * HIGH))
    assert client.told.count("waits anew") == 1, "from now on it has its time"
    hello = Frame(Opcode.TEXT, b"hello").serialize(mask=True)
    assert not call.arrived(hello, 1.0)
    assert not call.arrived(Frame(Opcode.PING, b"").serialize(mask=True), 2.0)


@played
async def test_who_does_not_take_the_answer_to_a_ping_has_its_time_from_then_on(client: Client) -> None:
    call = await client.accepted()
    client.stalls = True
    assert call.arrived(Frame(Opcode.PING, b"").serialize(mask=True), 1.0)


@played
async def test_a_denial_leaves_whatever_was_tried_amid_it(client: Client) -> None:
    await client.call.send(DENY)
    with pytest.raises(RuntimeError):
        await client.call.send(ACCEPT)
    await client.call.send(DENIED)
    assert client.sent.startswith(b"HTTP/1.1 401 ") and client.sent.endswith(b"no")
    assert client.told == ["completed"]


@played
async def test_send_waits_while_the_peer_has_not_taken_much(client: Client) -> None:
    call = await client.accepted()
    client.stalls = True
    await call.send(text("x" * HIGH))
    assert client.told == ["opened", "waits anew"], "from now on it has a deadline"
    senders = [asyncio.ensure_future(call.send(text(word))) for word in ("one", "two")]
    await turns()
    assert not any(sender.done() for sender in senders) and b"one" not in client.sent
    client.owed -= 100
    call.news()
    await asyncio.gather(*senders)
    assert client.sent.endswith(b"\x81\x03one\x81\x03two")
    assert client.told == ["opened", "waits anew"], "and not another one with each message"


@played
async def test_who_waits_to_send_hears_of_the_end(client: Client) -> None:
    call = await client.accepted()
    client.stalls = True
    await call.send(text("x" * HIGH))
    senders = [asyncio.ensure_future(call.send(text(word))) for word in ("one", "two")]
    await turns()
    client.says(b"\x03\xe8", Opcode.CLOSE)
    for sender in senders:
        with pytest.raises(Disconnected, match="1000"):
            await sender
    assert b"one" not in client.sent


@pytest.mark.parametrize(("size", "most"), [(1, MOST), (QUEUED // 4, 4)])
def test_no_more_is_read_while_so_much_waits(size: int, most: int) -> None:
    @played
    async def story(client: Client) -> None:
        call = await client.accepted()
        for number in range(most):
            assert call.reads(), number
            client.says("x" * size)
        assert not call.reads()
        for _ in range(most // 2):
            assert client.told == ["opened"], "not for each message"
            assert await call.receive() == {"type": "websocket.receive", "text": "x" * size}
        assert client.told == ["opened", "wants more"]
        await call.receive()
        assert client.told == ["opened", "wants more"], "said once"

    story()


@played
async def test_to_ask_whether_more_is_read_changes_nothing(client: Client) -> None:
    """Who asks beside the host, as the heartbeat does, does not keep it from hearing that there is room."""
    call = await client.accepted()
    for _ in range(MOST):
        client.says("x")
    for _ in range(MOST // 2):
        assert not call.reads() and client.told == ["opened"]
        await call.receive()
    assert call.reads() and client.told == ["opened", "wants more"]


@played
async def test_what_came_in_one_go_and_has_no_room_is_looked_at_later(client: Client) -> None:
    call = await client.accepted()
    call.arrived(Frame(Opcode.TEXT, b"x").serialize(mask=True) * (MOST * 2 + 1), 0.0)
    assert not call.reads() and not call.goes_on()
    for _ in range(MOST // 2):
        await call.receive()
    assert client.told == ["opened", "wants more"]
    assert call.goes_on() and not call.reads(), "first what has come"
    call.arrived(b"", 0.0)
    assert not call.reads() and not call.goes_on(), "and is full again"
    for _ in range(MOST):
        await call.receive()
    call.arrived(b"", 0.0)
    assert call.reads() and not call.goes_on()
    assert client.told == ["opened"] + ["wants more"] * 2


@played
async def test_a_peer_that_pings_and_does_not_read_is_not_read_from(client: Client) -> None:
    call = await client.accepted()
    client.stalls = True
    while call.reads():
        client.says(bytes(125), Opcode.PING)
    assert HIGH < client.owed < HIGH + 200


@played
async def test_messages_come_before_the_end_that_was_behind_them(client: Client) -> None:
    call = await client.accepted()
    client.says("one")
    client.says(b"two")
    client.says(b"\x0f\xa0bye", Opcode.CLOSE)
    client.says("three")
    told = [await call.receive() for _ in range(4)]
    end = {"type": "websocket.disconnect", "code": 4000, "reason": "bye"}
    assert told == [
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.receive", "bytes": b"two"},
        *(end, end),
    ]
    assert call.ended and client.sent == b"\x88\x05\x0f\xa0bye", "answered before the application has heard of it"


@played
async def test_a_peer_that_has_gone_is_told_to_who_waits(client: Client) -> None:
    call = await client.accepted()
    waiting = asyncio.ensure_future(call.receive())
    await turns()
    call.lose()
    assert await waiting == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    with pytest.raises(OSError):
        await call.send(text("too late"))


@played
async def test_a_peer_that_goes_while_something_is_sent_is_lost(client: Client) -> None:
    call = await client.accepted()
    client.broken = True
    with pytest.raises(Disconnected):
        await call.send(text("anybody there?"))
    assert client.told == ["opened", "lost"]


@played
async def test_the_applications_close_waits_for_its_answer(client: Client) -> None:
    call = await client.accepted()
    for _ in range(MOST):
        client.says("unread")
    assert not call.reads()
    await call.send({"type": "websocket.close", "code": 3000, "reason": None})
    assert client.sent == b"\x88\x02\x0b\xb8" and client.told == ["opened", "waits anew"]
    assert call.reads(), "for the answer, whatever is before it"
    assert call.next_due(NEVER) == pytest.approx(client.loop.time() + CLOSING, abs=5)
    waiting = asyncio.ensure_future(call.receive())
    client.says("crossed it")
    await turns()
    assert not waiting.done() and not call.ended
    client.says(b"\x0b\xb8", Opcode.CLOSE)
    assert await waiting == {"type": "websocket.disconnect", "code": 3000, "reason": ""}
    assert call.ended


@played
async def test_a_worker_that_leaves_says_1012_to_both(client: Client) -> None:
    call = await client.accepted()
    call.leave(100)
    assert client.sent == b"\x88\x02\x03\xf4"
    assert await call.receive() == {"type": "websocket.disconnect", "code": 1012, "reason": ""}
    with pytest.raises(Disconnected):
        await call.send(text("more"))
    call.leave(105)
    assert client.sent == b"\x88\x02\x03\xf4" and call.next_due(NEVER) == 100 + CLOSING
    with pytest.raises(ClientGone):  # nobody is waited for for ever
        call.expires(100 + CLOSING)


@played
async def test_a_worker_that_leaves_opens_nothing(client: Client) -> None:
    client.leaving = True
    await client.call.receive()
    await client.call.send({"type": "websocket.accept"})
    assert client.told == ["refused with 503"] and not client.sent
    assert await client.call.receive() == {"type": "websocket.disconnect", "code": 1012, "reason": ""}
    with pytest.raises(Disconnected):
        await client.call.send(text("more"))


@played
async def test_a_worker_that_leaves_waits_for_no_acceptance(client: Client) -> None:
    await client.call.receive()
    client.call.farewell(100)
    assert client.told == []
    client.call.leave(100)
    client.call.leave(100)
    assert client.told == ["refused with 503"] and not client.sent


@played
async def test_silence_is_asked_about(client: Client) -> None:
    call = await client.accepted()
    assert call.next_due(NEVER) == 20
    assert call.expires(20) and client.sent == b"\x89\x00"
    client.says(b"", Opcode.PONG, now=25)
    assert call.next_due(NEVER) == 45
    assert call.expires(45)
    client.late = True
    assert call.expires(55)
    client.late = False
    assert call.expires(75)
    with pytest.raises(ClientGone):
        call.expires(85)


@played
async def test_a_peer_that_is_not_read_from_is_not_held_to_its_silence(client: Client) -> None:
    call = await client.accepted()
    for _ in range(MOST):
        client.says("unread")
    for now in range(20, 1000, 10):
        assert call.expires(now)
    assert not client.sent


@pytest.mark.parametrize("error", [None, ValueError()])
def test_a_handler_that_is_over_closes_what_is_open(error: Exception | None) -> None:
    @played
    async def story(client: Client) -> None:
        call = await client.accepted()
        assert call.finish(error, 0)
        assert client.sent == b"\x88\x02" + (1011 if error else 1000).to_bytes(2, "big")
        assert call.finish(error, 0)
        assert client.told == ["opened", "waits anew"]

    story()


@played
async def test_a_denial_is_the_end(client: Client) -> None:
    call = client.call
    await call.receive()
    await call.send({"type": "websocket.close"})
    assert client.sent.startswith(b"HTTP/1.1 403 Forbidden\r\n") and client.told == ["completed"]
    assert await call.receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    with pytest.raises(Disconnected):
        await call.send({"type": "websocket.accept"})
    assert call.next_due(NEVER) == NEVER and not call.expires(1000)
