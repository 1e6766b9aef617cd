"""What hostile and slow clients may cost one worker: `python -m tests.bench.promises [NAME ...] [--threads N,M]`.

Each promise is a function that prints what it saw and gives back whether that is within its bound. Memory is PSS. A
latency is compared with that of the same clients when nobody else is there; on a crowded machine both mean little, so
what a client waited for is counted, too: how many requests of others were answered between two of its own.
"""

import argparse
import contextlib
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPConnection
from typing import Any

from tests.support.processes import spooled

MIB = 1 << 20
CONSTANT = b"c" * 10_000_000
PIECE = 65536
calls = {"/pipelined": 0}


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What is served."""
    path = environ["PATH_INFO"]
    if path == "/refuse":
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/constant":
        return [CONSTANT]
    if path == "/generator":
        return (bytes(PIECE) for _ in range(400_000_000 // PIECE))
    if path == "/upload":
        while environ["wsgi.input"].read(PIECE):
            pass
    if path == "/healthy":
        others, calls["/pipelined"] = calls["/pipelined"], 0
        waited = time.monotonic_ns() - int(environ["QUERY_STRING"])
        return [b"%012d%012d" % (others, waited // 1000)]
    if path == "/pipelined":
        calls["/pipelined"] += 1
    return [b"hello"]


class Served:
    """One worker of ours, inside a `with`."""

    def __init__(self, threads: int, **env: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.address = ("127.0.0.1", sock.getsockname()[1])
        bind = "{}:{}".format(*self.address)
        argv = ["-b", bind, "--threads", str(threads), "--keep-alive", "120", "tests.bench.promises:application"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sdserve", *argv], env=os.environ | env, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> "Served":
        while True:
            with contextlib.suppress(OSError):
                self.get("/hello")
                break
            time.sleep(0.05)
        with open(f"/proc/{self._process.pid}/task/{self._process.pid}/children") as file:
            self.worker = int(file.read().split()[0])
        for _ in range(50):
            self.get("/hello")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()

    def get(self, path: str) -> int:
        connection = HTTPConnection(*self.address, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status

    def ask(self, path: str, room: int = 0) -> socket.socket:
        sock = socket.socket()
        if room:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.settimeout(60)
        sock.connect(self.address)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return sock

    def pss(self) -> float:
        """MiB of the worker."""
        with open(f"/proc/{self.worker}/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def readers(threads: int) -> bool:
    """200 clients that read a byte of 10 MB: 64 MiB more than 200 idle ones."""
    seen = []
    for path in ("/hello", "/constant"):
        with Served(threads) as served:
            socks = [served.ask(path, 4096) for _ in range(200)]
            for sock in socks:
                sock.recv(1)
            served.get("/hello")
            seen.append(served.pss())
    print(f"200 idle {seen[0]:.1f} MiB, 200 slow readers of 10 MB {seen[1]:.1f} MiB: {seen[1] - seen[0]:+.1f} MiB")
    return seen[1] - seen[0] <= 64


def pipelined(threads: int) -> bool:
    """300 clients that pipeline for 15 s: 32 MiB more, and the p99 of others within three times the quiet one."""
    with Served(threads) as served:
        quiet, _, _ = _healthy(served, 5)
        before = served.pss()
        load = multiprocessing.Process(target=_pipeline, args=(served.address, 300, 17))
        load.start()
        time.sleep(1)
        beside, others, waits = _healthy(served, 15)
        more = served.pss() - before
        load.join()
    print(
        f"p50/p99/max of 8 clients: quiet {_ms(quiet)}, beside 300 that pipeline {_ms(beside)}, "
        f"of that until the application was called {_ms(waits)}; "
        f"answers to others between two of their own: median {others[len(others) // 2]}, "
        f"p99 {others[len(others) * 99 // 100]}, most {others[-1]}; {more:+.1f} MiB"
    )
    return more <= 32 and _p99(beside) <= 3 * _p99(quiet)


def generator(threads: int) -> bool:
    """400 MB from a generator to 16 clients at 200 kB/s: 8 MiB more, and no spill file."""
    with Served(threads) as served:
        before = served.pss()
        socks = [served.ask("/generator", 65536) for _ in range(16)]
        most, spilled, until = 0.0, 0, time.monotonic() + 10
        while time.monotonic() < until:
            for sock in socks:
                sock.recv(20_000)
            most, spilled = max(most, served.pss()), max(spilled, spooled(served.worker))
            time.sleep(0.1)
    print(f"16 readers of a generator: {most - before:+.1f} MiB, {spilled} bytes in temporary files")
    return most - before <= 8 and not spilled


def disk(threads: int) -> bool:
    """A TMPDIR of 1 MiB: every upload gets a status, and everybody else is served."""
    with tempfile.TemporaryDirectory() as path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=True)
        try:
            with Served(threads, TMPDIR=path) as served:
                statuses: list[int] = []
                uploaders = [threading.Thread(target=_upload, args=(served, statuses)) for _ in range(12)]
                for each in uploaders:
                    each.start()
                served_on = [served.get("/hello") for _ in range(100)]
                for each in uploaders:
                    each.join()
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)
    found = {status: statuses.count(status) for status in set(statuses)}
    print(f"{len(statuses)} of 108 uploads got a status: {found}; {served_on.count(200)} of 100 others got 200")
    return len(statuses) == 108 and served_on.count(200) == 100


def expect(threads: int) -> bool:
    """PUT of 200 MB with Expect and no right to it: 401 before any byte of the body."""
    with Served(threads) as served, socket.create_connection(served.address, timeout=30) as sock:
        sock.sendall(b"PUT /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000\r\nExpect: 100-continue\r\n\r\n")
        status = sock.recv(4096).split(b"\r\n")[0].decode()
    print(f"PUT of 200 MB with Expect: {status}, after 0 bytes of the body")
    return " 401 " in status


def _healthy(served: Served, seconds: float) -> tuple[list[float], list[int], list[float]]:
    """Eight clients that ask one at a time: their times, how many others were answered meanwhile, and how long each
    request waited for its call: what the server adds, without what a crowded machine keeps the client waiting. Sorted.
    """
    socks = [socket.create_connection(served.address) for _ in range(8)]
    request, times, others, waits = b"GET /healthy?%d HTTP/1.1\r\nHost: a\r\n\r\n", [], [], []
    asked, until = {}, time.monotonic() + seconds
    for sock in socks:
        asked[sock] = time.monotonic()
        sock.sendall(request % time.monotonic_ns())
    while time.monotonic() < until:
        for sock in select.select(socks, [], [], 1)[0]:
            answer = sock.recv(4096)
            times.append(time.monotonic() - asked[sock])
            others.append(int(answer[-24:-12]))
            waits.append(int(answer[-12:]) / 1e6)
            asked[sock] = time.monotonic()
            sock.sendall(request % time.monotonic_ns())
    return sorted(times), sorted(others), sorted(waits)


def _pipeline(address: tuple[str, int], clients: int, seconds: float) -> None:
    """Sends more than is ever answered, in what time the others leave of the cores: hostile clients have their own."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    request = b"GET /pipelined HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    socks = [socket.create_connection(address) for _ in range(clients)]
    for sock in socks:
        sock.setblocking(False)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.send(request)
            with contextlib.suppress(OSError):
                sock.recv(MIB)


def _upload(served: Served, statuses: list[int]) -> None:
    for size in (10_000, 300_000, 600_000, 900_000, 1_000_000, 1_100_000, 2_000_000, 5_000_000, 20_000):
        with socket.create_connection(served.address, timeout=60) as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(f"PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
                sock.sendall(bytes(size))
            with contextlib.suppress(OSError, IndexError, ValueError):
                statuses.append(int(sock.recv(4096).split()[1]))


def _p99(times: list[float]) -> float:
    return times[len(times) * 99 // 100]


def _ms(times: list[float]) -> str:
    return " / ".join(f"{1000 * each:.1f}" for each in (times[len(times) // 2], _p99(times), times[-1])) + " ms"


PROMISES = {promise.__name__: promise for promise in (readers, pipelined, generator, disk, expect)}


def _chosen() -> Iterator[tuple[str, int]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROMISES))
    parser.add_argument("--threads", default="1,4")
    args = parser.parse_args()
    for threads in map(int, args.threads.split(",")):
        for name in args.names or PROMISES:
            yield name, threads


def main() -> int:
    kept = True
    for name, threads in _chosen():
        print(f"{name}, {threads} thread{'s' * (threads > 1)}: ", end="", flush=True)
        within = PROMISES[name](threads)
        print("   within its bound" if within else "   BEYOND ITS BOUND", flush=True)
        kept &= within
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
