"""Bodies that end just before, at and behind the end of what is received at once: nothing is lost, or read twice."""

import zlib
from collections.abc import Callable, Iterator

import pytest

from sdserve.workers.http.client import HEADS, RECEIVE
from tests.support.server import Server, free_port
from tests.support.wire import Wire, get

KINDS = {"sync": ("plain:application",), "threads": ("--threads", "4", "plain:application"), "asgi": ("plain_asgi",)}
SIZES = sorted(
    {at + more for at in (HEADS, 2 * HEADS, RECEIVE, HEADS + RECEIVE) for more in (-200, -100, -1, 0, 1, 100)}
)


@pytest.fixture(params=KINDS)
def address(request: pytest.FixtureRequest, start: Callable[..., Server]) -> tuple[str, int]:
    port = free_port()
    start("-b", f"127.0.0.1:{port}", *KINDS[request.param]).wait_ready()
    return "127.0.0.1", port


def body(size: int) -> bytes:
    """As long as that, and unlike any other."""
    return (b"%d " % zlib.crc32(b"%d" % size) * size)[:size]


def parts(data: bytes, *at: int) -> Iterator[bytes]:
    begin = 0
    for end in (*at, len(data)):
        yield data[begin:end]
        begin = end


def test_a_body_of_any_size_is_echoed_and_the_next_request_answered(address: tuple[str, int]) -> None:
    """It comes in one piece with its head and the head of the next one, or without its last byte, or in thirds."""
    for size in SIZES:
        said = body(size)
        head = get("/echo", f"Content-Length: {size}", method="POST")
        asked = head + said + get("/hello")
        for ends in ((), (len(head) + size - 1,), (len(head),), (HEADS,), (HEADS - 1, HEADS + 9000), (HEADS + 1, size)):
            with Wire(address) as wire:
                for each in parts(asked, *sorted(ends)):
                    wire.send(each)
                found = wire.response()
                assert (found.status, found.whole) == (200, True)
                assert found.body == said
                assert wire.response().status == 200
