"""A worker says that it is ready when it has what it serves with: what cannot be had is a boot that failed."""

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, answer

Start = Callable[..., Server]

# The last of a boot that belongs to somebody else. What is open stays open, and nothing more can be opened.
TAKES_ALL = f"""
import resource

def post_worker_warmup(worker):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}))
"""
# The kernel has no memory for what polls listeners, or, in an event loop, for what polls those.
NO_ROOM = """
import errno, os, select

real = select.epoll

def fails(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

class Full:
    def __init__(self):
        self.epoll = real()

    def __getattr__(self, name):
        return getattr(self.epoll, name)

    def register(self, fd, mask):
        fails() if mask & select.EPOLLEXCLUSIVE else self.epoll.register(fd, mask)

def post_worker_warmup(worker):
    if OF == "listeners":
        select.epoll = Full
    else:
        worker.event_loop.add_reader = fails
"""
REASON = "Worker failed to boot: no room for what polls connections: Too many open files; see LimitNOFILE="
APPS = pytest.mark.parametrize("app", ["plain:application", "plain_asgi:application"], ids=["wsgi", "asgi"])


@pytest.fixture
def options(short_path: Path) -> tuple[str, ...]:
    return ("-c", f"{short_path}/conf.py", "-b", f"unix:{short_path}/s", "-w", "2")


@APPS
def test_a_first_start_ends(start: Start, short_path: Path, options: tuple[str, ...], app: str) -> None:
    (short_path / "conf.py").write_text(TAKES_ALL)
    server = start(*options, app)
    assert server.wait() == 3
    assert REASON in server.status()
    assert not any("READY=1" in message for message in server.notify.messages)


@APPS
@pytest.mark.parametrize(
    ("signum", "told"),
    [
        (signal.SIGHUP, "Reload failed, the old workers serve on: "),
        (signal.SIGUSR2, "Upgrade backed out, this master serves on: "),
    ],
    ids=["reload", "upgrade"],
)
def test_a_deploy_is_rolled_back(
    start: Start, short_path: Path, options: tuple[str, ...], app: str, signum: signal.Signals, told: str
) -> None:
    (short_path / "conf.py").write_text("")
    server = start(*options, app).wait_ready()
    workers = {process.pid for process in server.wait_workers(2)}
    (short_path / "conf.py").write_text(TAKES_ALL)
    server.kill(signum)
    server.wait_log(f"{told}.*{REASON}")
    assert {process.pid for process in server.wait_workers(2)} == workers
    assert [answer(f"{short_path}/s").status for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("old", [signal.SIGHUP, None], ids=["reload", "start"])
@pytest.mark.parametrize(
    ("app", "full", "more"),
    [
        ("plain:application", "listeners", ("--threads", "1")),
        ("plain:application", "listeners", ("--threads", "4")),
        ("plain_asgi:application", "listeners", ()),
        ("plain_asgi:application", "event loop", ("--asgi-loop", "asyncio")),
    ],
    ids=["wsgi", "threads", "asgi", "event loop"],
)
def test_what_listeners_are_polled_with(
    *, start: Start, short_path: Path, options: tuple[str, ...], app: str, full: str, more: tuple[str, ...], old: object
) -> None:
    reason = "Worker failed to boot: no room for what polls connections: No space left on device"
    bad = f"OF = {full!r}\n{NO_ROOM}"
    (short_path / "conf.py").write_text("" if old else bad)
    server = start(*options, *more, app)
    if not old:
        assert server.wait() == 3
        assert reason in server.status()
        return
    server.wait_ready()
    workers = {process.pid for process in server.wait_workers(2)}
    (short_path / "conf.py").write_text(bad)
    server.kill(signal.SIGHUP)
    server.wait_log(f"Reload failed, the old workers serve on: {reason}")
    assert {process.pid for process in server.wait_workers(2)} == workers
    assert [answer(f"{short_path}/s").status for _ in range(4)] == [200] * 4
