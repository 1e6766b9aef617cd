"""However an ASGI exchange ends, nothing of it stays until a garbage collection: no task, no descriptor, no object.

The application switches the collector off and counts what there is. TESTS_REMAINS=10000 ends so many in a row.
"""

import itertools
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.apps.asgi_ends import WAYS
from tests.support.corners import LOOPS
from tests.support.server import Server, answer, free_port
from tests.support.waiting import eventually
from tests.support.wire import Address, Wire, get

COUNT = int(os.environ.get("TESTS_REMAINS", "200"))
HOOKS = "def pre_request(worker, req): req.headers\ndef post_request(worker, req, environ, resp): resp.status_code\n"
ENDLESS = ("waits", "sleeps", "group")
End = Callable[[Address], None]


def read(address: Address, data: bytes) -> None:
    """Reads to the end, in whatever way that comes."""
    with Wire(address, data) as wire, suppress(ConnectionResetError):
        wire.rest()


def leave(address: Address, data: bytes) -> None:
    """Leaves once something has come."""
    with Wire(address, data) as wire:
        wire.sock.recv(10)


def reset(address: Address, data: bytes) -> None:
    wire = Wire(address, data)
    wire.sock.recv(10)
    wire.reset()


def close(address: Address, data: bytes) -> None:
    Wire(address, data).close()


def reset_at_once(address: Address, data: bytes) -> None:
    Wire(address, data).reset()


def half(address: Address, data: bytes) -> None:
    with Wire(address, data) as wire:
        wire.half()
        with suppress(ConnectionResetError):
            wire.rest()


def asked(end: Callable[[Address, bytes], None], data: bytes) -> End:
    return lambda address: end(address, data)


def body(path: str, *lines: str) -> bytes:
    return get(f"/{path}", *lines, method="POST")


LENGTH, CHUNKS = "Content-Length: 1000000", "Transfer-Encoding: chunked"
LAST = "Connection: close"
ENDS: dict[str, End] = {
    **{f"read {way}": asked(read, get(f"/{way}", LAST)) for way in WAYS if way not in ENDLESS},
    **{f"keep {way}": asked(leave, get(f"/{way}")) for way in WAYS if way not in ENDLESS},
    **{f"leave {way}": asked(leave, get(f"/{way}")) for way in (*ENDLESS, "pours", "large")},
    **{f"reset {way}": asked(reset, get(f"/{way}")) for way in (*ENDLESS, "pours", "large")},
    **{f"close {way}": asked(close, get(f"/{way}")) for way in (*ENDLESS, "pours", "answers", "behind")},
    **{f"reset at once {way}": asked(reset_at_once, get(f"/{way}")) for way in (*ENDLESS, "answers")},
    **{f"half {way}": asked(half, get(f"/{way}")) for way in ("waits", "group", "answers", "behind")},
    **{f"pipelined {way}": asked(leave, get(f"/{way}") * 3) for way in ("waits", "answers", "behind", "large")},
    **{f"left upload {way}": asked(close, body(way, LENGTH) + bytes(5000)) for way in ("reads", "ignores")},
    **{f"reset upload {way}": asked(reset_at_once, body(way, LENGTH) + bytes(5000)) for way in ("reads", "ignores")},
    "left amid both": asked(leave, body("reads_late", LENGTH) + bytes(5000)),
    "half upload": asked(half, body("reads", LENGTH) + bytes(5000)),
    **{
        f"bad chunk {way}": asked(read, body(way, CHUNKS) + b"5\r\nhello,")
        for way in ("reads", "reads_late", "ignores")
    },
    "bad chunk, behind": asked(read, body("behind", CHUNKS) + b"5\r\nhello,"),
    "chunked": asked(read, body("reads", CHUNKS, LAST) + b"5\r\nhello\r\n0\r\n\r\n"),
    "expectation": asked(leave, body("reads", "Expect: 100-continue", LENGTH)),
    "unwanted": asked(read, body("ignores", "Expect: 100-continue", LENGTH)),
    "no request": asked(read, b"GET / HTTP/1.1\r\nno field\r\n\r\n"),
    "half a head": asked(close, b"GET / HTTP/1.1\r\nHost"),
}


@pytest.mark.parametrize(("loop", "hooks"), [*((loop, False) for loop in LOOPS), ("uvloop", True)])
def test_an_exchange_leaves_nothing_however_it_ends(
    start: Callable[..., Server], tmp_path: Path, loop: str, hooks: bool
) -> None:
    address = ("127.0.0.1", free_port())
    (tmp_path / "conf.py").write_text(HOOKS if hooks else "")
    logs = ("--access-logfile", "/dev/null", "-c", f"{tmp_path}/conf.py", "--log-level", "critical")
    asgi = ("--asgi-loop", loop, "--asgi-sendfile")
    server = start("-b", "{}:{}".format(*address), *asgi, *logs, "asgi_ends").wait_ready()
    (worker,) = server.workers

    def left() -> dict[str, int]:
        found: dict[str, int] = json.loads(answer(address, "/left").body)
        return found

    def remains(ends: list[End]) -> dict[str, int]:
        """What there is more than before, once no more of it goes away."""
        before = left()
        for end in ends:
            end(address)
        try:
            eventually(lambda: left().items() <= before.items())
        except AssertionError:
            found = left()
            return {kind: count - before.get(kind, 0) for kind, count in found.items() if count > before.get(kind, 0)}
        return {}

    for end in ENDS.values():  # what is made once is there from then on
        end(address)
    eventually(lambda: left()["tasks"] == 1, "all calls are over")
    found = {name: more for name, end in ENDS.items() if (more := remains([end]))}
    assert not found
    many = [end for _, end in zip(range(COUNT), itertools.cycle(ENDS.values()), strict=False)]
    assert not remains(many)
    assert server.workers == [worker]
