"""WebSockets without I/O: openings that are refused, messages, faults, ends; and the library as an independent peer."""

import gc
import itertools
import logging
import os
import struct
import tracemalloc
import weakref
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri
from websockets.utils import apply_mask

from sdserve.gateway.asgi import AsgiHeads
from sdserve.http import handshake, websocket
from sdserve.http.closing import Closed
from sdserve.http.connection import Connection
from sdserve.http.errors import HTTPError, IllegalMove, InvalidResponse
from sdserve.http.handshake import Handshake
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.http.websocket import ENDLESS, FRAGMENTS, UNIT, WORK, Event, WebSocket, frame_size

FIELDS = {
    "Host": "a",
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
MASK = b"\x37\xfa\x21\x3d"


def read(line: str = "GET /chat HTTP/1.1", fields: dict[str, str] = FIELDS, *more: str) -> Request:
    lines = [line, *(f"{name}: {value}" for name, value in fields.items()), *more, "", ""]
    return RequestReader(Limits()).read("\r\n".join(lines).encode("latin-1"))


def heads() -> AsgiHeads:
    writer = AsgiHeads("sdserve")
    writer.clock(1000)
    return writer


def opened(limit: int = 0, **extensions: str) -> WebSocket:
    socket = WebSocket(Handshake(read(fields=FIELDS | extensions)), max_message=limit, compression=bool(extensions))
    socket.accept(heads(), None, [])
    return socket


def compressed(limit: int = 0) -> WebSocket:
    return opened(limit, **DEFLATE)


def frame(data: bytes | str, opcode: int = 1, *, fin: bool = True, bits: int = 0, mask: bytes | None = MASK) -> bytes:
    """A frame as clients send them; `bits` are the reserved ones."""
    data = data.encode() if isinstance(data, str) else data
    first, flag, size = fin << 7 | bits << 4 | opcode, 0x80 if mask else 0, len(data)
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    return head + (mask or b"") + (apply_mask(data, mask) if mask else data)


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(struct.pack("!H", code) + reason, 8)


# --- openings


def test_an_opening_is_answered_as_the_standard_says() -> None:
    socket = WebSocket(Handshake(read()))
    assert socket.accept(heads(), None, [(b"x-own", b"1"), (b"upgrade", b"h2c")]).split(b"\r\n")[:5] == [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        b"x-own: 1",
    ]
    assert socket.open
    with pytest.raises(IllegalMove):
        socket.accept(heads(), None, [])


@pytest.mark.parametrize(
    ("line", "upgrade", "asked"),
    [
        ("GET / HTTP/1.1", "websocket", True),
        ("GET / HTTP/1.1", "h2c, WebSocket", True),
        ("POST / HTTP/1.1", "websocket", True),
        ("GET / HTTP/1.0", "websocket", False),
        ("GET / HTTP/1.1", "h2c", False),
        ("GET / HTTP/1.1", "websocket2", False),
    ],
)
def test_what_asks_for_a_websocket(line: str, upgrade: str, asked: bool) -> None:
    assert handshake.is_asked(read(line, FIELDS | {"Upgrade": upgrade})) is asked


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Connection": "keep-alive"}, 400),
        ({"Content-Length": "5"}, 400),
        ({"Transfer-Encoding": "chunked"}, 400),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": "13, 8"}, 426),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"}, 400),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZS4="}, 400),
        ({"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j\xe9Q=="}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Protocol": "chat, a b"}, 400),
        ({"Sec-WebSocket-Protocol": "ch\xe4t"}, 400),
        ({"Sec-WebSocket-Extensions": "permessage-deflate; ="}, 400),
        ({"Sec-WebSocket-Extensions": "f\xf6\xf6"}, 400),
    ],
)
def test_an_opening_that_is_wrong_is_refused(change: dict[str, str], status: int) -> None:
    with pytest.raises(HTTPError) as caught:
        WebSocket(Handshake(read(fields=FIELDS | change)), compression=True)
    assert caught.value.status == status


@pytest.mark.parametrize("name", ["Connection", "Sec-WebSocket-Version", "Sec-WebSocket-Key"])
def test_an_opening_without_a_field_is_refused(name: str) -> None:
    with pytest.raises(HTTPError):
        Handshake(read(fields={key: value for key, value in FIELDS.items() if key != name}))


def test_two_keys_are_none() -> None:
    with pytest.raises(HTTPError, match="2 Sec-WebSocket-Key"):
        Handshake(read("GET / HTTP/1.1", FIELDS, "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="))


def test_a_refusal_says_what_would_be_accepted() -> None:
    with pytest.raises(HTTPError) as caught:
        Handshake(read(fields=FIELDS | {"Sec-WebSocket-Version": "8"}))
    answer = heads().error(caught.value)
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n") and b"\r\nSec-WebSocket-Version: 13\r\n" in answer
    with pytest.raises(HTTPError) as caught:
        Handshake(read("POST / HTTP/1.1"))
    answer = heads().error(caught.value)
    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n") and b"\r\nAllow: GET\r\n" in answer


def test_subprotocols_are_taken_from_all_lines_in_their_order() -> None:
    request = read("GET / HTTP/1.1", FIELDS, "Sec-WebSocket-Protocol: b, a", "Sec-WebSocket-Protocol: c,,")
    assert Handshake(request).subprotocols == ["b", "a", "c"]
    assert b"\r\nSec-WebSocket-Protocol: a\r\n" in WebSocket(Handshake(request)).accept(heads(), "a", [])


@pytest.mark.parametrize("subprotocol", ["a\r\nX: y", "a b", "", "ä", "\udc80", 1, b"a"])
def test_a_subprotocol_that_is_no_token_is_the_applications_mistake(subprotocol: Any) -> None:
    with pytest.raises(InvalidResponse, match="is not a token"):
        WebSocket(Handshake(read())).accept(heads(), subprotocol, [])


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nSet-Cookie: b"),
        (b"x\r\ny", b"a"),
        (b"x", b"\x00"),
        (b"sec-websocket-protocol", b"chat"),
        (b"Sec-WebSocket-Accept", b"forged"),
        (b"", b""),
        (b"x",),
        1,
    ],
)
def test_an_application_forges_nothing_in_the_answer(field: Any) -> None:
    socket = WebSocket(Handshake(read()))
    with pytest.raises(InvalidResponse):
        socket.accept(heads(), None, [field])
    assert not socket.open


@pytest.mark.parametrize("extensions", [{}, {"Sec-WebSocket-Extensions": "x-webkit-deflate-frame"}])
def test_compression_is_agreed_on_only_with_who_offers_it(extensions: dict[str, str]) -> None:
    answer = WebSocket(Handshake(read(fields=FIELDS | extensions)), compression=True).accept(heads(), None, [])
    assert b"Sec-WebSocket-Extensions" not in answer
    asked = Handshake(read(fields=FIELDS | DEFLATE))
    assert b"Sec-WebSocket-Extensions" not in WebSocket(asked).accept(heads(), None, []), "it is switched off"
    answer = WebSocket(asked, compression=True).accept(heads(), None, [])
    assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12;" in answer


# --- messages


def test_messages_of_one_segment_come_out_one_by_one() -> None:
    data = frame("a") + frame(b"\x00\xff", 2) + frame("") + frame("ü" * 100) + frame("b" * 70000)
    assert opened().receive(data) == ["a", b"\x00\xff", "", "ü" * 100, "b" * 70000]


def test_pings_are_answered_amid_a_message_in_fragments() -> None:
    socket = opened()
    data = frame("Hel", fin=False) + frame(b"?", 9) + frame("lo", 0) + frame("again")
    assert socket.receive(data) == ["Hello", "again"]
    assert socket.data_to_send() == b"\x8a\x01?"
    assert socket.data_to_send() == b""
    assert socket.receive(frame(b"?", 10)) == [], "nobody asked, nobody minds"


def test_behind_a_frame_in_two_segments_the_short_path_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of messages ends amid a frame with nearly each segment."""
    socket = opened()
    library = socket._protocol.receive_data
    given: list[bytes] = []

    def receive_data(data: bytes | bytearray) -> None:
        given.append(bytes(data))
        library(data)

    monkeypatch.setattr(socket._protocol, "receive_data", receive_data)
    stream = b"".join(frame(f"message {number}") for number in range(100))
    events = [event for piece in pieces(stream, [1000, 1011]) for event in socket.receive(piece)]
    assert events == [f"message {number}" for number in range(100)]
    assert len(b"".join(given)) <= 3 * len(frame("message 99"))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_frames_of_every_length_are_sent(size: int) -> None:
    peer, socket = client(), opened()
    for data in (bytes(size), bytearray(size), memoryview(bytes(size))):
        peer.receive_data(socket.send_bytes(data) + socket.send_text("x" * size))
    assert [bytes(event.data) for event in peer.events_received() if isinstance(event, Frame)] == [
        bytes(size),
        b"x" * size,
    ] * 3


def test_what_is_no_text_is_not_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        opened().send_text("\udc80")


def test_compressed_messages_take_little_room() -> None:
    socket = compressed()
    assert len(socket.send_text("x" * 10_000)) < 50
    assert len(socket.send_bytes(bytes(10_000))) < 50


# --- faults and ends


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame("a", mask=None), 1002),
        (frame("a", bits=4), 1002),
        (frame("a", 3), 1002),
        (frame("a", 0), 1002),
        (frame("a", fin=False) + frame("b"), 1002),
        (frame(b"", 9, fin=False), 1002),
        (frame(bytes(126), 9), 1002),
        (close(1005), 1002),
        (close(999), 1002),
        (frame(b"\x03", 8), 1002),
        (close(1000, b"\xff"), 1007),
        (frame(b"\xff"), 1007),
        (frame(b"\xed\xa0\x80"), 1007),
        (frame(b"\xc3"), 1007),
        (frame(b"\xc3", fin=False) + frame(b"\xbc", 0, fin=False) + frame(b"\xc3", 0), 1007),
        (frame(b"\xff", fin=False), 1007),
        (frame("x" * 1001), 1009),
        (frame("x" * 1000, fin=False) + frame("y", 0), 1009),
        (b"\x82\xff\x7f" + b"\xff" * 7, 1009),
        (b"\x82\xff" + b"\xff" * 8, 1002),
        (b"\x81\xfe\x00\x7d" + MASK + bytes(125), 1002),
        (b"\x81\xff" + (125).to_bytes(8, "big") + MASK + bytes(125), 1002),
        (b"\x82\xff" + (65535).to_bytes(8, "big") + MASK + bytes(65535), 1002),
    ],
)
@pytest.mark.parametrize("behind", [b"", frame("more")])
def test_a_fault_ends_it_with_its_code(data: bytes, code: int, behind: bytes) -> None:
    for at in range(0, len(data), len(data) // 9 + 1):
        socket, peer = opened(limit=1000), client()
        [event] = socket.receive(data[:at]) + socket.receive(data[at:] + behind)
        assert isinstance(event, Closed) and event.code == code
        assert socket.ended and not socket.open
        peer.receive_data(socket.data_to_send())
        assert peer.close_rcvd is not None and peer.close_rcvd.code == code
        assert socket.receive(frame("more")) == []


def test_a_message_within_the_limit_is_taken_and_inflated_ones_count_as_they_are_inflated() -> None:
    assert opened(limit=1000).receive(frame("x" * 1000)) == ["x" * 1000]
    for size, code in ((1000, None), (1001, 1009), (10_000_000, 1009)):
        peer = client(compression=True)
        peer.send_text(b"x" * size)
        [event] = compressed(limit=1000).receive(b"".join(peer.data_to_send()))
        assert event == "x" * size if code is None else isinstance(event, Closed) and event.code == code


def test_a_bomb_in_fragments_is_one() -> None:
    peer, socket = client(compression=True), compressed(limit=1000)
    peer.send_text(b"x" * 900, fin=False)
    peer.send_continuation(b"x" * 1_000_000, fin=True)
    [event] = socket.receive(b"".join(peer.data_to_send()))
    assert isinstance(event, Closed) and event.code == 1009


@pytest.mark.parametrize("limit", [0, 64_000])
def test_a_message_has_so_many_frames_at_most(limit: int) -> None:
    """A thousand, and one more for each 64 bytes that it may have: empty ones count like others."""
    most = FRAGMENTS + 1000
    for count, said in ((most - 1, ["ab"]), (most, ["ab"] if not limit else [Closed(1009)])):
        events, _, _ = course(
            opened(limit), [frame("a", fin=False) + frame("", 0, fin=False) * (count - 1) + frame("b", 0)]
        )
        assert [event.replace(reason="") if isinstance(event, Closed) else event for event in events] == said


@pytest.mark.parametrize("make", [opened, compressed])
def test_what_is_kept_for_later_comes_out_like_the_rest(make: Callable[[], WebSocket]) -> None:
    stream = frame("a") + frame("b" * 70000) + frame("", 9) + frame("c", fin=False) + frame("d", 0)
    for first in (1, 3, 7, 5000, 70018, 70023):
        socket = make()
        events = socket.receive(stream[:first])
        socket.keep(stream[first : first + 3])
        socket.keep(stream[first + 3 :])
        assert socket.waits
        while socket.waits:
            events += socket.receive(b"")
        assert events == ["a", "b" * 70000, "cd"], first
    socket.receive(close(1000))
    socket.keep(b"behind the end")
    assert not socket.waits


def test_what_one_segment_makes_is_looked_at_in_turns() -> None:
    """However it is made: by tiny frames, by pings, or by messages that are long once they are inflated."""
    socket = opened()
    socket.receive(frame("a", fin=False) + frame("", 0, fin=False) * 10_000 + frame("b", 0))
    assert socket.waits and socket._fragments <= WORK
    socket = opened()
    socket.receive(frame("", 9) * 1000)
    assert socket.waits and len(socket.data_to_send()) <= 2 * WORK
    peer, socket = client(compression=True), compressed()
    for _ in range(10):
        peer.send_text(b"x" * UNIT * WORK)
    assert len(socket.receive(b"".join(peer.data_to_send()))) == 1 and socket.waits
    socket.let_go()
    assert not socket.waits and socket.receive(b"") == []


@pytest.mark.parametrize("make", [opened, compressed])
def test_no_more_comes_out_than_there_is_room_for(make: Callable[[], WebSocket]) -> None:
    socket = make()
    data = b"".join(frame(f"{number}") for number in range(10)) + close(1001)
    assert socket.receive(data, 3) == ["0", "1", "2"] and socket.waits
    assert socket.receive(frame("too late"), 3) == ["3", "4", "5"] and socket.waits
    assert socket.receive(b"", 4) == ["6", "7", "8", "9"] and socket.waits
    assert socket.receive(b"") == [Closed(1001, "")] and not socket.waits


@pytest.mark.parametrize(
    ("data", "closed"),
    [
        (close(1000, b"bye"), Closed(1000, "bye")),
        (close(4999), Closed(4999, "")),
        (frame(b"", 8), Closed(1005, "")),
        (frame("a", fin=False) + close(1001), Closed(1001, "")),
        (frame("a", fin=False) + frame("b", 0, fin=False) + close(1001), Closed(1001, "")),
    ],
)
def test_a_close_is_answered_with_its_code(data: bytes, closed: Closed) -> None:
    socket, peer = opened(), client()
    assert socket.receive(data + frame("ignored")) == [closed]
    assert socket.ended
    peer.receive_data(socket.data_to_send())
    assert peer.close_rcvd is not None and Closed(peer.close_rcvd.code, peer.close_rcvd.reason) == closed
    with pytest.raises(IllegalMove):
        socket.send_text("")
    with pytest.raises(IllegalMove):
        socket.send_bytes(b"")
    with pytest.raises(IllegalMove):
        socket.close()


def test_a_close_of_ours_waits_for_its_answer() -> None:
    socket, peer = opened(), client()
    peer.receive_data(socket.close(1012, "restart"))
    assert not socket.open and not socket.ended
    assert socket.receive(frame("crossed it")) == ["crossed it"]
    assert socket.receive(b"".join(peer.data_to_send())) == [Closed(1012, "restart")]
    assert socket.ended and socket.data_to_send() == b""


def test_after_a_close_of_ours_nothing_more_is_said() -> None:
    socket = opened()
    socket.close(1012)
    assert socket.receive(frame("a", 3)) == [Closed(1012)]
    assert socket.ended and socket.data_to_send() == b""


def test_a_reason_that_is_too_long_is_cut_between_two_characters() -> None:
    peer = client()
    peer.receive_data(opened().close(3000, "x" + "ü" * 100))
    assert peer.close_rcvd is not None and peer.close_rcvd.reason == "x" + "ü" * 61


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000, -1, 70000, True, None, "1000", 3000.0])
def test_a_code_that_may_not_be_sent_is_the_applications_mistake(code: Any) -> None:
    socket = opened()
    with pytest.raises(InvalidResponse, match="close code"):
        socket.close(code)
    assert socket.open


# --- the library


def test_the_library_is_as_it_was_when_it_was_put_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is used of it beyond its documentation: frames without its handshake, recv_frame, writes."""
    protocol = opened()._protocol
    assert protocol.state is State.OPEN and protocol.writes == []
    seen: list[Opcode] = []
    own = protocol.recv_frame

    def recv_frame(frame: Frame) -> None:
        seen.append(frame.opcode)
        own(frame)

    monkeypatch.setattr(protocol, "recv_frame", recv_frame)
    protocol.receive_data(frame("a", fin=False) + frame(b"", 9))
    assert seen == [Opcode.TEXT, Opcode.PING]
    assert [type(event) for event in protocol.events_received()] == [Frame, Frame]
    assert protocol.writes == [b"\x8a\x00"]
    assert apply_mask(b"abcde", b"\x00\x01\x02\x03") == b"acage"


def test_it_tells_of_its_own_faults_only(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(websocket._log, "logger", logging.getLogger("of this test"))  # whoever has set up the real one
    opened().receive(frame("a") + frame(b"", 9) + close(1000))
    assert not caplog.records
    socket = opened()
    monkeypatch.setattr(socket._protocol, "recv_frame", lambda frame: 1 / 0)
    [event] = socket.receive(frame(b"", 9))
    assert isinstance(event, Closed) and event.code == 1011
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def client(*, compression: bool = False, peer: WebSocket | None = None) -> ClientProtocol:
    """The library as the other side, which has opened `peer`, or one that is like it."""
    extensions = [ClientPerMessageDeflateFactory(client_max_window_bits=True)] if compression else None
    protocol = ClientProtocol(parse_uri("ws://a/chat"), extensions=extensions)
    protocol.send_request(protocol.connect())
    connection = Connection(RequestReader(Limits()), Limits())
    connection.receive(b"".join(protocol.data_to_send()))
    request = connection.next_request()
    assert request is not None
    made = WebSocket(Handshake(request), compression=compression)
    protocol.receive_data(made.accept(heads(), None, []))
    [response] = protocol.events_received()
    assert isinstance(response, Response) and protocol.handshake_exc is None and protocol.state is State.OPEN
    return protocol


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return (data[start:end] for start, end in itertools.pairwise(edges))


FRAMES = st.builds(
    frame,
    st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode), st.just(b"x" * 130), st.just(b"\xc3")),
    st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10, 3, 15]),
    fin=st.sampled_from([True, True, True, False]),
    bits=st.sampled_from([0] * 20 + [1, 4]),
    mask=st.sampled_from([MASK, MASK, b"\x00\x00\x00\x00", MASK, MASK, MASK, MASK, None]),
)
STREAMS = st.one_of(
    st.lists(FRAMES, max_size=8).map(b"".join),
    st.lists(st.builds(frame, st.text(max_size=200), st.sampled_from([1, 2])), max_size=8).map(b"".join),
    st.binary(max_size=60),
    st.tuples(st.binary(max_size=2), st.lists(FRAMES, max_size=3).map(b"".join)).map(b"".join),
)
KINDS = st.sampled_from([opened, lambda: opened(limit=100), compressed, lambda: compressed(limit=100)])


def course(
    socket: WebSocket, segments: Iterator[bytes] | list[bytes], room: int = ENDLESS
) -> tuple[list[Event], bytes, bool]:
    """What came out of it, what it said, and whether it is over."""
    events, said = [], b""
    for segment in segments:
        some = socket.receive(segment, room)
        events += some
        while socket.waits:
            assert len(some) <= room
            events += (some := socket.receive(b"", room))
        said += socket.data_to_send()
    assert socket.open != socket.ended
    return events, said, socket.ended


@given(STREAMS, st.lists(st.integers(0, 4000), max_size=12), KINDS)
@settings(max_examples=1500)
def test_any_split_of_any_stream_gives_the_same_messages(
    data: bytes, cuts: list[int], make: Callable[[], WebSocket]
) -> None:
    whole = events, _, over = course(make(), [data])
    assert [type(event) is Closed for event in events] == [False] * (len(events) - over) + [True] * over
    assert course(make(), pieces(data, cuts)) == whole
    assert course(make(), pieces(data, cuts), room=1) == whole
    assert course(make(), [data[at : at + 1] for at in range(len(data))]) == whole


@given(STREAMS, st.lists(st.integers(0, 4000), max_size=12))
@settings(max_examples=1000)
def test_the_short_path_reads_nothing_otherwise_than_the_library(data: bytes, cuts: list[int]) -> None:
    alone = opened()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(websocket, "TEXT", -1)
        patch.setattr(websocket, "BINARY", -1)
        expected = course(alone, [data])
    assert course(opened(), pieces(data, cuts)) == expected


MESSAGES = st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.just("long " * 20_000)), max_size=8)


@given(MESSAGES, st.lists(st.integers(0, 300_000), max_size=12), st.booleans(), st.randoms())
@settings(max_examples=300)
def test_messages_go_both_ways_whole(
    messages: list[str | bytes], cuts: list[int], compression: bool, random: Any
) -> None:
    peer, socket = client(compression=compression), compressed() if compression else opened()
    for message in messages:
        data = message.encode() if isinstance(message, str) else message
        send = peer.send_text if isinstance(message, str) else peer.send_binary
        if len(data) > 1 and random.random() < 0.3:  # in fragments, characters cut through
            at = random.randrange(1, len(data))
            send(data[:at], fin=False)
            peer.send_ping(b"")
            peer.send_continuation(data[at:], fin=True)
        else:
            send(data)
    stream = b"".join(peer.data_to_send())
    assert [event for piece in pieces(stream, cuts) for event in socket.receive(piece)] == messages
    peer.receive_data(socket.data_to_send())
    peer.events_received()
    for message in messages:
        peer.receive_data(socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))
    received = [event for event in peer.events_received() if isinstance(event, Frame)]
    assert [str(event.data, "utf-8") if event.opcode is Opcode.TEXT else event.data for event in received] == messages


def test_the_size_of_a_frame_is_known_from_its_head() -> None:
    for size in (0, 125, 126, 65535, 65536):
        for mask in (MASK, None):
            data = os.urandom(3) + frame(bytes(size), mask=mask)
            head = len(data) - 3 - size - len(mask or b"")
            assert frame_size(data, 3) == len(data) - 3
            assert {frame_size(data[: 3 + at], 3) for at in range(head)} == {0}
            assert frame_size(data[: 3 + head], 3) == len(data) - 3


@pytest.mark.parametrize("data", [b"", frame("a"), frame("a", fin=False), frame("a")[:3], frame("a", 3), close(1000)])
@pytest.mark.parametrize("make", [opened, compressed])
def test_what_is_over_stays_in_memory_for_nobody(make: Callable[[], WebSocket], data: bytes) -> None:
    """And not until a garbage collection either."""
    gc.disable()
    try:
        socket = make()
        socket.receive(data)
        there = weakref.ref(socket._protocol)
        socket.let_go()
        assert socket.receive(frame("more")) == []
        del socket
        assert there() is None
    finally:
        gc.enable()


def in_parts(data: bytes, count: int) -> list[bytes]:
    step = -(-len(data) // count)
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.mark.parametrize("fragments", [1, 4])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("pieces", [1, 3])
def test_what_was_given_out_is_not_kept(zipped: bool, fragments: int, pieces: int) -> None:
    """Nor what it came in, whichever way it was read."""
    socket = compressed() if zipped else opened()
    size = 1 << 20
    data = os.urandom(size)
    if zipped:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
        data = (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    parts = in_parts(data, fragments)
    frames = [
        frame(part, 0 if number else 2, fin=number == fragments - 1, bits=4 if zipped and not number else 0)
        for number, part in enumerate(parts)
    ]
    inputs = in_parts(b"".join(frames), pieces)
    del data, parts, frames
    tracemalloc.start()
    try:
        events: list[Event] = []
        while inputs or socket.waits:
            events += socket.receive(inputs.pop(0) if inputs else b"")
        assert [len(event) for event in events if isinstance(event, bytes)] == [size]
        events.clear()
        assert tracemalloc.get_traced_memory()[0] < size / 8
    finally:
        tracemalloc.stop()
