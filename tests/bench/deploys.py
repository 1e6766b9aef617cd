"""What deploys, crashes and idleness cost, beside gunicorn: latencies, losses, time to replace, wake-ups.

    python -m tests.bench.deploys                             everything, some ten minutes
    python -m tests.bench.deploys --only latency --seconds 5 --deploys 5

--only     latency, crash or idle, separated by commas
--servers  sdserve or gunicorn, and --loads: "50 ms" or "at once" (default: all)
--seconds  how long each server is measured quiet before deploys begin (default: 10)
--deploys  reloads, and upgrades, for each server and load, one after the other (default: 20)
--kills    how many workers are killed for each server (default: 20)
--idle     for how many seconds the wake-ups of idle services are counted (default: 60)
--venv     where gunicorn is installed, as for tests/bench/run

Both servers run two workers with sixteen threads each and the same application (deployed.py), whose import takes as
long as a framework's, as plain processes without systemd. The client (pulse.py) has a beat of its own and counts what
is lost. A reload is a HUP. An upgrade is a USR2: sdserve does the rest; for gunicorn the old master is sent TERM, as
its manual says, when the new one has forked its workers and BOOT seconds have passed. Tables in Markdown go to
standard output. No test runs this.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench import procfs
from tests.bench.install import install
from tests.bench.loads import Load
from tests.bench.peers import HOST, PEERS, Peer
from tests.bench.pulse import Beats, Pulse, share
from tests.bench.servers import Server
from tests.support.processes import Process
from tests.support.waiting import eventually

APPLICATION = "deployed:application"
WORKERS = 2
BOOT = 1.0  # seconds until an operator believes that gunicorn's new workers serve: nothing says it
PACE = 0.5  # seconds between the beginnings of two deploys, at least
LOADS = {"50 ms": ("/sleep50", 200), "at once": ("/tiny", 400)}  # path, requests a second

Span = tuple[float, float]  # from when to when


class Deployed:
    """A running server: its master of the moment, its workers, and how it is deployed."""

    def __init__(self, server: Server, pidfile: Path, by_hand: bool) -> None:
        self.port = server.port
        self._pidfile = pidfile
        self._by_hand = by_hand

    @property
    def master(self) -> Process:
        return eventually(self._named, "a master that is named by its pidfile")

    def _named(self) -> Process | None:
        try:
            return Process.of(int(self._pidfile.read_text()))
        except (FileNotFoundError, ProcessLookupError, ValueError):  # it changes hands
            return None

    def workers(self) -> set[int]:
        return {child.pid for child in self.master.children}

    def wait_serving(self) -> None:
        eventually(lambda: len(self.workers()) == WORKERS, "all workers")

    def reload(self) -> None:
        """Returns when all old workers are gone."""
        before = self.workers()
        self.master.kill(signal.SIGHUP)
        eventually(lambda: len(self.workers() - before) == WORKERS and not self.workers() & before, "new workers", 30)

    def upgrade(self) -> None:
        """Returns when the old master is gone."""
        old = self.master
        old.kill(signal.SIGUSR2)
        if self._by_hand:
            second = self._pidfile.with_name(self._pidfile.name + ".2")
            eventually(lambda: second.exists() and second.read_text().strip(), "a second pidfile")
            new = Process.of(int(second.read_text()))
            eventually(lambda: len(new.children) == WORKERS, "workers of the new master")
            time.sleep(BOOT)  # as an operator does
            old.kill(signal.SIGTERM)
        old.wait_gone(30)
        eventually(lambda: self.master != old and len(self.workers()) == WORKERS, "a promoted master", 30)


@contextmanager
def running(name: str, bin: Path, preload: bool) -> Iterator[Deployed]:
    """The server `name`, with or without preloading."""
    with tempfile.TemporaryDirectory() as directory:
        pidfile = Path(directory) / "pid"

        def command(bin: Path, port: int, load: Load) -> list[str]:
            options = ["--bind", f"{HOST}:{port}", "--workers", str(WORKERS), "--threads", "16", "--keep-alive", "75"]
            options += ["--pid", str(pidfile), *(["--preload"] if preload else []), "--log-level", "warning"]
            if name == "gunicorn":
                return [str(bin / "gunicorn"), *options, APPLICATION]
            return [sys.executable, "-m", "sdserve", *options, "--upgrade", "auto", APPLICATION]

        peer = Peer(name, command, "gunicorn" if name == "gunicorn" else "")
        with Server(peer, bin, Load("deploys", "deploys")) as server:
            deployed = Deployed(server, pidfile, by_hand=name == "gunicorn")
            deployed.wait_serving()
            answer(deployed.port, "/tiny")
            yield deployed


def answer(port: int, path: str) -> bytes:
    """The body of one answer, on a connection of its own."""
    with socket.create_connection((HOST, port), timeout=10) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        told = b""
        while data := sock.recv(65536):
            told += data
    return told.partition(b"\r\n\r\n")[2]


def deploys(number: int, deploy: Callable[[], None]) -> list[Span]:
    """Deploys again and again; returns from when to when each was under way."""
    spans = []
    for _ in range(number):
        start = time.monotonic()
        deploy()
        spans.append((start, time.monotonic()))
        time.sleep(max(0.0, start + PACE - time.monotonic()))
    return spans


def latency(name: str, bin: Path, preload: bool, load: str, seconds: float, number: int) -> Iterator[list[str]]:
    """Rows of the table: quiet, reloads, upgrades."""
    path, rate = LOADS[load]
    with running(name, bin, preload) as server, Pulse(HOST, server.port, path, rate) as pulse:
        time.sleep(1.0)
        began = time.monotonic()
        time.sleep(seconds)
        phases = {"quiet": [(began, time.monotonic())]}
        phases["reload"] = deploys(number, server.reload)
        phases["upgrade"] = deploys(number, server.upgrade)
    quiet = share(pulse.beats.within(phases["quiet"]), 0.99)
    for what, spans in phases.items():
        yield [name, "yes" if preload else "no", load, what, *figures(pulse.beats, spans, quiet)]


def figures(beats: Beats, spans: Sequence[Span], quiet: float) -> list[str]:
    """Of the requests that were due while a deploy was under way, and of the whole time with the pauses between."""
    during, whole = beats.within(spans), beats.within([(spans[0][0], spans[-1][1] + PACE)])
    lost = sum(1 for due, _ in beats.lost if spans[0][0] <= due < spans[-1][1] + PACE)
    told = [
        f"{len(during)}",
        *(f"{value * 1e3:.1f}" for value in (share(during, 0.5), share(during, 0.99), during[-1])),
    ]
    ratios = [f"{share(found, 0.99) / quiet:.2f}" for found in (during, whole)]
    return [*told, *ratios, str(lost), f"{median(until - since for since, until in spans):.2f}"]


def crash(name: str, bin: Path, preload: bool, kills: int) -> list[str]:
    """Kills workers one after the other under load: from the kill to the first answer of a process that is new."""
    times = []
    with running(name, bin, preload) as server, Pulse(HOST, server.port, "/sleep50", 100) as pulse:
        for _ in range(kills):
            time.sleep(1.5)  # two deaths within a second are a crash loop, and the second waits
            server.wait_serving()
            before = server.workers()
            os.kill(min(before), signal.SIGKILL)
            killed = time.monotonic()
            while int(answer(server.port, "/pid") or 0) in before:
                continue
            times.append(time.monotonic() - killed)
    ordered = sorted(times)
    inside = len(pulse.beats.lost)
    cells = [f"{value * 1e3:.0f}" for value in (median(ordered), ordered[-1])]
    return [name, "yes" if preload else "no", str(kills), *cells, f"{inside / kills:.1f}"]


def idle(name: str, bin: Path, seconds: float) -> list[str]:
    """Voluntary context switches of master and workers while nobody asks."""

    def switches() -> dict[int, int]:
        pids = [server.master.pid, *server.workers()]
        return {pid: procfs.switches(pid) for pid in pids}

    with running(name, bin, preload=False) as server:
        time.sleep(3.0)
        before = switches()
        time.sleep(seconds)
        after = switches()
    rises = [after[pid] - count for pid, count in before.items()]
    return [name, f"{seconds:g}", str(rises[0]), str(sum(rises[1:])), f"{sum(rises) * 60 / seconds:.1f}"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:], ""])


def main(argv: Sequence[str] | None = None) -> int:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(prog="python -m tests.bench.deploys", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="latency,crash,idle")
    parser.add_argument("--servers", default="sdserve,gunicorn")
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--deploys", type=int, default=20)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--venv", type=Path, default=cache / "sdserve-bench" / "venv")
    args = parser.parse_args(argv)
    install(args.venv, [peer for peer in PEERS if peer.package == "gunicorn"])
    bin, names, only = args.venv / "bin", args.servers.split(","), args.only.split(",")
    if "latency" in only:
        rows: list[list[str]] = []
        for load in args.loads.split(","):
            for preload in (True, False):
                for name in names:
                    rows += latency(name, bin, preload, load, args.seconds, args.deploys)
                    print(rows[-2:], file=sys.stderr, flush=True)
        head = ["server", "preload", "load", "phase", "requests", "p50 ms", "p99 ms", "max ms"]
        head += ["p99 / quiet", "with pauses", "lost", "s each"]
        print(table(head, rows))
    if "crash" in only:
        rows = [crash(name, bin, preload, args.kills) for preload in (True, False) for name in names]
        print(table(["server", "preload", "kills", "median ms", "longest ms", "lost a kill"], rows))
    if "idle" in only:
        rows = [idle(name, bin, args.idle) for name in names]
        print(table(["server", "seconds", "master", "workers", "wake-ups a minute"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
