"""Applications that take a connection over: WebSockets by Flask-Sock, and protocols of one's own."""

import re
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import simple_websocket

from tests.support.load import get, until_closed
from tests.support.server import Server, connector
from tests.support.waiting import eventually

FORMAT = "|%(m)s %(U)s %(s)s %(B)s|"


@pytest.fixture(params=["1", "4"], ids=["one thread", "four threads"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    options = ("-w", "2", "--threads", request.param, "--timeout", "2", "--graceful-timeout", "3")
    with Server("-b", "127.0.0.1:0", *options, "--access-logfile", "-", "--access-logformat", FORMAT, "sock") as server:
        server.wait_ready()
        yield server


def address(server: Server) -> tuple[str, int]:
    return "127.0.0.1", int(server.wait_log(r"127\.0\.0\.1:(\d+)")[1])


def web_socket(server: Server) -> simple_websocket.Client:
    host, port = address(server)
    return simple_websocket.Client(f"ws://{host}:{port}/echo")


def ask(client: simple_websocket.Client, text: str) -> str:
    client.send(text)
    answer = client.receive(timeout=15)
    assert isinstance(answer, str), "no answer"
    return answer


def test_a_web_socket_outlives_the_time_out_and_ends_with_its_call(server: Server) -> None:
    client = web_socket(server)
    pid = ask(client, "pid")
    waited = web_socket(server)  # a clock: the server's own time-out, for a request that hangs, would come first
    del waited
    for _ in range(12):
        assert ask(client, "hello") == "hello"
        assert client.receive(timeout=0.25) is None
    assert ask(client, "pid") == pid
    client.send("bye")
    with pytest.raises(simple_websocket.ConnectionClosed):
        client.receive(timeout=15)
    server.wait_log(r"^\|GET /echo 101 [1-9]\d+\|$")
    assert "longer than timeout" not in server.log and "WORKER TIMEOUT" not in server.log
    assert get(connector(address(server)), "/").status == 200


def test_flask_sock_served_and_reloaded(server: Server) -> None:
    """A reload goes on without the WebSocket, which is served on until graceful_timeout, and is named then."""
    client = web_socket(server)
    pid = ask(client, "pid")
    server.kill(signal.SIGHUP)
    server.wait_log(r"Ready: Running: 2 of 2 workers serving, generation 2|generation 2")
    for _ in range(10):
        assert get(connector(address(server)), "/").body.decode() != pid
    assert ask(client, "still here") == "still here"
    server.wait_log(r"GET /echo has had its connection to itself for [\d.]+ s, and is cut: graceful_timeout is over")
    with pytest.raises(simple_websocket.ConnectionClosed):
        client.receive(timeout=15)
    renewed = web_socket(server)
    assert ask(renewed, "pid") != pid


def connect(server: Server) -> socket.socket:
    return socket.create_connection(address(server), timeout=15)


def test_what_came_with_the_request_is_read_first(server: Server) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /raw HTTP/1.1\r\nHost: a\r\nUpgrade: shout\r\nConnection: Upgrade\r\n\r\none\ntwo\nth")
        sock.sendall(b"ree\nend\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        got = until_closed(sock)
    assert got.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert got.endswith(b"\r\n\r\nONE\nTWO\nTHREE\n"), "and nothing behind the end is a request"
    server.wait_log(r"^\|GET /raw 101 \d+\|$")


def test_what_gunicorn_takes_for_the_end_of_a_call_is_one(server: Server) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /stop HTTP/1.1\r\nHost: a\r\n\r\n")
        assert until_closed(sock) == b"HTTP/1.0 299 Mine\r\n\r\nbody"
    server.wait_log(r"^\|GET /stop 299 \d+\|$")
    assert "Traceback" not in server.log


def test_a_look_at_the_socket_takes_nothing_over(server: Server) -> None:
    with connect(server) as sock:
        look = b"GET /look HTTP/1.1\r\nHost: a\r\n\r\n"
        sock.sendall(look)
        assert sock.recv(65536).endswith(b"True True b'nothing'")
        sock.sendall(look * 2)
        got = b""
        while got.count(b"True True") < 2:
            got += sock.recv(65536)
        assert b"b'GET /'" in got and got.endswith(b"b'nothing'")


def test_early_hints_come_before_the_answer(server: Server) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = until_closed(sock)
    heads = got.split(b"\r\n\r\n")
    assert heads[0] == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload"
    assert heads[1] == b"HTTP/1.1 103 Early Hints\r\nLink: </b.js>; rel=preload"
    assert heads[2].startswith(b"HTTP/1.1 200 OK\r\n") and heads[3:] == [b"ok"]


def test_early_hints_are_not_for_http_1_0_and_cannot_be_forged(server: Server) -> None:
    with connect(server) as sock:
        sock.sendall(b"GET /hints HTTP/1.0\r\n\r\n")
        got = until_closed(sock)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n") and b"103" not in re.sub(rb"Date: .*", b"", got)
    with connect(server) as sock:
        sock.sendall(b"GET /hints?forge HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        got = until_closed(sock)
    assert b"HTTP/1.1 500 " in got and b"forged" not in got


HOARDER = """
import gc, os
gc.disable()

def application(environ, start_response):
    if environ["PATH_INFO"] == "/take":
        taken = environ["werkzeug.socket"]
        taken.sendall(b"taken")
        taken.recv(1)
    start_response("200 OK", [])
    return [str(len(os.listdir("/proc/self/fd"))).encode()]
"""


def test_a_connection_that_is_reset_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    """Not even until Python's collector runs: the error of a call must not hold what the call held."""
    (tmp_path / "hoarder.py").write_text(HOARDER)
    with Server("-b", "127.0.0.1:0", "--threads", "4", "--chdir", str(tmp_path), "hoarder:application") as server:
        server.wait_ready()

        def count() -> int:
            return int(get(connector(address(server)), "/").body)

        before = count()
        for _ in range(20):
            with connector(address(server))() as client:
                client.sendall(b"GET /take HTTP/1.1\r\nHost: test\r\n\r\n")
                assert client.recv(5) == b"taken"
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset at its close
        eventually(lambda: count() <= before, f"{before} descriptors as before")


@pytest.mark.parametrize(("threads", "with_what"), [("1", "with one thread"), ("2", "with all of its 2 threads")])
def test_the_log_says_when_no_thread_is_left_for_anybody_else(threads: str, with_what: str) -> None:
    with Server("-b", "127.0.0.1:0", "--threads", threads, "sock") as server:
        server.wait_ready()
        clients = []
        for _ in range(int(threads)):
            assert "serves nothing else" not in server.log
            clients.append(web_socket(server))
            assert ask(clients[-1], "hello") == "hello"
        server.wait_log(f"took the connection of GET /echo over: worker .*, {with_what}")
        for client in clients:
            client.close()
