"""USR2 without systemd: old and new master serve side by side until the operator decides, as with gunicorn.

The mode is given here, since a server that has somebody to notify takes itself to be systemd's.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.processes import Process
from tests.support.server import APPS, Server, answer, connector
from tests.support.waiting import eventually

Start = Callable[..., Server]


class Pair:
    """A server with a pidfile, a socket and, after `upgrade`, a second master."""

    def __init__(self, start: Start, directory: Path, mode: str = "manual") -> None:
        self.pidfile, self.second = directory / "pid", directory / "pid.2"
        self.address = str(directory / "s")
        self.old = start(
            "-b", f"unix:{self.address}", "-p", str(self.pidfile), "-w", "2", "--upgrade", mode, "plain:application"
        ).wait_ready()
        self.old.wait_workers(2)

    def promoted(self) -> int:
        """Wait until a new master has taken the pidfile; return its number."""

        def look() -> int:
            try:
                pid = int(self.pidfile.read_text())
            except FileNotFoundError:
                return 0
            return 0 if self.second.exists() or pid == self.old.pid else pid

        return eventually(look, "promotion")

    def upgrade(self) -> Process:
        """USR2; the new master, when its workers serve."""
        mark = self.old.mark
        self.old.kill(signal.SIGUSR2)
        self.old.wait_log(r"\(pid \d+\) serves", since=mark)
        new = Process.of(int(self.second.read_text()))
        self.old.wait_workers(2, master=new.pid)
        return new


@pytest.fixture
def pair(start: Start, short_path: Path) -> Pair:
    return Pair(start, short_path)


def test_both_serve_until_the_old_one_is_told_to_go(pair: Pair) -> None:
    new = pair.upgrade()
    assert int(pair.pidfile.read_text()) == pair.old.pid
    both = {p.pid for p in pair.old.workers + new.children}
    assert len(both) == 4

    with Load(connector(pair.address), clients=4) as load:
        load.wait(lambda record: record.pids, "answers")
        pair.old.kill(signal.SIGTERM)
        assert pair.old.wait() == 0
        assert pair.promoted() == new.pid
        load.wait_answers(20)
    assert not load.record.failures, load.record
    assert answer(pair.address).pid in {p.pid for p in new.children}

    os.kill(new.pid, signal.SIGTERM)
    new.wait_gone()
    assert not pair.pidfile.exists()
    assert not Path(pair.address).exists()


def test_back_out(pair: Pair) -> None:
    new = pair.upgrade()
    pair.old.kill(signal.SIGWINCH)
    pair.old.wait_workers(0)
    assert {answer(pair.address).pid for _ in range(4)} <= {p.pid for p in new.children}

    pair.old.kill(signal.SIGHUP)
    pair.old.wait_workers(2)
    os.kill(new.pid, signal.SIGTERM)
    new.wait_gone()

    eventually(lambda: not pair.second.exists(), "the second pidfile goes")
    assert int(pair.pidfile.read_text()) == pair.old.pid
    assert answer(pair.address).pid in {p.pid for p in pair.old.workers}
    later = pair.upgrade()  # and the next attempt may succeed
    assert later.pid != new.pid


def test_a_new_master_that_is_killed_alone_leaves_the_old_one_serving(pair: Pair) -> None:
    """The old workers had made way for it: nobody would serve any more."""
    new = pair.upgrade()
    pair.old.kill(signal.SIGWINCH)
    pair.old.wait_workers(0)

    os.kill(new.pid, signal.SIGKILL)
    pair.old.wait_workers(2)
    assert answer(pair.address).pid in {p.pid for p in pair.old.workers}
    eventually(lambda: not pair.second.exists(), "the second pidfile goes")
    assert int(pair.pidfile.read_text()) == pair.old.pid


def test_a_second_usr2_is_refused_on_both_sides(pair: Pair) -> None:
    new = pair.upgrade()
    for pid in (pair.old.pid, new.pid):
        mark = pair.old.mark
        os.kill(pid, signal.SIGUSR2)
        pair.old.wait_log("USR2|[Uu]pgrade", since=mark)
    masters = [p for p in pair.old.session if "master" in p.title]
    assert {p.pid for p in masters} == {pair.old.pid, new.pid}


def test_the_old_master_is_killed(pair: Pair) -> None:
    new = pair.upgrade()
    pair.old.kill(signal.SIGKILL)
    pair.old.wait()
    assert pair.promoted() == new.pid
    assert answer(pair.address).status == 200


def test_automatic_by_choice(start: Start, short_path: Path) -> None:
    pair = Pair(start, short_path, "auto")
    with Load(connector(pair.address), clients=4) as load:
        load.wait_answers(10)
        pair.old.kill(signal.SIGUSR2)
        assert pair.old.wait() == 0
        new = pair.promoted()
        load.wait_answers(10)
    assert not load.record.failures, load.record
    pair.old.notify.wait(f"MAINPID={new}")


def test_a_hook_that_raises_is_named(start: Start, short_path: Path) -> None:
    (short_path / "conf.py").write_text("def pre_exec(server):\n    raise RuntimeError('not on Fridays')\n")
    server = start("-b", f"unix:{short_path}/s", "-c", f"{short_path}/conf.py", "plain:application").wait_ready()
    server.kill(signal.SIGUSR2)
    server.wait_log("backed out, .*: the hook pre_exec raised RuntimeError: not on Fridays$")
    assert answer(f"{short_path}/s").status == 200


def test_a_directory_that_is_gone_is_named(start: Start, short_path: Path) -> None:
    """It is the new master's as well: relative paths of the configuration and the application begin there."""
    here = short_path / "release"
    here.mkdir()
    arguments = ("-b", f"unix:{short_path}/s", "--upgrade", "manual", "--pythonpath", str(APPS), "plain:application")
    server = start(*arguments, cwd=here).wait_ready()
    here.rmdir()
    server.kill(signal.SIGUSR2)
    server.wait_log(f"backed out, .*: cannot enter {here}: No such file or directory$")
    assert answer(f"{short_path}/s").status == 200


def test_titles_tell_the_masters_apart_and_suit_the_workers_after_the_promotion(pair: Pair) -> None:
    """A worker's title says what it serves: it lives on when its master is the only one again."""
    new = pair.upgrade()
    assert new.title == "sdserve: master [plain:application.2]"
    workers = pair.old.wait_workers(2, master=new.pid)
    pair.old.kill(signal.SIGTERM)
    pair.promoted()
    eventually(lambda: new.title == "sdserve: master [plain:application]", "the title of the only master")
    assert {worker.title for worker in workers} == {"sdserve: worker [plain:application]"}


APP = """
import os, sys, time

TEXT = {text!r}
print("read", TEXT, "by a worker of", os.getppid(), file=sys.stderr, flush=True)
while os.path.exists("hold") and open("hold").read() != str(os.getppid()):  # the master that is not held
    time.sleep(0.01)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(TEXT)))])
    return [TEXT.encode()]
"""


@pytest.mark.parametrize("broken", [False, True])
def test_a_reload_that_succeeds_while_the_new_master_boots(start: Start, short_path: Path, broken: bool) -> None:
    """That has read the code already: it follows before it takes over, or is given up."""
    app, hold = short_path / "app.py", short_path / "hold"
    app.write_text(APP.format(text="old"))
    server = start("-b", "unix:s", "-w", "2", "--upgrade", "auto", "app", cwd=short_path).wait_ready()
    old, mark = server.wait_workers(2), server.mark
    hold.write_text(str(server.pid))
    server.kill(signal.SIGUSR2)
    new = int(server.wait_log(r"the new master is pid (\d+)")[1])
    server.wait_log(f"read old by a worker of {new}(.|\n)*read old by a worker of {new}")
    app.write_text(APP.format(text="new"))
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ", since=mark)
    server.wait_workers(2, besides=[each.pid for each in old])
    if broken:
        app.write_text("no code\n")
    hold.unlink()
    if broken:
        server.wait_log("Upgrade backed out, this master serves on: the new master could not follow a reload: ")
        server.wait_workers(2)
    else:
        server.wait_log("Master has been promoted")
        assert server.wait() == 0
    assert {answer(str(short_path / "s")).body for _ in range(8)} == {b"new"}
