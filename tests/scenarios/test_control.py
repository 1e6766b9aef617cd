"""What an operator asks and commands, of a service that is well and of one in which nothing moves any more."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from sdserve.ctl import ask
from tests.support.processes import Process
from tests.support.server import CHECKOUT, Server, answer, connector
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

Start = Callable[..., Server]


class Operated:
    """A server with a control socket, and an operator."""

    def __init__(self, start: Start, path: Path, *args: str) -> None:
        self.path, self.control, self.address = path, f"{path}/control", f"{path}/s"
        where = ("-b", f"unix:{self.address}", "--control-socket", self.control)
        self.server = start(*where, *args).wait_ready()
        self.program = [sys.executable, "-m", "sdserve.ctl", "-s", self.control]
        self.environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}

    def ask(self, command: str, **parameters: Any) -> dict[str, Any]:
        return ask(self.control, command, 15, **parameters)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """sdservectl, as a program."""
        program = [*self.program, *args]
        return subprocess.run(program, capture_output=True, text=True, timeout=30, env=self.environ, check=False)

    def stick(self, way: str, number: int) -> socket.socket:
        """A request that never ends."""
        mark = self.path / f"mark-{number}"
        sock = connector(self.address)()
        sock.sendall(f"GET /stuck?{way}:{mark} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        eventually(mark.exists, "the application is stuck")
        return sock


def test_another_number_of_workers(start: Start, short_path: Path) -> None:
    operated = Operated(start, short_path, "-w", "2", "web")
    scaled = operated.run("scale", "3")
    assert scaled.returncode == 0, scaled.stderr
    assert scaled.stdout == (
        "3 workers are wanted, 2 were before; until a reload or an upgrade reads the configuration (workers = 2)\n"
    )
    assert operated.run("wait", "--timeout", "20").stdout.startswith("Running: 3 of 3 workers serving")
    operated.server.wait_workers(3)
    told = operated.ask("scale", workers=1)
    assert (told["wanted"], told["before"]) == (1, 3)
    operated.server.wait_workers(1)
    assert not operated.ask("scale", workers=0)["ok"], "the last one stays, as with TTOU"
    assert operated.ask("reload")["ok"]
    assert operated.ask("wait")["status"]["wanted"] == 2, "the configuration is read again, as in gunicorn"
    late = operated.run("wait", "draining", "--timeout", "0.1")
    assert (late.returncode, late.stdout) == (3, "")
    assert "not draining within 0.1 s: Running: 2 of 2 workers serving" in late.stderr


HELD = """import os, time

def application(environ, start_response):
    open("called", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
SHOP = """
from pathlib import Path
import time

Path("importing").touch()
while not Path("open").exists():
    time.sleep(0.01)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{text}"]
"""


@pytest.mark.parametrize(("newest", "done", "served"), [("v3", True, b"v3"), ("v3)", False, b"v2")])
def test_a_reload_that_meets_another_is_answered_when_its_own_code_serves(
    start: Start, short_path: Path, newest: str, done: bool, served: bytes
) -> None:
    """Two deploys that overlap: the one that is under way has loaded what the second one replaces."""
    shop, importing, door = (short_path / name for name in ("shop.py", "importing", "open"))
    door.touch()
    shop.write_text(SHOP.replace("{text}", "v1"))
    operated = Operated(start, short_path, "-w", "1", "--chdir", str(short_path), "shop")
    door.unlink()
    importing.unlink()
    shop.write_text(SHOP.replace("{text}", "v2"))
    operated.server.kill(signal.SIGHUP)
    eventually(importing.exists, "the first reload loads its code")
    shop.write_text(SHOP.replace('b"{text}"', 'b"v3"' + newest[2:]))
    with connector(operated.control)() as asking, asking.makefile("rb") as answers:
        asking.sendall(b'{"command": "reload"}\n')
        operated.ask("status")  # the master answers in turn, and so has taken the other one
        door.touch()
        assert json.loads(answers.readline())["ok"] is done
    assert answer(operated.address).body == served


def test_a_reload_says_what_of_the_configuration_has_no_effect(start: Start, short_path: Path) -> None:
    conf = short_path / "conf.py"
    conf.touch()
    operated = Operated(start, short_path, "-w", "1", "-c", str(conf), "plain:application")
    assert operated.run("reload").stderr == ""
    conf.write_text("timeuot = 3\n")
    failed = operated.run("reload")
    assert "timeuot" in failed.stderr
    conf.write_text("worker_tmp_dir = '/dev/shm'\npreload_app = True\n")
    done = operated.run("reload")
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "reloaded")
    tmp_dir, preload = done.stderr.splitlines()
    assert tmp_dir.startswith(f"sdservectl: {conf}:1: gunicorn's setting worker_tmp_dir"), tmp_dir
    assert preload.startswith("sdservectl: preload_app: modules that are loaded already stay"), preload
    by_systemd = {**operated.environ, "INVOCATION_ID": "1"}
    program = [*operated.program, "reload"]
    quiet = subprocess.run(program, capture_output=True, text=True, timeout=30, env=by_systemd, check=True)
    assert "worker_tmp_dir" not in quiet.stderr, "the journal has it from the master"


@pytest.fixture(scope="module")
def stuck() -> Iterator[Operated]:
    """One of four workers is free: the others sleep, wait for a peer, and hold the GIL."""
    with ExitStack() as opened:
        path = Path(opened.enter_context(TemporaryDirectory(prefix="sd-", dir="/tmp")))

        def start(*args: str) -> Server:
            return opened.enter_context(Server(*args))

        operated = Operated(start, path, "-w", "4", "--threads", "1", "-t", "600", "web")
        for number, way in enumerate(("sleep", "clutch", "recv")):
            opened.enter_context(operated.stick(way, number))
        yield operated


@contextmanager
def stopped(worker: Process) -> Iterator[None]:
    worker.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.kill(signal.SIGCONT)


def test_where_every_thread_is_while_nobody_answers(stuck: Operated) -> None:
    workers = {worker.pid: worker for worker in stuck.server.wait_workers(4)}
    told = {each["pid"]: each for each in stuck.ask("stacks")["workers"]}
    assert set(told) == set(workers)
    busy = [each for each in told.values() if each["busy"]]
    assert len(busy) == 3
    for each in told.values():
        assert each["trouble"] == ""
        assert ('/tests/apps/web.py", line ' in each["stacks"]) is (each in busy)
        assert ", line 198 in _run_module_as_main\n" in each["stacks"] or "<module>" in each["stacks"]
    [slot] = [each["slot"] for each in busy if "in stuck" in each["stacks"]][:1]
    shown = stuck.run("stacks", str(slot))
    assert '/tests/apps/web.py", line ' in shown.stdout
    assert "boot.py" not in shown.stdout, "how it came to be a worker is of no interest"

    one = next(iter(workers))
    with stopped(workers[one]):
        [silent] = [each for each in stuck.ask("stacks")["workers"] if each["trouble"]]
        assert silent["pid"] == one
        assert "it was stopped (SIGSTOP" in silent["trouble"]
    assert not [each for each in stuck.ask("stacks")["workers"] if each["trouble"]]
    missing = stuck.run("stacks", "77")
    assert (missing.returncode, missing.stderr) == (1, "sdservectl: no worker has slot 77\n")


def test_top_on_a_terminal(stuck: Operated) -> None:
    """Also the requests that last: of one that sleeps, of one that waits, and that a third one cannot say."""
    [idle] = [each["pid"] for each in stuck.ask("status")["status"]["workers"] if not each["busy"]]
    workers = stuck.server.wait_workers(4)
    piped = stuck.run("top")
    assert (piped.returncode, piped.stdout) == (2, "")
    assert "top needs a terminal" in piped.stderr
    with Terminal([*stuck.program, "top"], stuck.environ, term="xterm-of-tomorrow") as unknown:
        unknown.until("^sdservectl: top does not know this terminal, TERM=xterm-of-tomorrow: try TERM=xterm")
        assert unknown.wait() == 2

    def ask() -> None:
        with connector(stuck.address)() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")

    with Terminal([*stuck.program, "top", "--interval", "0.1"], stuck.environ) as top:
        top.until(r"threads busy 3 of 4 ", rf"backlog \d+ of \d+ at unix:{stuck.path}/s", "requests/s 0.0 ")
        named = r"(?s) s  GET /stuck\n.* s  GET /stuck\b"
        unnamed = r" s  not said yet: see sdservectl stacks \d"
        text = top.until(*(rf" {worker.pid} serving " for worker in workers), named, unnamed)
        assert "GET /stuck?" not in text, "a query may be a secret"
        top.until(r" 2xx \d", meanwhile=ask)
        with stopped(next(worker for worker in workers if worker.pid == idle)):
            top.until(" stopped ")
            top.resize(10, 70)
            text = top.until(r"\n2 more workers")
        assert len(text.splitlines()) <= 10
        assert max(map(len, text.splitlines())) < 70
        top.write(b"q")
        assert top.wait() == 0


@pytest.mark.parametrize("how", [("--threads", "2", "web"), ("asgi_web:application",)], ids=["threads", "event loop"])
def test_a_request_that_lasts_is_named_where_others_go_on(start: Start, short_path: Path, how: tuple[str, ...]) -> None:
    operated = Operated(start, short_path, *how)

    def slow() -> Any:
        return operated.ask("top")["figures"]["slow"]

    with connector(operated.address)() as one, connector(operated.address)() as other:
        one.sendall(b"GET /meet?2 HTTP/1.1\r\nHost: a\r\n\r\n")
        [told] = eventually(lambda: [each for each in slow() if each["request"]], "its worker has named it")
        assert (told["request"], told["answers"], told["slot"]) == ("GET /meet", False, 0)
        assert told["seconds"] >= 1.0
        other.sendall(b"GET /meet?2 HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in (one, other):
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    eventually(lambda: not slow(), "it is over")


def test_what_happens_is_followed(start: Start, short_path: Path) -> None:
    operated = Operated(start, short_path, "--upgrade", "auto", "-w", "1", "plain:application")
    [worker] = operated.server.wait_workers(1)
    program = ["timeout", "60", sys.executable, "-m", "sdserve.ctl", "-s", operated.control, "events", "--json"]
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environ) as following, ExitStack() as ends:
        ends.callback(following.terminate)
        assert following.stdout is not None
        told = (json.loads(line) for line in iter(following.stdout.readline, ""))

        def until(event: str) -> list[dict[str, Any]]:
            heard = [next(told)]
            while heard[-1]["event"] != event:
                heard.append(next(told))
            return heard

        assert until("following")[0]["pid"] == operated.server.pid
        worker.kill(signal.SIGKILL)
        heard = until("worker-serves")
        assert [each["event"] for each in heard] == ["worker-ended", "worker-boots", "worker-serves"]
        assert heard[0]["text"] == f"worker {worker.pid}: was sent SIGKILL! Perhaps out of memory?"
        assert operated.ask("reload")["ok"]
        names = [each["event"] for each in until("reloaded") if each["event"] != "worker-ended"]  # it may be quick
        assert names == ["reload", "worker-boots", "worker-serves", "worker-retires", "reloaded"]
        assert operated.ask("upgrade")["ok"]
        heard = until("following")
        names = [each["event"] for each in heard]
        assert names.index("upgrade") < names.index("upgrade-serves") < names.index("hand-over")
        new = heard[-1]["pid"]
        assert new != operated.server.pid
        os.kill(new, signal.SIGTERM)
        until("stopping")
        assert following.wait(20) == 2


def test_a_thousand_silent_clients(start: Start, short_path: Path) -> None:
    """Of one that has 200 descriptors: they take none for long."""
    few = ("sh", "-c", 'ulimit -n 200; exec "$0" -m sdserve "$@"', sys.executable)
    operated = Operated(lambda *args: start(*args, program=few), short_path, "plain:application")
    with ExitStack() as opened:
        for _ in range(900):
            silent = opened.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(operated.control)
        assert operated.ask("status")["ok"]
        assert len(operated.ask("stacks")["workers"]) == 1
        assert operated.server.master.descriptors < 100
    assert "out of file descriptors" not in operated.server.log


def test_who_watches_follows_an_upgrade(start: Start, short_path: Path) -> None:
    operated = Operated(start, short_path, "--upgrade", "auto", "plain:application")
    # Who runs the tests in the background of a script has them ignore INT.
    program = ["env", "--default-signal=INT", sys.executable, "-m", "sdserve.ctl", "-s", operated.control]
    program += ["status", "--watch", "--interval", "0.1"]
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environ) as watching:
        assert watching.stdout is not None
        seen = iter(watching.stdout.readline, "")
        assert next(line for line in seen if line.startswith("Master pid ")) == (
            f"Master pid {operated.server.pid}, sdserve 0.1.0\n"
        )
        told = operated.ask("upgrade")
        assert told["ok"]
        new = told["text"].partition("the new master is pid ")[2].partition(":")[0]
        assert any(f" pid {new}, " in line for line in seen)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130


@pytest.fixture
def holding(start: Start, short_path: Path) -> Iterator[Operated]:
    """The service after an upgrade: its old master has a request to finish, until there is a file `go`."""
    (short_path / "held.py").write_text(HELD)
    operated = Operated(start, short_path, "--upgrade", "auto", "--chdir", str(short_path), "held:application")
    with connector(operated.address)() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually((short_path / "called").exists, "a request at work")
        assert operated.ask("upgrade")["ok"]
        yield operated
        (short_path / "go").touch()
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_an_upgrade_that_is_asked_for_while_the_old_master_drains_follows_its_end(
    holding: Operated, short_path: Path
) -> None:
    """And says at once whose, and how long that may take."""
    old = holding.server.pid
    program = [*holding.program, "upgrade"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=holding.environ
    ) as asking:
        assert asking.stdout is not None and asking.stderr is not None
        said = re.fullmatch(
            rf"sdservectl: the old master \(pid {old}\) still drains, the upgrade follows; it has at most (\d+) s\n",
            asking.stderr.readline(),
        )
        assert said and 30 <= int(said[1]) <= 40  # graceful_timeout, and what comes after the workers
        holding.server.wait_log(f"USR2: the old master \\(pid {old}\\) still drains, the upgrade follows")
        assert holding.ask("status")["status"]["pid"] != old
        (short_path / "go").touch()
        assert asking.stdout.readline().startswith("upgraded, the new master is pid ")
        assert asking.wait(20) == 0


def test_no_upgrade_waits_for_the_end_of_a_service_that_stops(holding: Operated) -> None:
    holding.server.kill(signal.SIGTERM, holding.ask("status")["status"]["pid"])
    holding.server.wait_log("Handling signal: term")
    assert holding.ask("upgrade")["error"] == "Refused"


@pytest.fixture
def drained(start: Start, short_path: Path) -> Iterator[Operated]:
    yield Operated(start, short_path, "-w", "2", "--keep-alive", "60", "--graceful-timeout", "15", "plain:application")


def closes(client: socket.socket) -> bool:
    """Whether an answer is its connection's last."""
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 ")
    return b"\r\nConnection: close\r\n" in answer


def test_a_drain_closes_politely_and_is_taken_back(drained: Operated) -> None:
    with ExitStack() as opened:
        idle, used = (opened.enter_context(connector(drained.address)()) for _ in range(2))
        assert not closes(idle)
        waiting = connector(drained.control)()
        waiting.sendall(b'{"command": "drain", "seconds": 0}\n')
        eventually(lambda: drained.ask("status")["status"]["state"] == "draining", "it drains")
        assert idle.recv(1) == b"", "closed in order, after a while"
        eventually(lambda: closes(opened.enter_context(connector(drained.address)())), "every answer is the last")
        assert used.recv(1) == b""
        assert b'"ok": true' in waiting.recv(4096)
        assert drained.ask("upgrade")["error"] == "Refused"
        [old, _] = drained.server.wait_workers(2)
        old.kill(signal.SIGKILL)
        drained.server.wait_log("Booting worker", since=drained.server.mark - 1)
        assert drained.ask("undrain")["ok"]
        assert drained.ask("wait")["ok"]
        for _ in range(4):
            eventually(lambda: not closes(opened.enter_context(connector(drained.address)())), "kept as before")


def test_a_drain_stops_when_it_is_told_to(drained: Operated) -> None:
    with connector(drained.address)() as slow, ExitStack() as stack:
        slow.sendall(b"GET /sleep/2 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: any(worker["busy"] for worker in drained.ask("status")["status"]["workers"]), "a request")
        first = stack.enter_context(connector(drained.control)())
        first.sendall(b'{"command": "drain", "seconds": 60, "stop": true}\n')
        eventually(lambda: drained.ask("status")["status"]["state"] == "draining", "it drains")
        told = drained.ask("drain", seconds=0)  # begins anew, and takes back nothing that was promised
        assert told["text"] == "drained: all connections have ended; the service stops"
        assert json.loads(first.recv(4096))["text"] == told["text"]
        slow.setblocking(False)  # what was asked for came before the word that it is over
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert drained.server.wait() == 0
    assert drained.run("wait", "stopped").returncode == 0


def test_a_stop_that_a_drain_has_begun_is_not_taken_back(start: Start, short_path: Path) -> None:
    operated = Operated(start, short_path, "-w", "1", "--graceful-timeout", "3", "plain:application")
    with connector(operated.address)() as slow:
        slow.sendall(b"GET /sleep/60 HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: any(worker["busy"] for worker in operated.ask("status")["status"]["workers"]), "a request")
        told = operated.ask("drain", seconds=0, stop=True)
        assert told["text"] == "drained: 1 connections are left; the service stops"
        refused = operated.run("undrain")
        assert refused.returncode == 1
        assert "The server is stopping." in refused.stdout + refused.stderr
    assert operated.server.wait() == 0


def test_a_control_socket_whose_file_was_removed_is_made_anew(start: Start, short_path: Path) -> None:
    """By CONT, which an ExecReload= sends, and by a reload, also one that is rolled back."""
    config = short_path / "conf.py"
    config.write_text("workers = 1\n")
    operated = Operated(start, short_path, "-c", str(config), "web")
    control = Path(operated.control)
    for number, text in (
        (signal.SIGCONT, "workers = 1\n"),
        (signal.SIGHUP, "workers = 1\n"),
        (signal.SIGHUP, "oops\n"),
    ):
        config.write_text(text)
        control.unlink()
        operated.server.kill(number)
        eventually(control.is_socket, f"the socket after {number.name}, with {text!r}")
        assert operated.ask("status")["ok"]
