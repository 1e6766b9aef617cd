"""Addresses that a changed configuration does not name any more: their sockets' files go with the last who has them."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import ask
from tests.support.processes import Process
from tests.support.server import Server, answer, connector
from tests.support.waiting import eventually

Start = Callable[..., Server]


class Site:
    """A server with Unix sockets by name, which the config file may change."""

    def __init__(self, start: Start, directory: Path, mode: str, *sockets: str, app: str = "plain:application") -> None:
        self.directory = directory
        self.configure(*sockets)
        given = ["--upgrade", mode, "-p", f"{directory}/pid", "--control-socket", f"{directory}/control"]
        given += ["--pythonpath", str(directory)]
        self.server = start("-w", "1", "-c", f"{directory}/conf.py", *given, app).wait_ready()

    def configure(self, *sockets: str) -> None:
        bind = [f"unix:{self.directory}/{name}" for name in sockets]
        (self.directory / "conf.py").write_text(f"bind = {bind}\n")

    def answers(self, *names: str) -> bool:
        """Exactly these sockets are there, and all are served."""
        there = {each.name for each in self.directory.iterdir() if each.is_socket()} - {"control"}
        return there == set(names) and all(answer(str(self.directory / name)).status == 200 for name in names)

    def comes_to_answer(self, *names: str) -> None:
        """The log tells of what a master has become before it removes what it has to."""
        eventually(lambda: self.answers(*names), f"{names} and no other")

    def does(self, number: signal.Signals, log: str, pid: int = 0) -> None:
        """Sends a signal, and waits for what the log says of its outcome."""
        mark = self.server.mark
        self.server.kill(number, pid)
        self.server.wait_log(log, since=mark)


def test_an_upgrade(start: Start, short_path: Path) -> None:
    site = Site(start, short_path, "auto", "one", "two")
    assert site.answers("one", "two")
    site.configure("one")
    site.does(signal.SIGUSR2, "has been promoted")
    site.comes_to_answer("one")


HELD = """
import os, time
from plain import application

while os.path.exists("DIRECTORY/hold") and not os.path.exists(f"DIRECTORY/free-{os.getppid()}"):
    time.sleep(0.01)
"""


def test_a_reload_that_the_new_master_does_instead_has_what_the_old_one_has_opened(
    start: Start, short_path: Path
) -> None:
    """Nobody else could open it, and somebody may wait there."""
    (short_path / "held.py").write_text(HELD.replace("DIRECTORY", str(short_path)))
    site = Site(start, short_path, "auto", "one", app="held:application")
    (short_path / "hold").touch()
    mark = site.server.mark
    site.does(signal.SIGUSR2, "Booting worker")
    new = int((short_path / "pid.2").read_text())
    site.configure("one", "two")
    site.does(signal.SIGHUP, "Booting worker")
    with connector(f"{short_path}/two")() as early:
        (short_path / f"free-{new}").touch()
        site.server.wait_log(r"HUP: the new master \(pid \d+\) reloads instead", since=mark)
        site.server.wait_log("has been promoted", since=mark)
        (short_path / "hold").unlink()
        assert ask(early).status == 200
    site.comes_to_answer("one", "two")
    assert "Reload failed" not in site.server.log


@pytest.fixture
def site(start: Start, short_path: Path) -> Site:
    """With two masters, which do not serve `two` any more: the new one follows a reload of the old one."""
    site = Site(start, short_path, "manual", "one", "two")
    site.does(signal.SIGUSR2, r"\(pid \d+\) serves")
    site.configure("one")
    site.does(signal.SIGHUP, "Reloaded: Running: .*; beside the old master")
    return site


def test_the_new_master_is_dropped(site: Site) -> None:
    new = Process.of(int((site.directory / "pid.2").read_text()))
    site.does(signal.SIGTERM, "Upgrade backed out", new.pid)
    site.comes_to_answer("one")
    assert "no control socket" not in site.server.log


def test_the_old_master_goes(site: Site) -> None:
    new = Process.of(int((site.directory / "pid.2").read_text()))
    site.configure("two")
    site.does(signal.SIGHUP, "Reloaded: Running: .*; beside the old master", new.pid)
    assert site.answers("one", "two"), "a reload of the new one takes nothing from the old one"
    site.does(signal.SIGTERM, "has been promoted")
    site.comes_to_answer("two")
    os.kill(new.pid, signal.SIGTERM)
    new.wait_gone()
    eventually(lambda: not [each for each in site.directory.iterdir() if each.is_socket()], "no socket is left")


def test_what_a_new_master_has_opened_goes_with_it(site: Site) -> None:
    new = Process.of(int((site.directory / "pid.2").read_text()))
    site.configure("one", "three")
    site.does(signal.SIGHUP, "Reloaded: Running: .*; beside the old master", new.pid)
    assert answer(f"{site.directory}/three").status == 200
    site.does(signal.SIGTERM, "Upgrade backed out", new.pid)
    site.comes_to_answer("one")


def test_what_the_old_master_opens_is_the_new_ones_as_well(site: Site) -> None:
    """It could not be opened a second time, and the upgrade was backed out."""
    new = Process.of(int((site.directory / "pid.2").read_text()))
    site.configure("one", "three")
    site.does(signal.SIGHUP, "Reloaded: Running: .*; beside the old master")
    assert answer(f"{site.directory}/three").status == 200
    site.does(signal.SIGTERM, "has been promoted")
    site.comes_to_answer("one", "three")
    os.kill(new.pid, signal.SIGTERM)
    new.wait_gone()
    eventually(lambda: not [each for each in site.directory.iterdir() if each.is_socket()], "no socket is left")


def test_metrics_that_the_old_master_opens_are_there_after_the_upgrade(site: Site) -> None:
    with (site.directory / "conf.py").open("a") as file:
        file.write(f"metrics_bind = ['unix:{site.directory}/metrics']\n")
    site.does(signal.SIGHUP, "Reloaded: Running: .*; beside the old master")
    assert answer(f"{site.directory}/metrics", "/metrics").status == 200
    site.does(signal.SIGTERM, "has been promoted")
    assert answer(f"{site.directory}/metrics", "/metrics").status == 200
    assert "no metrics" not in site.server.log


@pytest.mark.parametrize("who_goes", ["new", "old"])
def test_metrics_that_are_configured_away_and_again_beside_a_new_master(
    start: Start, short_path: Path, who_goes: str
) -> None:
    """That has their listener as well: nobody could open it anew."""
    metrics, config = f"{short_path}/metrics", short_path / "conf.py"
    config.write_text(f"bind = 'unix:{short_path}/one'\nmetrics_bind = 'unix:{metrics}'\n")
    given = ["--upgrade", "manual", "-p", f"{short_path}/pid", "-w", "1", "-c", str(config)]
    server = start(*given, "plain:application").wait_ready()
    server.kill(signal.SIGUSR2)
    server.wait_log(r"\(pid \d+\) serves")
    with_metrics = config.read_text()
    for text in (with_metrics.replace("metrics_bind", "# "), with_metrics):
        mark = server.mark
        config.write_text(text)
        server.kill(signal.SIGHUP)
        server.wait_log("Reloaded: Running: .*; beside the old master", since=mark)
    assert answer(metrics, "/metrics").status == 200
    if who_goes == "new":
        server.kill(signal.SIGTERM, int((short_path / "pid.2").read_text()))
        server.wait_log("Upgrade backed out")
    else:
        server.kill(signal.SIGTERM)
        server.wait_log("has been promoted")
    assert answer(metrics, "/metrics").status == 200
    assert "no metrics" not in server.log


def test_a_reload_takes_back_what_another_had_given_up(site: Site) -> None:
    """The old master serves it on meanwhile, so nobody could bind it anew."""
    new = Process.of(int((site.directory / "pid.2").read_text()))
    site.configure("two")
    site.does(signal.SIGHUP, "Reloaded:", new.pid)
    site.configure("one", "two")
    site.does(signal.SIGHUP, "Reloaded:", new.pid)
    site.does(signal.SIGTERM, "has been promoted")
    site.comes_to_answer("one", "two")


def test_a_master_that_was_promoted_has_a_new_one_beside_it(start: Start, short_path: Path) -> None:
    """What it gives up, that one serves on."""
    site = Site(start, short_path, "manual", "one", "two")
    site.does(signal.SIGUSR2, r"\(pid \d+\) serves")
    first = int((short_path / "pid.2").read_text())
    site.does(signal.SIGTERM, "has been promoted")
    site.does(signal.SIGUSR2, r"\(pid \d+\) serves", first)
    site.configure("one")
    site.does(signal.SIGHUP, "Reloaded:", first)
    assert site.answers("one", "two")


def test_a_new_master_ends_while_the_old_one_drains(start: Start, short_path: Path) -> None:
    """The old one has closed its listeners by then, and left their files to the new one."""
    site = Site(start, short_path, "auto", "one")
    with connector(f"{short_path}/one")() as slow:
        slow.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert b" 100 " in slow.recv(4096)
        site.does(signal.SIGUSR2, "is the main process now")
        new = Process.of(int((short_path / "pid.2").read_text()))
        site.does(signal.SIGTERM, "Handling signal: term", new.pid)
        slow.sendall(b"last")
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")
    new.wait_gone()
    assert not [each for each in short_path.iterdir() if each.is_socket()]
