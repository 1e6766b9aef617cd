"""Behind a proxy: the PROXY protocol, from those who may speak it."""

from collections.abc import Callable

import pytest

from tests.support.load import until_closed
from tests.support.server import Server, answer, connector, free_port

Address = tuple[str, int]
REQUEST = b"GET /environ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=["web", "asgi_web"])
def serve(request: pytest.FixtureRequest, start: Callable[..., Server]) -> Callable[..., Address]:
    def run(*args: str) -> Address:
        address = ("127.0.0.1", free_port())
        start("-b", "{}:{}".format(*address), *args, request.param).wait_ready()
        return address

    return run


def talk(address: Address, *pieces: bytes) -> bytes:
    with connector(address)() as sock:
        for piece in pieces:
            sock.sendall(piece)
        return until_closed(sock)


def test_a_trusted_peer_says_who_the_client_is(serve: Callable[..., Address]) -> None:
    address = serve("--proxy-protocol")
    header = b"PROXY TCP4 9.8.7.6 1.1.1.1 4711 80\r\n"
    for pieces in ([header + REQUEST], [header, REQUEST], [header[:20], header[20:] + REQUEST[:9], REQUEST[9:]]):
        got = talk(address, *pieces)
        assert b"REMOTE_ADDR=9.8.7.6\n" in got
        assert b"REMOTE_PORT=4711\n" in got


def test_without_the_header_nothing_is_served(serve: Callable[..., Address]) -> None:
    address = serve("--proxy-protocol")
    assert talk(address, REQUEST) == b""
    assert talk(address, b"PROXY TCP4 x\r\n" + REQUEST) == b""


def test_other_peers_do_not_speak_it(serve: Callable[..., Address]) -> None:
    address = serve("--proxy-protocol", "--proxy-allow-from", "10.0.0.1")
    assert b"REMOTE_ADDR=127.0.0.1\n" in talk(address, REQUEST)
    assert talk(address, b"PROXY TCP4 9.8.7.6 1.1.1.1 4711 80\r\n" + REQUEST).startswith(b"HTTP/1.1 400 ")
    assert answer(address, "/hello").status == 200
