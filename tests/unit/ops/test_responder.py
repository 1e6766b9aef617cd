"""The observer's server: strict, bounded, and quick for honest clients whatever the others do."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sdserve.ops import responder
from sdserve.ops.responder import MOST, Responder


class Served:
    """A responder in a thread of its own, on an HTTP listener and a plain one."""

    def __init__(self) -> None:
        self.http, self.plain = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.lifeline, self.end = os.pipe()
        routes = {"/livez": lambda accept: (200, "OK", "text/plain", b"ok\n"), "/bad": self.bad}
        self.failures = 0
        self.responder = Responder(routes, lambda: b"up drain\n", "test", self.lifeline, 60.0, self.failed)
        for listener, http in ((self.http, True), (self.plain, False)):
            listener.setblocking(False)
            self.responder.listen(listener, http=http)
        self.thread = threading.Thread(target=self.responder.run)
        self.thread.start()

    def bad(self, accept: str) -> responder.Body:
        raise RuntimeError

    def failed(self) -> None:
        self.failures += 1

    def connect(self, stack: ExitStack, data: bytes = b"", plain: bool = False) -> socket.socket:
        listener = self.plain if plain else self.http
        client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
        client.sendall(data)
        return client

    def ask(self, data: bytes, plain: bool = False) -> bytes:
        with ExitStack() as stack:
            return everything(self.connect(stack, data, plain))

    def close(self) -> None:
        os.close(self.end)
        self.thread.join()
        os.close(self.lifeline)
        self.http.close()
        self.plain.close()


def everything(client: socket.socket) -> bytes:
    answer = b""
    try:
        while data := client.recv(65536):
            answer += data
    except ConnectionResetError:
        return answer
    return answer


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.close()


def test_answers_and_refusals(served: Served) -> None:
    assert b"\r\nDate: " in served.ask(b"what is this\r\n\r\n"), "and nothing was answered before"
    ok = served.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ok.startswith(b"HTTP/1.1 200 OK\r\n") and ok.endswith(b"\r\n\r\nok\n")
    assert served.ask(b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").endswith(b"Connection: close\r\n\r\n")
    for request, status in {
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": 404,
        b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n": 405,
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n": 400,
        b"GET /livez HTTP/1.1\r\n\r\n": 400,
        b"what is this\r\n\r\n": 400,
        b"GET /%s HTTP/1.1\r\n" % (b"x" * 9000): 414,
        b"GET / HTTP/1.1\r\nHost: x\r\nA: %s\r\n" % (b"x" * 9000): 431,
        b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n": 500,
    }.items():
        answer = served.ask(request)
        assert answer.split()[1] == b"%d" % status, request
        assert b"\r\nDate: " in answer, request
    assert served.failures == 1
    assert served.ask(b"", plain=True) == b"up drain\n"


def test_slow_clients_keep_nobody_out(served: Served) -> None:
    """More of them than may be open at a time: the oldest goes for each that comes."""
    with ExitStack() as stack:
        slow = [served.connect(stack, b"GET /livez HT") for _ in range(MOST + 8)]
        assert served.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert everything(slow[0]) == b""


def test_who_does_not_ask_in_time_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "ASK_WITHIN", 0.01)
    assert served.ask(b"GET /livez HT").startswith(b"HTTP/1.1 408")
    assert served.ask(b"") == b""


def test_who_was_accepted_is_answered_when_its_lifeline_ends() -> None:
    served = Served()
    ends = threading.Event()
    served.responder.on_end = ends.set
    with ExitStack() as stack:
        client = served.connect(stack, b"GET /livez HT")
        served.ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")  # who came before is accepted by then
        closing = threading.Thread(target=served.close)
        closing.start()
        assert ends.wait(20)
        client.sendall(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert everything(client).endswith(b"\r\n\r\nok\n")
        closing.join()


def test_it_leaves_at_once_when_its_lifeline_ends_and_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "LAST_QUESTION", 3600.0)
    monkeypatch.setattr(responder, "LAST_ANSWER", 3600.0)
    served = Served()
    with ExitStack() as stack:
        client = served.connect(stack, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert everything(client).endswith(b"ok\n")
        served.close()
        assert not served.thread.is_alive()


def test_it_leaves_when_its_lifeline_ends_whoever_is_connected() -> None:
    served = Served()
    with ExitStack() as stack:
        client = served.connect(stack, b"GET /livez HT")
        served.close()
        assert not served.thread.is_alive()
        client.close()
