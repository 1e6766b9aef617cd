"""The servers that are compared, as a table: how each is installed and how it is started.

All run the same application with access logs off and time-outs and limits as they come, so each does what it does for
its users by default. What is set beyond that is what the load needs: threads, workers, room for its connections.

ASGI servers run under loads whose application speaks that, the others under all other loads, and sdserve under both.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.loads import Load

HOST = "127.0.0.1"
RECORDS = "/tmp/sdserve-bench-access.log"
THREADS = 16
KEEP_IDLE = "75"  # seconds; where the default is 2, idle connections would be gone before they are measured

Command = Callable[[Path, int, Load], list[str]]
"""(bin directory of the peers' environment, port, what it is for) -> argv"""


@dataclass(frozen=True)
class Peer:
    name: str
    command: Command
    package: str = ""
    """What pip installs; "": the checkout itself."""
    threads: int = 1
    threaded_only: bool = False
    """Runs only under loads that need threads: its plain form runs under the others."""
    processes: bool = True
    """Can have several workers."""
    records: bool = False
    """Can write an access log."""
    asgi: bool = False
    """Serves ASGI, and nothing else."""

    def fits(self, load: Load) -> bool:
        """Whether a load says something about this server: can it have its threads and workers, and its records?"""
        threads, workers = load.threads, load.workers
        if load.asgi and threads != self.threads:
            return False
        if self.package and self.asgi != load.asgi:
            return False
        if load.access_log and not self.records:
            return False
        if threads > self.threads or (workers > 1 and not self.processes):
            return False
        return not (self.threaded_only and threads == 1)


def sdserve(threads: int) -> Command:
    def command(bin: Path, port: int, load: Load) -> list[str]:
        options = ["--bind", f"{HOST}:{port}", "--workers", str(load.workers), "--threads", str(threads)]
        options += ["--keep-alive", KEEP_IDLE] if load.idle else []
        options += ["--access-logfile", RECORDS] if load.access_log else []
        return [sys.executable, "-m", "sdserve", *options, load.application]

    return command


def gunicorn(*kind: str) -> Command:
    def command(bin: Path, port: int, load: Load) -> list[str]:
        # Its thread worker refuses connections beyond 1,000 by default, which the idle ones alone are.
        options = ["--bind", f"{HOST}:{port}", "--workers", str(load.workers), "--worker-connections", "2000"]
        options += ["--keep-alive", KEEP_IDLE] if load.idle else []
        log = ["--access-logfile", RECORDS] if load.access_log else []
        return [str(bin / "gunicorn"), *options, "--log-level", "warning", *kind, *log, load.application]

    return command


def granian(threads: int, interface: str = "wsgi") -> Command:
    """`threads` that call the application; 0: as it comes, with as many as it finds useful, up to half its backlog."""

    def command(bin: Path, port: int, load: Load) -> list[str]:
        options = ["--interface", interface, "--host", HOST, "--port", str(port)]
        options += ["--access-log"] if load.access_log else ["--no-log"]
        options += ["--workers", str(load.workers)]
        options += ["--blocking-threads", str(threads)] if threads else []
        return [str(bin / "granian"), *options, load.application]

    return command


def uwsgi(threads: int) -> Command:
    def command(bin: Path, port: int, load: Load) -> list[str]:
        # Its HTTP router keeps connections alive, which its workers do not; it is a process more.
        options = ["--http", f"{HOST}:{port}", "--http-keepalive", "--listen", "1024", "--master", "--die-on-term"]
        options += ["--processes", str(load.workers), "--disable-logging", "--need-app", "--tcp-nodelay"]
        if threads > 1:
            options += ["--enable-threads", "--threads", str(threads)]
        if load.close:
            # It closes as it is asked to, but does not say so, which wrk counts as an error of each connection.
            options += ["--add-header", "Connection: close"]
        return [str(bin / "uwsgi"), *options, "--wsgi", load.application]

    return command


def waitress(threads: int) -> Command:
    def command(bin: Path, port: int, load: Load) -> list[str]:
        # It stops accepting at 100 connections by default.
        options = [f"--listen={HOST}:{port}", f"--threads={threads}", "--connection-limit=2000"]
        return [str(bin / "waitress-serve"), *options, load.application]

    return command


def bjoern(bin: Path, port: int, load: Load) -> list[str]:
    module, _, name = load.application.partition(":")
    program = f"import bjoern, {module}; bjoern.run({module}.{name}, {HOST!r}, {port})"
    return [str(bin / "python"), "-c", program]


def uvicorn(bin: Path, port: int, load: Load) -> list[str]:
    options = ["--host", HOST, "--port", str(port), "--workers", str(load.workers), "--loop", "uvloop"]
    return [str(bin / "uvicorn"), *options, "--no-access-log", "--log-level", "warning", load.application]


def hypercorn(bin: Path, port: int, load: Load) -> list[str]:
    options = ["--bind", f"{HOST}:{port}", "--workers", str(load.workers), "--worker-class", "uvloop"]
    return [str(bin / "hypercorn"), *options, load.application]


PEERS = (
    Peer("sdserve", sdserve(1), records=True),
    Peer("sdserve-16", sdserve(THREADS), threads=THREADS, records=True),
    Peer("gunicorn-sync", gunicorn("--worker-class", "sync"), "gunicorn", records=True),
    Peer("gunicorn-gthread", gunicorn("--threads", str(THREADS)), "gunicorn", threads=THREADS, records=True),
    Peer("granian", granian(0), "granian", records=True),
    Peer("granian-1", granian(1), "granian", records=True),
    Peer("granian-16", granian(THREADS), "granian", threads=THREADS, threaded_only=True),
    Peer("uwsgi", uwsgi(1), "uwsgi"),
    Peer("uwsgi-16", uwsgi(THREADS), "uwsgi", threads=THREADS, threaded_only=True),
    Peer("waitress", waitress(4), "waitress", threads=4, processes=False),
    Peer("waitress-16", waitress(THREADS), "waitress", threads=THREADS, threaded_only=True, processes=False),
    Peer("bjoern", bjoern, "bjoern", processes=False),
    Peer("uvicorn", uvicorn, "uvicorn", asgi=True),
    Peer("granian-asgi", granian(0, "asgi"), "granian", asgi=True),
    Peer("gunicorn-asgi", gunicorn("--worker-class", "asgi"), "gunicorn", asgi=True),
    Peer("hypercorn", hypercorn, "hypercorn", asgi=True),
)
