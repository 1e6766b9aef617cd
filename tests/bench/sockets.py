"""Compares sdserve with ASGI servers where many WebSockets are open and all of them talk: each says something, waits
for the echo, and says something again.

    python -m tests.bench.sockets                            1,000 connections, messages of 32 bytes
    python -m tests.bench.sockets --connections 100 --size 16384 --peers uvicorn --rounds 5 --seconds 10

What counts is processor time an echo, of the server's process tree; the rate is what a client of one thread gets, and
says little. Every echo is checked. Servers run with one worker, without access logs, with pings and compression as they
come; the client offers no compression. Rounds are interleaved. The table in Markdown goes to standard output.
"""

import argparse
import os
import platform
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench import procfs
from tests.bench.install import install
from tests.bench.loads import Load
from tests.bench.peers import HOST, Command, Peer
from tests.bench.servers import Server
from tests.bench.wrk import WrongAnswer

APPLICATION = "socket_echo:application"
WARM_UP = 1.0  # seconds
PATIENCE = 30.0  # seconds for an opening, or an echo
FILES = 8192  # descriptors that servers and clients may need
OPENING = (
    b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def sdserve(bin: Path, port: int, load: Load) -> list[str]:
    return [sys.executable, "-m", "sdserve", "--bind", f"{HOST}:{port}", load.application]


def uvicorn(*options: str) -> Command:
    def command(bin: Path, port: int, load: Load) -> list[str]:
        quiet = ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
        return [str(bin / "uvicorn"), "--host", HOST, "--port", str(port), *quiet, *options, load.application]

    return command


def granian(bin: Path, port: int, load: Load) -> list[str]:
    options = ["--interface", "asginl", "--host", HOST, "--port", str(port), "--no-log"]
    return [str(bin / "granian"), *options, load.application]


PEERS = (
    Peer("sdserve", sdserve),
    Peer("uvicorn", uvicorn(), "uvicorn"),
    Peer("uvicorn-wsproto", uvicorn("--ws", "wsproto"), "wsproto"),
    Peer("granian", granian, "granian"),
)
NEEDED = ("uvicorn", "uvloop", "httptools", "websockets")


@dataclass(frozen=True)
class Run:
    """Times in seconds, memory in bytes."""

    cpu: float
    """Processor time an echo."""
    rate: float
    """Echoes a second."""
    memory: float
    """PSS of the tree, a connection."""


def head(first: int, size: int, mask: bytes) -> bytes:
    """The head of a frame, masked if `mask` is not empty."""
    flag = 0x80 if mask else 0
    if size < 126:
        return bytes((first, flag | size)) + mask
    if size < 65536:
        return struct.pack("!BBH", first, flag | 126, size) + mask
    return struct.pack("!BBQ", first, flag | 127, size) + mask


class Talkers:
    """`count` open WebSockets, each of which says `size` bytes of text whenever it was answered."""

    def __init__(self, port: int, count: int, size: int) -> None:
        text = b"x" * size
        self._said = head(0x81, size, bytes(4)) + text  # a mask of zeros changes nothing, and costs a server the same
        self._expected = head(0x81, size, b"") + text
        self._port, self._count = port, count
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._heard: dict[int, bytes] = {}

    def __enter__(self) -> "Talkers":
        for _ in range(self._count):
            sock = socket.create_connection((HOST, self._port), timeout=PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(OPENING)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                if not (piece := sock.recv(1000)):
                    break
                answer += piece
            if not answer.startswith(b"HTTP/1.1 101 "):
                raise WrongAnswer(f"the opening was answered with {answer[:100]!r}")
            self._open[sock.fileno()] = sock
            self._heard[sock.fileno()] = b""
            self._poll.register(sock, select.EPOLLIN)
        for sock in self._open.values():
            sock.sendall(self._said)
        return self

    def __exit__(self, *failure: object) -> None:
        for sock in self._open.values():
            sock.close()
        self._poll.close()

    def talk(self, seconds: float) -> tuple[int, float]:
        """Goes on for so long; how many echoes came, and how long it took. Raises WrongAnswer."""
        echoes = 0
        began = now = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            events = self._poll.poll(PATIENCE)
            if not events:
                raise WrongAnswer("no echo comes any more")
            for fd, _ in events:
                sock = self._open[fd]
                heard = self._heard[fd] + sock.recv(65536)
                if heard == self._expected:
                    heard = b""
                    echoes += 1
                    sock.sendall(self._said)
                elif not self._expected.startswith(heard) or heard == self._heard[fd]:
                    raise WrongAnswer(f"an echo begins with {heard[:50]!r}, {len(heard)} bytes")
                self._heard[fd] = heard
        return echoes, now - began


def measure(peer: Peer, bin: Path, connections: int, size: int, seconds: float) -> Run:
    """Raises WrongAnswer."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(peer, bin, Load(peer.name, "", application=APPLICATION)))
        talkers = stack.enter_context(Talkers(server.port, connections, size))
        talkers.talk(WARM_UP)
        before = procfs.snapshot(server.pid)
        echoes, took = talkers.talk(seconds)
        after = procfs.snapshot(server.pid)
        if not echoes:
            raise WrongAnswer("not one echo came")
        return Run(procfs.cpu(before, after) / echoes, echoes / took, procfs.pss(after) / connections)


def main(argv: Sequence[str] | None = None) -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sockets", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--peers", help="of " + ",".join(peer.name for peer in PEERS))
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32, help="bytes of a message")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--venv", type=Path, default=cache / "sdserve-bench" / "venv")
    args = parser.parse_args(argv)
    wanted = args.peers.split(",") if args.peers else [peer.name for peer in PEERS]
    peers = [peer for peer in PEERS if not peer.package or peer.name in wanted]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    versions, missing = install(args.venv, peers, NEEDED)
    found: dict[str, list[Run]] = {peer.name: [] for peer in peers if peer.package not in missing}
    wrong: dict[str, str] = {}
    for number in range(args.rounds):
        for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
            if peer.name in found:
                try:
                    run = measure(peer, args.venv / "bin", args.connections, args.size, args.seconds)
                except (WrongAnswer, OSError) as error:
                    wrong[peer.name] = str(error)
                    continue
                found[peer.name].append(run)
                print(f"round {number + 1}, {peer.name}: {run.cpu * 1e6:.1f} us", file=sys.stderr, flush=True)
    print(f"CPython {platform.python_version()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}.")
    print(f"{args.connections} WebSockets echo {args.size} bytes; {args.rounds} rounds of {args.seconds:g} s.")
    print("Peers:", ", ".join(f"{name} {version}" for name, version in versions.items()) + ".\n")
    print("| server | CPU us an echo: best, median | echoes/s | memory a connection |")
    print("|---|---:|---:|---:|")
    for name, runs in found.items():
        if runs:
            best, middle = min(run.cpu for run in runs) * 1e6, median(run.cpu for run in runs) * 1e6
            rate, memory = median(run.rate for run in runs), median(run.memory for run in runs) / 1024
            print(f"| {name} | {best:.1f}, {middle:.1f} | {rate:,.0f} | {memory:.0f} kB |")
    for name, why in wrong.items():
        print(f"\n{name} failed: {why}")
    return int("sdserve" in wrong)


if __name__ == "__main__":
    sys.exit(main())
