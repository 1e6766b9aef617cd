"""WebSockets of ASGI applications, as real clients see them and as handlers are told."""

import http.client
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from sdserve.process.proc import read_pss
from tests.support.frames import DEFLATE, OPENING, compressed, exactly, masked
from tests.support.server import Server, free_port
from tests.support.waiting import eventually

Start = Callable[..., Server]


class Service:
    """A server, and clients of it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port

    def connect(self, path: str, **how: Any) -> ClientConnection:
        how = {"compression": None, "ping_interval": None, "open_timeout": 20, "close_timeout": 20} | how
        return connect(f"ws://127.0.0.1:{self.port}{path}", **how)

    def get(self, path: str) -> Any:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            client.request("GET", path, headers={"Connection": "close"})
            return json.loads(client.getresponse().read())
        finally:
            client.close()

    def told(self, name: str, count: int = 1) -> list[Any]:
        """What the handler of this name was told, once that are so many things."""

        def look() -> list[Any]:
            heard: list[Any] = self.get("/told").get(name, [])
            assert len(heard) >= count
            return heard

        return eventually(look, f"{count} things that {name} is told")

    def raw(self, path: str, more: bytes = b"", extension: str = "") -> socket.socket:
        """A connection of its own, whose opening was answered with 101."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        sock.sendall(OPENING.format(path).replace("Host", extension + "Host").encode() + more)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return sock


def serve(start: Start, *args: str, app: str = "sockets:application", **env: str) -> Service:
    port = free_port()
    return Service(start("-b", f"127.0.0.1:{port}", *args, app, env=env).wait_ready(), port)


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    port = free_port()
    with Server(
        *("-b", f"127.0.0.1:{port}", "--asgi-loop", request.param, "--access-logfile", "-", "sockets:application")
    ) as server:
        yield Service(server.wait_ready(), port)
        ill = re.search("(Error (of the server|in the loop)|never retrieved|Task was destroyed)(.*\n){,20}", server.log)
        assert ill is None, ill[0]


def closed(client: ClientConnection) -> tuple[int, str]:
    """How the server ends it."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.recv(timeout=20)
    close = caught.value.rcvd
    return (close.code, close.reason) if close is not None else (1006, "")


# --- messages


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_what_is_sent_comes_back(service: Service, compression: str | None) -> None:
    with service.connect(
        "/echo?" + (name := f"echo {compression}".replace(" ", "-")), compression=compression
    ) as client:
        for message in ("", "a", b"", b"\x00\xff", "ü" * 1000, "x" * 1_000_000, bytes(100_000)):
            client.send(message)
            assert client.recv(timeout=20) == message
        client.send(["in ", "frag", "ments"])
        assert client.recv(timeout=20) == "in fragments"
        assert client.ping().wait(20)
        assert ("Sec-WebSocket-Extensions" in client.response.headers) == (compression is not None)  # type: ignore[union-attr]
    end = {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    assert service.told(name, 2) == [end, end], "and so at each further receive()"


def test_everybody_in_the_room_hears_everything(service: Service) -> None:
    with ExitStack() as stack:
        kinds = [None, "deflate"] * 15
        clients = [stack.enter_context(service.connect("/chat", compression=kind)) for kind in kinds]
        for number, client in enumerate(clients):
            client.send(f"I am {number}")
            assert {each.recv(timeout=20) for each in clients} == {f"I am {number}"}


def test_frames_may_come_before_the_answer_and_in_any_pieces(service: Service) -> None:
    bird = masked(b"bird")
    with service.raw("/echo", masked(b"early") + bird[:3]) as sock:
        sock.sendall(bird[3:])
        assert exactly(sock, 13) == b"\x81\x05early\x81\x04bird"


def test_very_many_tiny_frames_are_a_message_like_any_other(service: Service) -> None:
    def piece(opcode: Opcode, data: bytes, *, fin: bool = False) -> bytes:
        return Frame(opcode, data, fin=fin).serialize(mask=True)

    many = piece(Opcode.TEXT, b"a") + piece(Opcode.CONT, b"") * 20_000 + piece(Opcode.CONT, b"b", fin=True)
    many += b"".join(masked(b"%03d" % number) for number in range(500))
    echoes = b"\x81\x02ab" + b"".join(b"\x81\x03%03d" % number for number in range(500))
    with service.raw("/echo", many[:10_000]) as sock:
        sock.sendall(many[10_000:])
        assert exactly(sock, len(echoes)) == echoes


def test_a_client_that_says_a_lot_is_heard_in_order(service: Service) -> None:
    """And while its application is not listening, no more is read than what may wait."""
    with service.raw("/sleepy?flood") as sock:
        assert exactly(sock, 7) == b"\x81\x05ready"
        sock.settimeout(2)
        messages = (masked(f"{number} {'x' * 1000}".encode()) for number in range(60_000))
        sent = 0
        with pytest.raises(TimeoutError):
            for message in messages:
                sock.sendall(message)
                sent += 1
        assert sent < 30_000, "the buffers of the kernel, and what may wait"
        assert service.get("/open") == "hello", "others are served meanwhile"
    [count] = service.told("flood")
    assert sent <= count <= sent + 1


# --- conformance


def test_it_conforms(service: Service, tmp_path: Path) -> None:
    """The cases of the Autobahn test suite but for those that take long, some of compression among them."""
    several = [f"{number}.*" for number in (1, 2, 3, 4, 5, 6, 7, 10)]
    several += [f"{kind}.{number}" for kind in ("12.1", "12.3", "13.1", "13.3", "13.5", "13.7") for number in (1, 5)]
    command = [
        str(Path(sys.executable).with_name("kosoku")),
        "-p",
        "4",
        "-o",
        str(tmp_path),
        f"127.0.0.1:{service.port}",
    ]
    for case in several:
        command += ["-i", case]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    [(_, results)] = json.loads((tmp_path / "index.json").read_text()).items()
    assert len(results) > 250
    assert {result["behavior"] for result in results.values()} <= {"OK", "NON-STRICT", "INFORMATIONAL"}
    assert {result["behaviorClose"] for result in results.values()} <= {"OK", "INFORMATIONAL"}


# --- scope, subprotocol, denial


def test_the_scope_is_that_of_a_websocket(service: Service) -> None:
    with service.connect(
        "/show?a=%20b", subprotocols=["one", "two"], additional_headers={"X-Forwarded-Proto": "https", "X-A": "1"}
    ) as client:
        scope = json.loads(client.recv(timeout=20))
        assert client.subprotocol == "two"
        assert client.response is not None and client.response.headers["x-own"] == "\xe9"
    fields = [tuple(each) for each in scope.pop("headers")]
    assert ("x-a", "1") in fields and ("upgrade", "websocket") in fields
    assert scope.pop("client")[0] == "127.0.0.1"
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "wss",
        "path": "/show",
        "raw_path": "/show",
        "query_string": "a=%20b",
        "root_path": "",
        "server": ["127.0.0.1", service.port],
        "subprotocols": ["one", "two"],
        "extensions": {"websocket.http.response": {}},
    }


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/deny?deny", 403, b"403 Forbidden\n"),
        ("/denial?denial", 401, b"who are you?"),
        ("/raises_early", 500, b"500 Internal Server Error\n"),
        ("/returns_early", 500, b"500 Internal Server Error\n"),
        ("/forged", 500, b"500 Internal Server Error\n"),
    ],
)
def test_what_is_not_accepted_is_answered_over_http(service: Service, path: str, status: int, body: bytes) -> None:
    mark = service.server.mark
    with pytest.raises(InvalidStatus) as caught:
        service.connect(path)
    response = caught.value.response
    assert (response.status_code, response.body) == (status, body)
    if status == 401:
        assert response.headers["WWW-Authenticate"] == "Basic"
    if status != 500:
        assert service.told(path.partition("?")[2]) == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
    service.server.wait_log(rf'"GET {re.escape(path)} HTTP/1.1" {status} ', since=mark)


def test_an_opening_that_is_wrong_never_reaches_the_application(service: Service) -> None:
    for change, status in (
        (("13", "12"), b"426 "),
        (("dGhlIHNhbXBsZSBub25jZQ==", "short"), b"400 "),
        (("GET", "POST"), b"405 "),
    ):
        with socket.create_connection(("127.0.0.1", service.port), timeout=20) as sock:
            sock.sendall(OPENING.format("/echo?wrong").replace(*change).encode())
            assert sock.recv(1000).startswith(b"HTTP/1.1 " + status)
    assert "wrong" not in service.get("/told")


def test_another_upgrade_is_a_plain_request(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as sock:
        sock.sendall(OPENING.format("/").replace("websocket\r\n", "h2c\r\n", 1).encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_what_comes_out_of_order_is_the_applications_mistake(service: Service) -> None:
    with service.connect("/unordered?unordered") as client:
        assert client.recv(timeout=20) == b"good"
    found = [each.partition(":")[0] for each in service.told("unordered", 11)]
    assert found == [
        *("RuntimeError", "RuntimeError", "InvalidResponse", "sent", "RuntimeError", "RuntimeError"),
        *("InvalidResponse", "InvalidResponse", "InvalidResponse", "TypeError", "InvalidResponse"),
    ]


# --- ends


@pytest.mark.parametrize(
    ("path", "code", "reason", "logged"),
    [
        ("/returns", 1000, "", ""),
        ("/raises", 1011, "", "ValueError: on purpose"),
        ("/close?close", 4000, "enough", ""),
        ("/twice", 1000, "", "RuntimeError: websocket.close was sent after"),
    ],
)
def test_a_handler_ends_it(service: Service, path: str, code: int, reason: str, logged: str) -> None:
    mark = service.server.mark
    with service.connect(path) as client:
        assert closed(client) == (code, reason)
    if logged:
        service.server.wait_log(logged, since=mark)
    if code == 4000:
        told = {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
        assert service.told("close", 3) == [told, "Disconnected", "Disconnected"]


def test_a_peer_that_closes_is_answered_and_told_with_its_code(service: Service) -> None:
    with service.connect("/echo?code") as client:
        client.close(4321, "bye")
        assert client.close_code == 4321
    assert service.told("code")[0] == {"type": "websocket.disconnect", "code": 4321, "reason": "bye"}
    with service.raw("/echo?nocode") as sock:
        sock.sendall(masked(b"", Opcode.CLOSE))
        assert sock.recv(100) == b"\x88\x00" and sock.recv(100) == b""
    assert service.told("nocode")[0] == {"type": "websocket.disconnect", "code": 1005, "reason": ""}


def test_a_peer_that_goes_without_a_word_is_told_as_1006(service: Service) -> None:
    service.raw("/echo?gone").close()
    assert service.told("gone")[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_sending_to_who_has_gone_raises_an_os_error_that_is_not_logged(service: Service) -> None:
    mark = service.server.mark
    service.raw("/pour?poured").close()
    assert "OSError: " in service.told("poured", 2)[1]
    assert "Traceback" not in service.server.log[mark:]


def test_a_peer_that_breaks_the_protocol_is_told_why(service: Service) -> None:
    for name, data, code in (("utf8", masked(b"\xff"), 1007), ("mask", b"\x81\x01a", 1002)):
        with service.raw(f"/echo?{name}") as sock:
            sock.sendall(data)
            assert sock.recv(100)[2:4] == code.to_bytes(2, "big")
        assert service.told(name)[0]["code"] == code


def test_a_peer_that_resets_amid_what_it_has_sent_is_no_error_of_the_server(start: Start) -> None:
    """Frames are looked at in turns: the pings come in a later one than the first, and cannot be answered."""
    service = serve(start, "-w", "1")
    with service.raw("/echo?reset") as sock:
        [worker] = service.server.workers
        worker.kill(signal.SIGSTOP)
        eventually(lambda: worker.state == "T", "a worker that is stopped")
        sock.sendall(masked(b"", Opcode.PONG) * 300 + masked(b"", Opcode.PING) * 300)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    worker.kill(signal.SIGCONT)
    assert service.told("reset")[0]["code"] == 1006
    assert "Error of the server" not in service.server.log


def test_what_a_peer_sends_behind_its_close_is_read_and_dropped(service: Service) -> None:
    """However many frames came before that: what is sent to a connection that nobody reads resets it."""
    for before in (0, 300):
        with service.raw("/echo") as sock:
            sock.sendall(masked(b"", Opcode.PONG) * before + masked(b"\x03\xe8", Opcode.CLOSE))
            assert exactly(sock, 4) == b"\x88\x02\x03\xe8"
            assert sock.recv(1) == b""
            sock.sendall(bytes(16 << 20))


def test_who_asks_for_little_does_not_wait_for_the_long_messages_of_all(start: Start) -> None:
    """Ten messages of 16 kB become 16 MiB each. They came first, and most of them are inflated behind the request."""
    service = serve(start, "-w", "1")
    message = compressed(bytes((16 << 20) - 1), Opcode.BINARY)
    with ExitStack() as stack:
        names = [f"long{number}" for number in range(10)]
        peers = [stack.enter_context(service.raw(f"/size?{name}", extension=DEFLATE)) for name in names]
        asking = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        stack.callback(asking.close)
        asking.request("GET", "/cpu")
        before = float(asking.getresponse().read())
        [worker] = service.server.workers
        worker.kill(signal.SIGSTOP)
        eventually(lambda: worker.state == "T", "a worker that is stopped")
        for peer in peers:
            peer.sendall(message)
        asking.request("GET", "/cpu")
        worker.kill(signal.SIGCONT)
        asked = float(asking.getresponse().read())
        for name in names:
            assert service.told(name) == [(16 << 20) - 1]
        assert asked - before < (service.get("/cpu") - before) / 2


def test_a_slow_reader_keeps_its_handler_waiting_and_gets_everything(service: Service) -> None:
    with service.raw("/pour?slow") as sock:
        first = service.told("slow")[0]
        assert first < 40, "the rest waits for its reader"
        assert service.get("/") == "hello", "nobody else does"
        for number in range(64):
            assert exactly(sock, 10) == b"\x82\x7f" + (262144).to_bytes(8, "big")
            assert exactly(sock, 262144) == bytes([number]) * 262144, number


# --- frameworks


def test_fastapi_is_at_home(start: Start) -> None:
    service = serve(start, app="fast_sockets:app")
    with service.connect("/echo?token=t", subprotocols=["xml", "json"]) as client:
        assert client.subprotocol == "json"
        client.send("hello")
        assert json.loads(client.recv(timeout=20)) == {"said": "hello", "token": "t"}
    with service.connect("/parting") as client:
        client.close(3001, "bye")
    for path, status, body in (
        ("/echo?token=bad", 403, b"403 Forbidden\n"),
        ("/nowhere", 403, b"403 Forbidden\n"),
        ("/pay", 402, b'{"pay":"first"}'),
    ):
        with pytest.raises(InvalidStatus) as caught:
            service.connect(path)
        assert (caught.value.response.status_code, caught.value.response.body) == (status, body)
    assert eventually(lambda: [each for each in service.get("/gone") if each[0]], "the code") == [[3001, "bye"]]
    assert "Traceback" not in service.server.log


# --- settings


def test_a_message_that_is_too_long_ends_with_1009(start: Start) -> None:
    service = serve(start, "--websocket-max-message-size", "1000")
    for compression in (None, "deflate"):
        with service.connect("/echo?long", compression=compression) as client:
            client.send("x" * 1000)
            assert client.recv(timeout=20) == "x" * 1000
            client.send("x" * 1001)
            assert closed(client)[0] == 1009


def test_silence_is_asked_about_and_who_does_not_answer_is_gone(start: Start) -> None:
    service = serve(start, "--websocket-ping-interval", "0.3", "--websocket-ping-timeout", "1")
    with service.connect("/echo?alive") as alive, service.raw("/echo?dead") as dead:
        assert exactly(dead, 2) == b"\x89\x00"
        assert service.told("dead")[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        assert dead.recv(100) == b""
        alive.send("still here")  # the client library answers pings
        assert alive.recv(timeout=20) == "still here"


def test_pings_can_be_turned_off_and_compression_too(start: Start) -> None:
    """And to be the last request of its connection means nothing for a WebSocket."""
    off = ("--websocket-ping-interval", "0", "--keepalive-requests", "1")
    service = serve(start, *off, SDSERVE_WEBSOCKET_COMPRESSION="false")
    with service.raw("/echo", masked(b"early")) as sock:
        assert exactly(sock, 7) == b"\x81\x05early"
    with service.connect("/echo", compression="deflate") as client:
        assert client.response is not None and "Sec-WebSocket-Extensions" not in client.response.headers


# --- the end of a worker


def test_a_stop_says_1012_to_both(start: Start) -> None:
    service = serve(start, "--stream-grace", "0", "--access-logfile", "-")
    with service.connect("/echo?stopped") as client, service.connect("/echo?second") as second:
        client.send("a")
        client.recv(timeout=20)
        service.server.kill(signal.SIGTERM)
        assert closed(client) == closed(second) == (1012, "")
    assert service.server.wait() == 0
    assert len(re.findall(r'"GET /echo\S+ HTTP/1.1" 101 ', service.server.log)) == 4, "opened and closed, each"
    assert "Traceback" not in service.server.log


def test_a_reload_sends_clients_to_the_new_worker(start: Start) -> None:
    service = serve(start, "--stream-grace", "0")
    [old] = service.server.wait_workers(1)
    with service.connect("/echo") as client:
        service.server.kill(signal.SIGHUP)
        assert closed(client) == (1012, "")
        with service.connect("/echo") as again:
            again.send("here I am")
            assert again.recv(timeout=20) == "here I am"
            service.server.wait_workers(1, besides=[old.pid])


def test_a_handler_that_takes_no_hint_is_cancelled(start: Start) -> None:
    service = serve(start, "--stream-grace", "0", "--graceful-timeout", "2")
    with service.connect("/deaf?deaf") as client:
        service.server.kill(signal.SIGTERM)
        assert closed(client) == (1012, "")
        assert service.server.wait() == 0


def test_what_was_not_accepted_when_the_worker_leaves_gets_503(start: Start) -> None:
    service = serve(start, "--stream-grace", "0", "--graceful-timeout", "5")
    answers: list[int] = []

    def ask() -> None:
        with pytest.raises(InvalidStatus) as caught:
            service.connect("/hesitate?late")
        answers.append(caught.value.response.status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    assert service.told("late") == ["asked"]
    service.server.kill(signal.SIGTERM)
    thread.join(20)
    assert answers == [503]
    service.server.wait()


def test_a_quick_stop_leaves_nobody_in_the_dark(start: Start) -> None:
    service = serve(start)
    with service.connect("/echo") as client:
        service.server.kill(signal.SIGQUIT)
        assert closed(client)[0] in (1006, 1012)
    assert service.server.wait() == 0


def test_many_at_once(service: Service) -> None:
    def talk(number: int) -> int:
        with service.connect("/echo", compression="deflate" if number % 3 else None) as client:
            for each in range(10):
                client.send(f"{number} {each}")
                assert client.recv(timeout=20) == f"{number} {each}"
        return number

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(talk, range(100))) == sum(range(100))


# --- memory


def leave(sock: socket.socket) -> None:
    sock.close()


def talk_and_leave(sock: socket.socket) -> None:
    sock.sendall(masked(b"hello") + masked(b"frag")[:4])
    assert exactly(sock, 7)[0] & 0xBF == 0x81
    sock.close()


def close_in_order(sock: socket.socket) -> None:
    sock.sendall(masked(b"\x03\xe8", Opcode.CLOSE))
    read_to_the_end(sock)


def break_the_protocol(sock: socket.socket) -> None:
    sock.sendall(b"\x83\x80abcd")
    read_to_the_end(sock)


def read_to_the_end(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass
    sock.close()


@pytest.mark.parametrize("extension", ["", "Sec-WebSocket-Extensions: permessage-deflate\r\n"])
def test_however_it_ends_nothing_of_it_stays_in_memory(start: Start, extension: str) -> None:
    service = serve(start, app="kept:application")
    ways: list[tuple[str, Callable[[socket.socket], None]]] = [
        *[("/echo", way) for way in (leave, talk_and_leave, close_in_order, break_the_protocol)],
        *[("/raise", close_in_order), ("/close", close_in_order), ("/pour", leave), ("/late", leave)],
    ]

    def all_ways() -> None:
        for path, way in ways:
            way(service.raw(path, extension=extension))
        for path in ("/deny", "/early"):
            with pytest.raises(InvalidStatus):
                service.connect(path)

    def left() -> dict[str, int]:
        found: dict[str, int] = service.get("/left")
        return found

    all_ways()
    first = eventually(lambda: (found := left()) == left() and found, "calm")
    for _ in range(10):
        all_ways()
    eventually(lambda: left() == first or None, f"what there was at first: {first}; {left()}")


def test_a_message_that_was_received_is_nobodys_but_the_applications(start: Start) -> None:
    """Its client may send nothing more for hours."""
    service = serve(start, "-w", "1")
    [worker] = service.server.workers
    count, size = 12, 16 << 20
    message = compressed(bytes(size), Opcode.BINARY)
    service.get("/told")
    before = read_pss(worker.pid) or 0
    with ExitStack() as stack:
        for number in range(count):
            stack.enter_context(service.raw(f"/drop?drop{number}", extension=DEFLATE)).sendall(message)
            assert service.told(f"drop{number}") == [size]
        more = (read_pss(worker.pid) or 0) - before
    assert before > 0 and more < count * size / 3, f"{more >> 20} MiB more than before"


@pytest.mark.parametrize(("text", "part"), [("x" * ((4 << 20) - 4) + "\N{GRINNING FACE}", 1), ("x" * (4 << 20), 4)])
def test_what_they_cost_together_is_what_the_page_says(start: Start, text: str, part: int) -> None:
    """One message is the application's, and another one waits for it."""
    page = (Path(__file__).parents[2] / "docs/reference/limits.md").read_text()
    [factor] = re.findall(r"websocket_max_message_size . (\d+) . connections", page)
    count, message = 6, compressed(text.encode())
    bound = len(text.encode()) * int(factor) // part * count
    service = serve(start, "-w", "1", "--websocket-max-message-size", "4M")
    [worker] = service.server.workers
    service.get("/told")
    before = read_pss(worker.pid) or 0

    def calm() -> int:
        """How much more is in memory, once that does not change while the event loop turns."""
        first = read_pss(worker.pid) or 0
        for _ in range(2 * count):
            service.get("/")
        more = (read_pss(worker.pid) or 0) - before
        return more if abs(more - (first - before)) < 1 << 20 else 0

    with ExitStack() as stack:
        for number in range(count):
            stack.enter_context(service.raw(f"/hold?hold{number}", extension=DEFLATE)).sendall(message * 2)
        for number in range(count):
            service.told(f"hold{number}")
        more = eventually(calm, "a worker whose memory does not grow")
        assert bound * 0.8 < more < bound * 1.2 + (16 << 20), f"{more >> 20} MiB, and {bound >> 20} by the page"
