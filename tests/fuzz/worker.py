"""Fuzzes the loop of a WSGI worker: `python -m tests.fuzz.worker [--runs N] [--seed N]`.

A run is one to eight clients, each with a stream of good requests, bad ones, or mutations. They send in pieces,
half-close, reset and leave, in an order of its own, while up to three calls of the worker fail: of its sockets, its
epoll, its temporary files. The loop, its streams and the gateway are the ones that serve; the kernel's answers are
ours, and time passes when everybody waits. Whatever happens, no exception may leave the loop, every client that is not
concerned and asked well must have its answers, nothing may be left open, and nobody waits. A seed is a run: a finding
is told with it, and `--seed N --runs 1` is that run again.
"""

import _socket
import argparse
import errno
import logging
import math
import os
import random
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from sdserve.config import load
from sdserve.log import Logger
from sdserve.process.scoreboard import Scoreboard
from sdserve.workers import told
from sdserve.workers.application import Application
from sdserve.workers.http import acceptor, body, requests, spool, write_buffer
from sdserve.workers.http import client as one_client
from sdserve.workers.http import clients as open_clients
from sdserve.workers.http import loop as any_loop
from sdserve.workers.wsgi import clients, leader_followers, loop, watcher
from sdserve.workers.wsgi import input as incoming
from sdserve.workers.wsgi.exchange import WSGIExchange
from sdserve.workers.wsgi.loop import WSGILoop
from sdserve.workers.wsgi.worker import WSGIWorker
from tests.fuzz.corpus import seeds

ERRNOS = [getattr(errno, name) for name in ("ENOSPC", "EMFILE", "ENFILE", "ENOMEM", "EPIPE", "ECONNRESET", "EIO")]
ERRNOS += [errno.ETOOMANYREFS, errno.EINTR, errno.EAGAIN]
SITES = ("recv", "send", "sendmsg", "sendfile", "shutdown", "setsockopt", "accept", "pwrite", "open", "register")
SITES += ("modify", "unregister", "poll", "read")
STORMS, SHARE = (
    0.05,
    0.3,
)  # of runs: in them, so many calls fail that are about no connection, and each write to the log
RINGS = 0.1  # of the things that happen: a signal that means nothing
NOBODY, EVERYBODY = -1, -2  # who is concerned when a call fails that is about no client, or about any
WAITS = 50  # deadlines of a worker that pass while a connection waits at its door
KEEP_ALIVE = 0.1  # seconds; less than a closed door stays closed for
PATIENCE = 200  # turns in which a worker may read nothing of a client that sends
# Small, so that runs are quick: a body beyond MEMORY goes to a file, and a socket takes a few thousand bytes.
MEMORY, SOCKET = 1000, 2048
BODY = b"0123456789" * 600
HELLO, ECHO, MADE = b"hello", b"/echo", b"x" * 9000
FILE_PATH = Path(__file__).with_name("corpus.py")
FILE = FILE_PATH.read_bytes()


class Made:
    """An iterable. `open` are those that nobody has closed."""

    open: ClassVar[set["Made"]] = set()

    def __init__(self) -> None:
        self.open.add(self)

    def __iter__(self) -> Iterator[bytes]:
        return repeat(b"x" * 1000, 9)

    def close(self) -> None:
        self.open.remove(self)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/echo":
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/made":
        start_response("200 OK", [("Content-Length", str(len(MADE)))])
        return Made()
    if path == "/file":
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](FILE_PATH.open("rb"))  # type: ignore[no-any-return]
    start_response("200 OK", [("Content-Length", "5")])
    return [HELLO]


def request(path: bytes, body: bytes = b"", *, chunked: bool = False, more: bytes = b"") -> bytes:
    if chunked:
        return b"POST %b HTTP/1.1\r\nHost: a\r\n%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            *(path, more, len(body), body),
        )
    size = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: a\r\n%b%b\r\n%b" % (b"POST" if body else b"GET", path, more, size, body)


GOOD: list[tuple[bytes, bytes]] = [
    *((request(b"/"), HELLO), (request(b"/made"), MADE), (request(b"/file"), FILE)),
    *((request(ECHO, b"small"), b"small"), (request(ECHO, b"chunk", chunked=True), b"chunk")),
    (request(ECHO, BODY), BODY),
]
EXPECTS = request(ECHO, b"wait", more=b"Expect: 100-continue\r\n"), b"wait"  # rare: it costs a thread
BAD = [seed[4:] for seed in seeds()]


class Faults:
    """Which calls of a run fail, and whose connections were concerned."""

    def __init__(self) -> None:
        self.plan: dict[tuple[str, int], int] = {}
        self.seen: Counter[str] = Counter()
        self.concerned: set[int] = set()
        self.made = 0
        self.armed = False  # from the loop's first poll on: before it, a worker is still booting
        self.storm: random.Random | None = None  # polls, the wake-up pipe and the log fail again and again

    def begin(self, dice: random.Random) -> None:
        chosen = [(dice.choice(SITES), dice.choice((1, 1, 2, 3, 5, 9))) for _ in range(dice.randint(0, 3))]
        self.plan = {each: dice.choice(ERRNOS) for each in chosen}
        self.seen.clear()
        self.concerned.clear()
        self.armed = False
        self.storm = random.Random(dice.random()) if dice.random() < STORMS else None
        if self.storm is not None:
            self.plan = {}  # whose connection is concerned? nobody's
        logging.getLogger("sdserve.error").setLevel(logging.CRITICAL + 1 if self.storm is None else logging.ERROR)

    def at(self, site: str, client: int = NOBODY) -> None:
        """Raises OSError if this call is to fail."""
        if self.storm is not None and self.armed and client == NOBODY and self.storm.random() < SHARE:
            self.made += 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if not self.plan or not self.armed:
            return
        self.seen[site] += 1
        number = self.plan.pop((site, self.seen[site]), 0)
        if number:
            self.made += 1
            self.concerned.add(client)
            raise OSError(number, os.strerror(number))


FAULTS = Faults()
OWNERS: dict[int, int] = {}  # clients by the descriptor of the worker's end


class Sock(_socket.socket):
    """A connection whose calls may fail."""

    def recv(self, *args: Any) -> bytes:
        FAULTS.at("recv", OWNERS[self.fileno()])
        return super().recv(*args)

    def send(self, *args: Any) -> int:
        FAULTS.at("send", OWNERS[self.fileno()])
        return super().send(*args)

    def sendmsg(self, *args: Any) -> int:
        FAULTS.at("sendmsg", OWNERS[self.fileno()])
        return super().sendmsg(*args)

    def shutdown(self, how: int) -> None:
        FAULTS.at("shutdown", OWNERS[self.fileno()])
        super().shutdown(how)

    def setsockopt(self, *args: Any) -> None:
        FAULTS.at("setsockopt", OWNERS[self.fileno()])
        super().setsockopt(*args)


class Os:
    """The module `os` as temporary files, sendfile(2) and the wake-up pipe see it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, *args: Any, **kwargs: Any) -> int:
        FAULTS.at("open", EVERYBODY)
        return os.open(*args, **kwargs)

    def read(self, *args: Any) -> bytes:
        FAULTS.at("read")
        return os.read(*args)

    def pwrite(self, *args: Any) -> int:
        FAULTS.at("pwrite", EVERYBODY)
        return os.pwrite(*args)

    def sendfile(self, out: int, *args: Any) -> int:
        FAULTS.at("sendfile", OWNERS[out])
        return os.sendfile(out, *args)


class Client:
    """One client: what it sends, in which pieces, and what it must get."""

    def __init__(self, number: int, dice: random.Random) -> None:
        self.number = number
        self.sock: socket.socket | None = None
        self.stuck = 0  # how often the worker has read nothing of what waits
        self.got = bytearray()
        self.want = b""
        self.well = dice.random() < 0.7  # it asks well and stays until it has its answers
        data = b""
        if self.well:
            asks = [EXPECTS] if dice.random() < 0.03 else dice.choices(GOOD, k=dice.choice((1, 1, 1, 2, 4)))
            for asked, answer in asks:
                data += asked
                self.want += answer
        else:
            data = dice.choice(BAD) if dice.random() < 0.5 else dice.choice(GOOD)[0] + dice.choice(BAD)
            if dice.random() < 0.5 and data:
                at = dice.randrange(len(data))
                data = data[:at] + dice.choice((b"", b"\0", b"\r\n", b"\xff", data[at:] * 2)) + data[at + 1 :]
        self.left: list[bytes] = []
        size = max(1, len(data) // dice.choice((1, 1, 2, 3, 7)))
        self.left = [data[at : at + size] for at in range(0, len(data), size)]
        self.end = (
            dice.choice(("stay", "half", "stay")) if self.well else dice.choice(("stay", "half", "reset", "leave"))
        )

    def step(self, world: "World") -> bool:
        """Does one thing; false when it has nothing more to do."""
        if self.sock is None:
            ours, self.sock = socket.socketpair()
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET)
            self.sock.setblocking(False)
            world.arrived.append(ours.detach())
            OWNERS[world.arrived[-1]] = self.number
            return True
        if self.left:
            piece = self.left[0]
            try:
                sent = self.sock.send(piece)
            except BlockingIOError:
                sent = 0
                self.stuck += 1
                if self.stuck > PATIENCE:
                    self.left.clear()
                    return False
            except OSError:
                self.left.clear()
                return True
            self.left[0] = piece[sent:]
            if not self.left[0]:
                self.left.pop(0)
            self.read()
            return True
        if self.end == "half":
            self.sock.shutdown(socket.SHUT_WR)
        elif self.end == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()
        elif self.end == "leave":
            self.sock.close()
        else:
            return False
        self.end = "stay"
        return True

    def read(self) -> bool:
        """Takes what has come; true if something has."""
        if self.sock is None or self.sock.fileno() < 0:
            return False
        before = len(self.got)
        try:
            while data := self.sock.recv(1 << 20):
                self.got += data
        except OSError:
            pass
        return len(self.got) > before

    def bodies(self) -> bytes:
        """The bodies of all complete answers with status 200, joined."""
        data, found = bytes(self.got), b""
        while data:
            head, blank, rest = data.partition(b"\r\n\r\n")
            if not blank:
                break
            if head.startswith(b"HTTP/1.1 100"):
                data = rest
                continue
            fields = {
                name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])
            }
            if fields.get(b"transfer-encoding") == b"chunked":
                body = b""
                while True:
                    size, _, rest = rest.partition(b"\r\n")
                    number = int(size or b"0", 16)
                    body, rest = body + rest[:number], rest[number + 2 :]
                    if not number:
                        break
            else:
                number = int(fields.get(b"content-length", b"0"))
                body, rest = rest[:number], rest[number:]
            if head.startswith(b"HTTP/1.1 200"):
                found += body
            data = rest
        return found


class Clock:
    """Time: it passes when everybody waits, and not before."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


class Epoll:
    """An epoll whose waits are the script's next step."""

    def __init__(self, world: "World") -> None:
        self._epoll = select.epoll()
        self._world = world

    def register(self, fd: int, mask: int) -> None:
        FAULTS.at("register", OWNERS.get(fd, NOBODY))
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        FAULTS.at("modify", OWNERS.get(fd, NOBODY))
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        FAULTS.at("unregister", OWNERS.get(fd, NOBODY))
        self._epoll.unregister(fd)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        FAULTS.armed = True
        FAULTS.at("poll")
        while True:
            events = self._epoll.poll(0, most)
            if self._world.arrived and self._world.door_is_open():
                events.append((self._world.listener.fileno(), select.EPOLLIN))
            if events or timeout == 0:
                return events
            if not self._world.step():
                return self._world.waits(timeout)


class World:
    """One run."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.arrived: deque[int] = deque()
        self.clients = [Client(number, dice) for number in range(dice.randint(1, 8))]
        self._busy = list(self.clients)
        self._waits = 0
        self._waits_in_vain = False  # somebody waits at the door, and nothing will open it
        self.listener = LISTENER
        LISTENER.sock._accept = self._accept

    def door_is_open(self) -> bool:
        return self.listener.fileno() in self.loop._acceptor._polled

    def _accept(self) -> tuple[int, Any]:
        if not self.arrived:
            raise BlockingIOError
        FAULTS.at("accept", EVERYBODY)  # who has not asked yet may be closed to make room
        return self.arrived.popleft(), ""

    def step(self) -> bool:
        """The next thing that happens outside. False when all is over: the worker is told to leave."""
        if self._dice.random() < RINGS:
            os.write(WORKER._wake_write, bytes([signal.SIGWINCH]))
        while self._busy:
            client = self._dice.choice(self._busy)
            if client.step(self):
                return True
            self._busy.remove(client)
        return sum(client.read() for client in self.clients) > 0

    def waits(self, timeout: float) -> list[tuple[int, int]]:
        """Nothing happens any more before the worker's next deadline: time passes, or all is over."""
        if self.arrived and self._waits < WAITS and timeout > 0:
            self._waits += 1
            CLOCK.sleep(timeout)
        else:
            self._waits_in_vain = bool(self.arrived)
            WORKER.alive, WORKER.quick = False, True
        return []

    def run(self) -> None:
        loop.select = SimpleNamespace(epoll=lambda: Epoll(self), poll=select.poll, POLLIN=select.POLLIN)
        WORKER.alive, WORKER.quick, WORKER.drain_by = True, False, None
        exchange = WSGIExchange(WORKER, WORKER.gateway, WORKER.environs, WORKER.options)
        self.loop = WSGILoop(WORKER, WORKER.options, exchange, WORKER.request_stuck)
        if FAULTS.storm is not None:
            self.loop._clients._keepalive = 60.0  # its pauses are longer than the usual one
        self.loop.get_ready()
        self.loop.run()

    def problems(self) -> list[str]:
        found = []
        blamed = FAULTS.concerned
        for client in self.clients:
            client.read()
            if (
                client.well
                and client.number not in blamed
                and EVERYBODY not in blamed
                and client.bodies() != client.want
            ):
                size, wanted, start = len(client.bodies()), len(client.want), bytes(client.got[:300])
                found.append(f"client {client.number} got {size} of {wanted} bytes: {start!r}")
        if len(self.loop._clients):
            left = [client for client in self.loop._clients if client.phase is not loop.Phase.CLOSED]
            found += [f"left open: {client.phase.name}" for client in left]
        if self._waits_in_vain:
            found.append("the worker sleeps while somebody waits at its door")
        found += ILLEGAL
        ILLEGAL.clear()
        if Made.open:
            found.append(f"{len(Made.open)} iterables were not closed")
            Made.open.clear()
        return found

    def close(self) -> None:
        for client in self.clients:
            if client.sock is not None:
                client.sock.close()
        for fd in self.arrived:
            os.close(fd)
        OWNERS.clear()


def watch_moves() -> None:
    """Holds every move of a client against the table of moves."""
    slot = one_client.Client.__dict__["phase"]

    def move(self: one_client.Client, phase: one_client.Phase) -> None:
        try:
            before = slot.__get__(self)
        except AttributeError:  # it is being made
            before = None
        if before is not None and phase is not one_client.Phase.CLOSED and phase not in one_client.MOVES[before]:
            ILLEGAL.append(f"a client moved from {before.name} to {phase.name}")
        slot.__set__(self, phase)

    one_client.Client.phase = property(slot.__get__, move)  # type: ignore[assignment]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def prepare(kind: Any = WSGIWorker, app: Any = application, clocked: Iterable[Any] = ()) -> None:
    """The worker, and the kernel's answers in the places where it asks for them. `clocked` are modules of its own that
    look at the clock."""
    global WORKER, LISTENER
    cfg = load(["fuzz:application", "--keep-alive", str(KEEP_ALIVE), "--timeout", "0"], {})
    log = Logger("/dev/full")
    logging.getLogger("sdserve.error").setLevel(logging.CRITICAL + 1)
    WORKER = kind(1, os.getppid(), [], Application("fuzz:application"), 0, cfg, log)
    WORKER.wsgi = app
    WORKER.cell = Scoreboard(1).take()
    WORKER.channel, master = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    WORKER.channel.setblocking(False)
    KEEP.append(master)
    WORKER._wake_read, WORKER._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    WORKER.tell = lambda message: True  # type: ignore[method-assign]
    watch_moves()
    anchor = os.eventfd(0)  # is polled for, and never ready: connections arrive when the script says so
    LISTENER = SimpleNamespace(
        sock=SimpleNamespace(_accept=None),
        address="/fuzz",
        family=int(socket.AF_UNIX),
        label="fuzz",
        own=False,
        fileno=lambda: anchor,
    )
    WORKER.sockets = [LISTENER]
    acceptor.socket = SimpleNamespace(**{**vars(socket), "SocketType": Sock})  # type: ignore[attr-defined]
    spool.os = write_buffer.os = told.os = Os()
    body.IN_MEMORY = clients.IN_MEMORY = MEMORY
    any_loop.time = CLOCK  # type: ignore[attr-defined]
    common = (acceptor, open_clients, requests, any_loop)
    for module in (*common, loop, clients, incoming, leader_followers, watcher, *clocked):
        module.monotonic = CLOCK  # type: ignore[attr-defined]


WORKER: Any
LISTENER: Any
KEEP: list[Any] = []
ILLEGAL: list[str] = []


def main(name: str = "worker", about: str | None = __doc__, make: Callable[[random.Random], World] = World) -> int:
    """The command line. What it fuzzes is prepared."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}", description=about)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="ends earlier, after so long")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next ones follow")
    options = parser.parse_args()
    began = time.monotonic()
    before = runs = streams = findings = 0
    for seed in range(options.seed, options.seed + options.runs):
        dice = random.Random(seed)
        FAULTS.begin(dice)
        world = make(dice)
        try:
            world.run()
            problems = world.problems()
        except Exception as error:  # noqa: BLE001 - a finding
            where = traceback.extract_tb(error.__traceback__)[-1]
            problems = [f"{type(error).__name__} left the loop at {where.filename}:{where.lineno}: {error}"]
        world.close()
        runs += 1
        streams += len(world.clients)
        if runs == 100:
            before = descriptors()
        elif runs % 1000 == 0 and descriptors() > before:
            problems.append(f"{descriptors() - before} descriptors more than after the first runs")
            before = descriptors()
        for problem in problems:
            findings += 1
            print(f"seed {seed}: {problem}", flush=True)
        if findings > 20 or time.monotonic() - began > options.seconds:
            break
    rate = streams / (time.monotonic() - began)
    print(
        f"{runs} runs, {streams} streams of requests, {FAULTS.made} calls failed, {findings} findings, "
        f"{rate:.0f} streams a second"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    prepare()
    sys.exit(main())
