"""Bodies far larger than memory should be: Flask and Django take and give them, and the worker stays small.

64 MiB each, within 16 MiB more memory. TESTS_BULK_MIB sets another size, and with 1024 the bound is 64 MiB:

    TESTS_BULK_MIB=1024 .venv/bin/pytest -s tests/scenarios/test_http_bulk.py

`-s` shows the figures. The full size needs 2 GiB of room for temporary files.
"""

import http.client
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apps.bulk_flask import PIECE
from tests.support.processes import Process
from tests.support.server import Server, free_port

MIB = int(os.environ.get("TESTS_BULK_MIB", "64"))
PIECES = MIB * (1 << 20) // len(PIECE)
BOUND = 64 if MIB >= 512 else 16  # MiB

APPS = ("bulk_flask:app", "bulk_django:app")


class Memory:
    """The growth of a process at its peak."""

    def __init__(self, process: Process) -> None:
        self._status = Path(f"/proc/{process.pid}/status")
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # proc(5): the peak begins anew
        self._before = self._read("VmRSS")

    def _read(self, name: str) -> int:
        lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return int(lines[name].split()[0])

    @property
    def growth(self) -> float:
        """MiB between what it had and the most it had since."""
        return (self._read("VmHWM") - self._before) / 1024


@pytest.fixture(scope="module")
def checksum() -> int:
    check = 0
    for _ in range(PIECES):
        check = zlib.crc32(PIECE, check)
    return check


@pytest.fixture
def served(start: Callable[..., Server], request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Process]:
    """(the port, the worker) of an application that has answered before: what it imports late is there."""
    port = free_port()
    path = tmp_path / "bulk"
    if "file" in request.node.name:
        with path.open("wb") as file:
            for _ in range(PIECES):
                file.write(PIECE)
    server = start("-b", f"127.0.0.1:{port}", request.param, env={"BULK_FILE": str(path)})
    server.wait_ready()
    (worker,) = server.wait_workers(1)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("POST", "/upload", body=PIECE)
    assert client.getresponse().read().startswith(b"65536 ")
    client.request("GET", "/download/1")
    assert client.getresponse().read() == PIECE
    client.close()
    return port, worker


def report(what: str, memory: Memory, began: float) -> None:
    print(f"\n{what}: {MIB} MiB, {memory.growth:.1f} MiB more memory, {time.monotonic() - began:.1f} s")


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("served", APPS, indirect=True)
def test_upload(served: tuple[int, Process], chunked: bool, checksum: int, request: pytest.FixtureRequest) -> None:
    port, worker = served
    memory, began = Memory(worker), time.monotonic()
    body: Iterator[bytes] = (PIECE for _ in range(PIECES))
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {} if chunked else {"Content-Length": str(PIECES * len(PIECE))}
    client.request("POST", "/upload", body=body, headers=headers, encode_chunked=chunked)
    assert client.getresponse().read().decode() == f"{PIECES * len(PIECE)} {checksum}"
    client.close()
    report(request.node.name, memory, began)
    assert memory.growth < BOUND


@pytest.mark.parametrize("path", [f"/download/{PIECES}", "/file"], ids=["stream", "file"])
@pytest.mark.parametrize("served", APPS, indirect=True)
def test_download(served: tuple[int, Process], path: str, checksum: int, request: pytest.FixtureRequest) -> None:
    port, worker = served
    memory, began = Memory(worker), time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("GET", path)
    answer = client.getresponse()
    size = check = 0
    while piece := answer.read(1 << 18):
        size += len(piece)
        check = zlib.crc32(piece, check)
    client.close()
    report(request.node.name, memory, began)
    assert (size, check) == (PIECES * len(PIECE), checksum)
    assert memory.growth < BOUND


def test_the_measure_sees_an_application_that_holds_a_body(start: Callable[..., Server]) -> None:
    port = free_port()
    server = start("-b", f"127.0.0.1:{port}", "web").wait_ready()
    (worker,) = server.wait_workers(1)
    memory = Memory(worker)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("POST", "/plain_echo", body=PIECE * 320)
    assert client.getresponse().read() == PIECE * 320
    client.close()
    assert memory.growth > 20
