"""An address that a reload or an upgrade gives up: who had arrived there is answered, who comes later is refused."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.load import Load, ask
from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually

Start = Callable[..., Server]
HELD = """import os, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/held":
        open("called", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    body = environ["REMOTE_ADDR"].encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-Pid", str(os.getpid()))])
    return [body]
"""
REFUSED = {"connect: ConnectionRefusedError", "connect: FileNotFoundError"}
WAYS = ["reload", "rolling reload", "upgrade"]


class Site:
    """A server with an address that stays and one that is given up, of one kind."""

    def __init__(self, start: Start, directory: Path, kind: str, way: str, *options: str) -> None:
        self.directory = directory
        self.way = way
        names = "stays", "goes"
        self.stays, self.goes = (
            str(directory / name) if kind == "unix" else ("127.0.0.1", free_port()) for name in names
        )
        (directory / "held.py").write_text(HELD)
        self.configure(self.stays, self.goes)
        given = ("--upgrade", "auto", "-p", f"{directory}/pid", "--control-socket", f"{directory}/control")
        self.server = start("-c", f"{directory}/conf.py", *given, *options, "held:application", cwd=directory)
        self.server.wait_ready()

    def configure(self, *addresses: tuple[str, int] | str) -> None:
        bind = [f"unix:{each}" if isinstance(each, str) else "{}:{}".format(*each) for each in addresses]
        strategy = "reload_strategy = 'rolling'\n" if self.way == "rolling reload" else ""
        (self.directory / "conf.py").write_text(f"bind = {bind}\n{strategy}")

    def changes_to(self, *addresses: tuple[str, int] | str) -> None:
        """Reloads or upgrades, and waits for the outcome."""
        self.configure(*addresses)
        mark, master = self.server.mark, eventually(self.master, "the pidfile of a master")
        number, told = (
            (signal.SIGUSR2, "is the main process now") if self.way == "upgrade" else (signal.SIGHUP, "Reloaded:")
        )
        self.server.kill(number, master)
        self.server.wait_log(told, since=mark)

    def master(self) -> int:
        """0 while the old one has removed its pidfile, and the new one has not renamed its own."""
        file = self.directory / "pid"
        return int(file.read_text()) if file.exists() else 0

    def is_alone(self, before: int) -> None:
        """Waits for the end of an old master, whose pid was `before`: the next upgrade may follow."""
        if self.way == "upgrade":
            eventually(lambda: self.master() not in (0, before), "the new master is promoted")

    def turns_to(self, *addresses: tuple[str, int] | str) -> None:
        """As `changes_to`, with nothing left of what was before."""
        before = eventually(self.master)
        self.changes_to(*addresses)
        self.is_alone(before)


@pytest.fixture(params=["tcp", "unix"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("way", WAYS)
def test_who_waits_to_be_accepted_is_answered(
    start: Start, short_path: Path, opened: ExitStack, kind: str, way: str
) -> None:
    """By a worker that serves on, while the only old one is at work."""
    site = Site(start, short_path, kind, way, "-w", "1")
    slow = opened.enter_context(connector(site.stays)())
    slow.sendall(b"GET /held HTTP/1.1\r\nHost: test\r\n\r\n")
    eventually((short_path / "called").exists, "the request is at work")
    waiting = [opened.enter_context(connector(site.goes)()) for _ in range(40)]
    site.changes_to(site.stays)
    [old] = {each.pid for each in site.server.workers} if way == "upgrade" else {0}
    for client in waiting:
        answer = ask(client)
        assert answer.status == 200
        assert answer.pid != old
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        connector(site.goes)()
    (short_path / "go").touch()
    assert slow.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("way", WAYS)
def test_whoever_is_connected_is_answered(start: Start, short_path: Path, kind: str, way: str) -> None:
    """Clients that connect all the time, while the address comes and goes."""
    site = Site(start, short_path, kind, way, "-w", "2")
    with Load(connector(site.goes), 8, reuse=0) as load:
        for _ in range(4):
            load.wait_answers(20)
            site.turns_to(site.stays)
            site.turns_to(site.stays, site.goes)
        load.wait_answers(20)
    assert set(load.record.names) <= REFUSED, load.record
    assert set(load.record.statuses) == {200}


def test_who_comes_through_a_proxy_keeps_its_name(start: Start, short_path: Path, opened: ExitStack) -> None:
    """Nothing was read of a connection that waits: the PROXY header is still to come."""
    proxied = ("--proxy-protocol", "v1", "--proxy-allow-from", "127.0.0.1")
    site = Site(start, short_path, "tcp", "reload", "-w", "1", *proxied)
    slow = opened.enter_context(connector(site.stays)())
    slow.sendall(b"PROXY UNKNOWN\r\nGET /held HTTP/1.1\r\nHost: test\r\n\r\n")
    eventually((short_path / "called").exists, "the request is at work")
    waiting = opened.enter_context(connector(site.goes)())
    site.changes_to(site.stays)
    waiting.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 99 80\r\n")
    assert ask(waiting).body == b"192.0.2.7"
    (short_path / "go").touch()
    assert slow.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
