"""One request between an application and a worker: what is received, what is sent, and what each is told of the other's
end. Without sockets."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sdserve.gateway.asgi import HIGH, AsgiHeads, HTTPCall
from sdserve.gateway.asgi_call import Disconnected, Message
from sdserve.http.connection import Connection
from sdserve.http.errors import InvalidResponse
from sdserve.http.limits import Limits
from sdserve.http.request import RequestReader
from sdserve.http.writer import ClientGone
from tests.support import asgi_calls
from tests.support.asgi_calls import LOG, OtherSide, turns

GONE = {"type": "http.disconnect"}
HINT = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}
PART = {"type": "http.response.zerocopysend", "file": 0, "offset": 0, "count": 9, "more_body": True}


class Client(OtherSide):
    """The other side of a call for this request."""

    call: HTTPCall

    def __init__(self, *lines: str, body: bytes = b"", method: str = "POST") -> None:
        super().__init__()
        self.conn = Connection(RequestReader(Limits()), Limits())
        self.conn.receive("\r\n".join((f"{method} / HTTP/1.1", "Host: a", *lines, "", "")).encode() + body)
        request = self.conn.next_request()
        assert request is not None
        whole = self.conn.whole_body() if request.length else b""
        self.call = HTTPCall(self.heads, self, request, LOG, self, whole)

    @property
    def body(self) -> bytes:
        """What has been sent behind the head."""
        return self.sent.partition(b"\r\n\r\n")[2]

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        self.send(head + os.pread(fd, count, offset))

    def send_continue(self) -> None:
        self.told.append("asks for the body")

    def says(self, data: bytes) -> None:
        """More of the body arrives."""
        self.conn.receive(data)
        self.call.news()

    def wants_body(self, call: Any) -> None:
        self.told.append("wants body" if call.waits else "has body")


def played(*lines: str, **how: Any) -> Callable[[Callable[[Client], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """A test of a coroutine, with a client of its own, whose request has these fields."""
    return lambda story: asgi_calls.played(lambda: Client(*lines, **how), story)


def start(*headers: tuple[bytes, bytes], **more: Any) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(headers), **more}


def body(data: Any = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def trailers(*headers: tuple[bytes, bytes], more: bool = False) -> Message:
    return {"type": "http.response.trailers", "headers": list(headers), "more_trailers": more}


# --- receiving


@played("Content-Length: 5", body=b"hello")
async def test_a_body_that_is_there_is_one_message_and_then_the_end_is_waited_for(client: Client) -> None:
    call = client.call
    assert await call.receive() == {"type": "http.request", "body": b"hello", "more_body": False}
    waiting = asyncio.ensure_future(call.receive())
    await turns()
    assert not waiting.done()
    await call.send(start())
    await call.send(body())
    assert await waiting == await call.receive() == GONE
    assert not call.told, "it was answered"


@played("Content-Length: 6", body=b"he")
async def test_a_body_that_arrives_comes_in_pieces(client: Client) -> None:
    call = client.call
    assert await call.receive() == {"type": "http.request", "body": b"he", "more_body": True}
    waiting = asyncio.ensure_future(call.receive())
    await turns()
    assert client.told == ["has body", "wants body"]
    client.says(b"llo!")
    assert await waiting == {"type": "http.request", "body": b"llo!", "more_body": False}


@played("Content-Length: 5", "Expect: 100-continue")
async def test_the_first_receive_asks_for_the_body(client: Client) -> None:
    waiting = [asyncio.ensure_future(client.call.receive())]
    await turns()
    assert client.told == ["asks for the body", "wants body"]
    client.says(b"hello")
    assert (await waiting[0])["body"] == b"hello"


@played("Transfer-Encoding: chunked", body=b"x\r\n")
async def test_a_malformed_body_is_the_clients_fault_and_its_end(client: Client) -> None:
    assert await client.call.receive() == GONE
    assert client.told == ["refused with 400"]
    with pytest.raises(Disconnected):
        await client.call.send(start())


@played("Content-Length: 5")
async def test_a_receive_that_is_cancelled_leaves_nothing(client: Client) -> None:
    for _ in range(10):
        waiting = asyncio.ensure_future(client.call.receive())
        await turns()
        waiting.cancel()
        await asyncio.wait([waiting])
    assert not client.call._bells and not client.call.waits


# --- the client's end: (event of the client, what the application does, what it is told)


@played()
async def test_a_client_that_has_gone_is_told_to_who_waits_and_to_who_sends(client: Client) -> None:
    call = client.call
    await call.receive()
    waiting = asyncio.ensure_future(call.receive())
    await turns()
    call.lose()
    assert await waiting == GONE and call.told and call.broken
    for message in (start(), body(), {"type": "http.response.early_hint", "links": []}):
        with pytest.raises(OSError):
            await call.send(message)
    assert client.told == [] and client.sent == b""


@played()
async def test_who_has_closed_only_his_half_is_answered_and_is_gone_for_who_waits(client: Client) -> None:
    call = client.call
    await call.receive()
    call.end_of_client()
    await call.send(start())
    await call.send(body(b"one", more=True))
    assert b"one" in client.sent and not call.told
    assert await call.receive() == GONE
    assert client.told == ["lost"] and call.told


@played()
async def test_a_client_that_goes_while_something_is_sent_is_lost(client: Client) -> None:
    call = client.call
    await call.send(start())
    client.broken = True
    with pytest.raises(Disconnected):
        await call.send(body(b"hello"))
    assert client.told == ["lost"]


@played()
async def test_after_the_answer_a_client_that_goes_breaks_nothing(client: Client) -> None:
    call = client.call
    await call.send(start())
    await call.send(body(b"hello"))
    call.lose()
    assert not call.broken and await call.receive() == GONE and not call.told


# --- sending


@played()
async def test_start_and_first_body_leave_together(client: Client) -> None:
    call = client.call
    await call.send(start((b"x-a", b"1")))
    assert client.sent == b"" and call.head is not None
    await call.send(body(b"hello"))
    assert client.sent.startswith(b"HTTP/1.1 200 OK\r\nx-a: 1\r\n") and client.body == b"hello"
    assert client.told == ["completed"] and call.sent == 5
    await call.send(body(b"ignored"))
    await call.send(start())
    assert client.body == b"hello" and client.told == ["completed"]


@pytest.mark.parametrize(
    ("before", "message", "error"),
    [
        ([], body(), "http.response.body was sent before http.response.start"),
        ([], trailers(), "http.response.trailers was sent before http.response.start"),
        ([start()], start(), "http.response.start was sent twice"),
        ([start()], {"type": "http.response.push"}, "'http.response.push' is not a message of an HTTP response"),
        ([start()], trailers(), "has not announced it"),
        ([start(trailers=True)], trailers(), "before the end of the body"),
        ([start(trailers=True), body(b"a", more=True)], trailers(), "before the end of the body"),
        ([], start(status="200"), "status '200' is not an int"),
        ([], start(status=200.0), "status 200.0 is not an int"),
        ([], start(status=100), "status 100 is not an application's to send"),
        ([], start(("x", "y")), "is not a pair of byte strings"),  # type: ignore[arg-type]
        ([start()], body("text"), "str was sent where bytes are"),
        ([start()], body(5, more=True), "int was sent where bytes are"),
    ],
)
def test_what_breaks_the_rules_is_raised_in_send(before: list[Message], message: Message, error: str) -> None:
    @played()
    async def story(client: Client) -> None:
        for each in before:
            await client.call.send(each)
        sent = client.sent
        with pytest.raises((RuntimeError, TypeError, InvalidResponse), match=error):
            await client.call.send(message)
        assert client.sent == sent and not client.told, "and nothing has happened"

    story()


NONE = "returned without an answer: it sent nothing"
BEGUN = "returned without an answer: it sent a start, and no body"
NO_STATUS = "send raised InvalidResponse: status 'ok' is not an int"
PUSH: Message = {"type": "http.response.push"}
NO_PUSH = "send raised RuntimeError: 'http.response.push' is not a message of an HTTP response"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ([], NONE),
        ([HINT], f"{NONE} that begins one"),
        ([PUSH, PUSH], f"{NONE} that begins one; {NO_PUSH}"),
        ([start(status="ok"), PUSH], f"{NONE} that begins one; {NO_STATUS}, {NO_PUSH}"),
        ([start()], BEGUN),
        ([start(), PUSH], f"{BEGUN}; {NO_PUSH}"),
        ([start(), body(b"he", more=True)], "answered in part only"),
        ([start(), body(b"he", more=True), PUSH], f"answered in part only; {NO_PUSH}"),
    ],
)
def test_what_an_answer_lacks_and_what_was_refused_of_it_can_be_told(sent: list[Message], said: str) -> None:
    @played()
    async def story(client: Client) -> None:
        for each in sent:
            with contextlib.suppress(RuntimeError, InvalidResponse):  # as the application does
                await client.call.send(each)
        assert client.call.shortfall() == said

    story()


@played()
async def test_who_sends_nonsense_all_the_time_is_told_of_the_first(client: Client) -> None:
    for number in range(1000):
        with pytest.raises(RuntimeError):
            await client.call.send({"type": f"x{number}"})
    assert [name in client.call.shortfall() for name in ("'x0'", "'x3'", "'x4'")] == [True, True, False]


@played()
async def test_what_the_application_does_with_its_list_afterwards_changes_nothing(client: Client) -> None:
    headers = [(b"x-a", b"1")]
    await client.call.send({"type": "http.response.start", "status": 200, "headers": headers})
    headers.append((b"x-b", b"2"))
    await client.call.send(body())
    assert list(client.call.headers) == [(b"x-a", b"1")] and b"x-b" not in client.sent


@played("TE: trailers")
async def test_trailers_follow_the_body(client: Client) -> None:
    call = client.call
    await call.send(start(trailers=True))
    await call.send(body(b"hello"))
    await call.send(body(b"ignored"))
    await call.send({"type": "http.response.pathsend", "path": "/nowhere"})
    await call.send(trailers((b"x-sum", b"1"), more=True))
    assert client.told == []
    await call.send(trailers((b"x-end", b"2")))
    assert client.body == b"5\r\nhello\r\n0\r\nx-sum: 1\r\nx-end: 2\r\n\r\n"
    assert client.told == ["completed"]


@played()
async def test_who_does_not_ask_for_trailers_gets_none(client: Client) -> None:
    for message in (start(trailers=True), body(b"hello"), trailers((b"x-sum", b"1"))):
        await client.call.send(message)
    assert client.body == b"5\r\nhello\r\n0\r\n\r\n" and client.told == ["completed"]


@played()
async def test_send_waits_while_the_client_has_not_taken_much(client: Client) -> None:
    call = client.call
    await call.send(start())
    client.stalls = True
    await call.send(body(b"x" * HIGH, more=True))
    assert client.told == ["wants room"]
    sending = asyncio.ensure_future(call.send(body(b"more", more=True)))
    await turns()
    assert not sending.done() and b"more" not in client.sent
    client.takes_all()
    await sending
    assert client.sent.endswith(b"4\r\nmore\r\n")
    sending = asyncio.ensure_future(call.send(body(b"x" * HIGH)))
    await turns()
    call.lose()
    with pytest.raises(Disconnected):
        await sending


@played()
async def test_a_piece_that_waits_while_the_head_is_held_is_not_overtaken_by_the_end(client: Client) -> None:
    call = client.call
    client.stalls = True
    await call.send(HINT)
    await call.send(start())
    first = asyncio.ensure_future(call.send(body(b"x" * HIGH, more=True)))
    await turns()
    last = asyncio.ensure_future(call.send(body(b"the end")))
    await turns()
    assert not first.done() and not last.done() and b"200 OK" not in client.sent
    client.stalls = False
    client.takes_all()
    await first
    await last
    answer = client.sent.partition(b"HTTP/1.1 200 OK\r\n")[2].partition(b"\r\n\r\n")[2]
    assert answer == b"10000\r\n%b\r\n7\r\nthe end\r\n0\r\n\r\n" % (b"x" * HIGH)
    assert client.told[-1] == "completed"


@played()
async def test_a_piece_that_comes_while_a_file_leaves_goes_behind_it(client: Client) -> None:
    client.stalls = True
    await client.call.send(start())
    with os.fdopen(os.memfd_create("file"), "w+b", buffering=0) as file:
        file.write(b"0123456789")
        message = {"type": "http.response.zerocopysend", "file": file, "offset": 0, "more_body": True}
        leaving = asyncio.ensure_future(client.call.send(message))
        await turns()
        last = asyncio.ensure_future(client.call.send(body(b"!")))
        await turns()
        client.stalls = False
        client.takes_all()
        await leaving
    await last
    assert client.body == b"a\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n"


@pytest.mark.parametrize("kind", ["pathsend", "zerocopysend"])
def test_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")

    @played()
    async def story(client: Client) -> None:
        await client.call.send(start())
        if kind == "pathsend":
            await client.call.send({"type": "http.response.pathsend", "path": str(tmp_path / "file")})
            assert client.body == b"0123456789"
        else:
            with open(tmp_path / "file", "rb") as file:
                message = {"type": "http.response.zerocopysend", "file": file}
                await client.call.send({**message, "offset": 2, "count": 3, "more_body": True})
                await client.call.send({**message, "more_body": True})
                await client.call.send(body(b"!"))
            assert client.body == b"3\r\n234\r\na\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n"
        assert client.told == ["completed"]

    story()


@played("Content-Length: 1000000", body=b"some of it")
async def test_who_answers_before_the_body_has_come_ends_the_connection(client: Client) -> None:
    await client.call.send(start())
    await client.call.send(body(b"no, thanks"))
    assert b"Connection: close\r\n" in client.sent and not client.call.keep_alive
    assert client.told == ["completed"]


@played("Content-Length: 4")
async def test_who_answers_when_it_has_come_and_was_not_read_does_not(client: Client) -> None:
    client.says(b"body")
    await client.call.send(start())
    await client.call.send(body(b"ok"))
    assert client.call.keep_alive and client.body == b"ok"


@pytest.mark.parametrize(
    ("method", "message", "fields", "goes_on"),
    [
        ("HEAD", body(b"tick", more=True), [], False),
        ("HEAD", body(b"tick", more=True), [(b"content-length", b"4000")], True),
        ("HEAD", body(b"tick"), [], True),
        ("HEAD", {"type": "http.response.pathsend", "path": __file__}, [], True),
        (
            "HEAD",
            {"type": "http.response.zerocopysend", "file": 0, "offset": 0, "count": 9, "more_body": True},
            [],
            False,
        ),
        ("GET", body(b"tick", more=True), [], True),
    ],
)
def test_a_connection_does_not_go_on_behind_a_head_whose_application_may_go_on_for_ever(
    method: str, message: Message, fields: list[tuple[bytes, bytes]], goes_on: bool
) -> None:
    @played(method=method)
    async def story(client: Client) -> None:
        await client.call.send(start(*fields))
        await client.call.send(message)
        assert client.call.keep_alive is goes_on
        assert (b"\r\nConnection: close\r\n" in client.sent) is not goes_on
        assert client.body == b"" or method == "GET"

    story()


@pytest.mark.parametrize(("method", "owed"), [("HEAD", 0), ("HEAD", 1), ("GET", 0)])
def test_who_has_its_answer_and_closes_has_gone(method: str, owed: int) -> None:
    """Anybody else may read on."""

    @played(method=method)
    async def story(client: Client) -> None:
        await client.call.send(start())
        await client.call.send(body(b"tick", more=True))
        client.owed = owed
        if method == "HEAD" and not owed:
            with pytest.raises(ClientGone):
                client.call.end_of_client()
        else:
            client.call.end_of_client()
            assert client.call.half_closed

    story()


@played()
async def test_a_hint_goes_ahead(client: Client) -> None:
    await client.call.send(HINT)
    assert client.sent == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    await client.call.send(start())
    await client.call.send(body(b"hello"))
    assert client.sent.count(b"HTTP/1.1 ") == 2


def test_heads_take_numbers_and_bytes_only() -> None:
    heads = AsgiHeads("sdserve")
    assert heads.head(299, []).start == b"HTTP/1.1 299 \r\n"  # type: ignore[arg-type]
    for wrong in (True, 199, 1000):
        with pytest.raises(InvalidResponse):
            heads.head(wrong, [])  # type: ignore[arg-type]
