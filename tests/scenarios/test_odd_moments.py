"""Commands and signals that come when nothing can be done about them yet, and failures half-way, leave no trace."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sdserve.ctl import ask
from tests.support.server import Server, answer, free_port
from tests.support.waiting import eventually

APP = """
import os
{first}
def application(environ, start_response):
    body = os.environ.get("GREETING", "none").encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

# One worker never comes to serve, so the reload goes on; the other dies, again and again, when it has just begun to.
DIES = """
import os, threading
workers = 2
def post_worker_init(worker):
    if worker.slot == 0:
        threading.Event().wait()
    threading.Timer(0.05, os._exit, (9,)).start()
"""


class Gate:
    """A booting application waits here: it connects, and goes on at the end of file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen()
        self._sock.settimeout(15)

    @property
    def first(self) -> str:
        return f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(self.path)!r}); s.recv(1); s.close()"

    def arrived(self) -> socket.socket:
        """Waits until a worker boots; closing the result lets it go on."""
        return self._sock.accept()[0]


def write(path: Path, first: str = "") -> None:
    (path / "web.py").write_text(APP.format(first=first))


def test_a_reload_that_was_asked_for_during_the_start_follows_it(
    start: Callable[..., Server], short_path: Path
) -> None:
    gate = Gate(short_path / "gate")
    write(short_path, gate.first)
    server = start("-b", f"unix:{short_path}/s", "web:application", cwd=short_path)
    with gate.arrived():
        server.kill(signal.SIGHUP)
        server.wait_log("Handling signal: hup")
    with gate.arrived():
        server.wait_log("Ready: Running")
    server.wait_log("Reloaded: Running: 1 of 1 worker serving, generation 2")


def test_an_upgrade_that_is_asked_for_during_the_start_is_refused(
    start: Callable[..., Server], short_path: Path
) -> None:
    gate = Gate(short_path / "gate")
    write(short_path, gate.first)
    control = str(short_path / "c")
    server = start("-b", f"unix:{short_path}/s", "--control-socket", control, "web:application", cwd=short_path)
    with gate.arrived():
        with socket.socket(socket.AF_UNIX) as probe:
            eventually(lambda: probe.connect_ex(control) == 0, "the master listens, while its first worker boots")
        told = {"ok": False, "text": "no upgrade now: The server is starting.", "error": "Refused"}
        assert ask(control, "upgrade", 15) == told
    server.wait_ready()


def test_a_reload_that_fails_takes_its_environment_back(start: Callable[..., Server], short_path: Path) -> None:
    write(short_path)
    config = short_path / "sdserve.conf.py"
    config.write_text(f"bind = ['unix:{short_path}/s']\nwsgi_app = 'web:application'\n")
    server = start(cwd=short_path).wait_ready()
    config.write_text(
        f"bind = ['unix:{short_path}/s', 'unix:{short_path}/missing/s']\nwsgi_app = 'web:application'\n"
        "raw_env = ['GREETING=from a reload that failed']\n"
    )
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed")
    [old] = server.workers
    ready = server.notify.mark
    old.kill()
    server.wait_workers(1, besides=[old.pid])
    server.notify.wait(lambda message: "1 of 1" in message.fields.get("STATUS", ""), since=ready)
    assert answer(f"{short_path}/s").body == b"none"


def test_an_address_that_a_reload_gave_up_is_free_again(start: Callable[..., Server], short_path: Path) -> None:
    write(short_path)
    config = short_path / "sdserve.conf.py"
    before, after = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    config.write_text(f"bind = '127.0.0.1:{before[1]}'\nwsgi_app = 'web:application'\n")
    server = start(cwd=short_path).wait_ready()
    assert answer(before).status == 200
    [old] = server.workers
    config.write_text(f"bind = '127.0.0.1:{after[1]}'\nwsgi_app = 'web:application'\n")
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded")
    old.wait_gone()
    assert answer(after).status == 200
    with pytest.raises(ConnectionRefusedError):
        answer(before)


def test_a_new_master_that_the_operator_ends_is_not_called_one_that_never_served(
    start: Callable[..., Server], short_path: Path
) -> None:
    write(short_path)
    server = start("-b", f"unix:{short_path}/s", "--upgrade", "manual", "web:application", cwd=short_path).wait_ready()
    server.kill(signal.SIGUSR2)
    new = server.wait_log(r"the new master \(pid (\d+)\) serves")
    os.kill(int(new[1]), signal.SIGTERM)
    server.wait_log("Upgrade backed out, this master serves on: it ended$")
    assert answer(f"{short_path}/s").status == 200


def test_a_stop_in_the_middle_of_an_upgrade_leaves_no_socket_behind(
    start: Callable[..., Server], short_path: Path
) -> None:
    write(short_path)
    server = start("-b", f"unix:{short_path}/s", "--upgrade", "auto", "web:application", cwd=short_path).wait_ready()
    gate = Gate(short_path / "gate")
    write(short_path, gate.first)
    server.kill(signal.SIGUSR2)
    with gate.arrived():
        everybody = server.session
        server.kill(signal.SIGTERM)
        for process in everybody:
            process.wait_gone()
    assert server.wait() == 0
    assert not (short_path / "s").exists()


@pytest.mark.parametrize(
    ("hook", "status"), [("on_starting", 255), ("when_ready", 255), ("nworkers_changed", 255), ("pre_fork", 3)]
)
def test_a_hook_of_the_master_that_raises_ends_it_without_remains(
    start: Callable[..., Server], short_path: Path, hook: str, status: int
) -> None:
    write(short_path)
    (short_path / "sdserve.conf.py").write_text(
        f"bind = ['unix:{short_path}/s']\npidfile = '{short_path}/pid'\nwsgi_app = 'web:application'\n"
        f"def {hook}(*args):\n    raise ValueError('boom')\n"
    )
    server = start(cwd=short_path)
    assert server.wait() == status
    assert "ValueError: boom" in server.status()
    assert not (short_path / "s").exists()
    assert not (short_path / "pid").exists()


def test_a_hook_that_raises_before_the_fork_ends_the_reload_only(
    start: Callable[..., Server], short_path: Path
) -> None:
    write(short_path)
    (short_path / "conf.py").write_text("workers = 2\n")
    server = start("-c", "conf.py", "-b", f"unix:{short_path}/s", "web:application", cwd=short_path)
    server.wait_log("Ready: Running")
    workers = {worker.pid for worker in server.workers}
    (short_path / "conf.py").write_text("def pre_fork(server, worker):\n    raise RuntimeError('no luck')\n")
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed, the old workers serve on: .*the hook pre_fork raised RuntimeError: no luck")
    assert answer(f"{short_path}/s").status == 200
    assert {worker.pid for worker in server.workers} == workers


def test_an_upgrade_that_was_asked_for_during_the_start_follows_it(
    start: Callable[..., Server], short_path: Path
) -> None:
    gate = Gate(short_path / "gate")
    write(short_path, gate.first)
    server = start("--upgrade", "auto", "-b", f"unix:{short_path}/s", "web:application", cwd=short_path)
    with gate.arrived():
        server.kill(signal.SIGUSR2)
        server.wait_log("Handling signal: usr2")
    with gate.arrived():
        server.wait_log("Upgrade: the new master is pid")
    server.wait_log("Master has been promoted")


def test_a_generation_that_dies_as_soon_as_it_serves_is_rolled_back(
    start: Callable[..., Server], short_path: Path
) -> None:
    write(short_path)
    (short_path / "conf.py").write_text("workers = 1\n")
    server = start("-c", "conf.py", "-b", f"unix:{short_path}/s", "web:application", cwd=short_path)
    server.wait_log("Ready: Running")
    (short_path / "conf.py").write_text(DIES)
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed, the old workers serve on: workers of the new generation die")
    assert answer(f"{short_path}/s").status == 200


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT])
def test_a_boot_that_a_signal_ends_says_so(
    start: Callable[..., Server], short_path: Path, signum: signal.Signals
) -> None:
    gate = Gate(short_path / "gate")
    write(short_path)
    server = start("-w", "1", "-b", f"unix:{short_path}/s", "web:application", cwd=short_path).wait_ready()
    [old] = server.wait_workers(1)
    write(short_path, gate.first)
    server.kill(signal.SIGHUP)
    with gate.arrived():
        [new] = [worker for worker in server.wait_workers(2) if worker.pid != old.pid]
        new.kill(signum)
        where = f": it was at {short_path}/web.py, line 3" if signum == signal.SIGABRT else ""
        why = f"Worker failed to boot: it was told to leave by {signum.name}{where}\n"
        server.wait_log(f"Reload failed, the old workers serve on: {why}")
    assert server.workers == [old]


def test_a_foreign_pidfile_does_not_end_a_promoted_master(start: Callable[..., Server], short_path: Path) -> None:
    write(short_path)
    server = start(
        *("--upgrade", "manual", "-p", f"{short_path}/pid", "-b", f"unix:{short_path}/s", "web:application"),
        cwd=short_path,
    )
    server.wait_log("Ready: Running")
    server.kill(signal.SIGUSR2)
    server.wait_log("Upgrade: the new master .* serves")
    (short_path / "pid").write_text(f"{os.getpid()}\n")
    server.kill(signal.SIGTERM)
    server.wait_log("already running on pid")
    assert answer(f"{short_path}/s").status == 200


@pytest.mark.parametrize("application", ["app", "no_such_name"])
def test_a_thread_of_a_preloaded_application_does_not_keep_the_master(
    start: Callable[..., Server], short_path: Path, application: str
) -> None:
    """It would be joined for ever: at a stop, and where the start fails."""
    (short_path / "site_app.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, name='letters').start()\n"
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"
    )
    server = start("-b", f"unix:{short_path}/s", "--preload", f"site_app:{application}", cwd=short_path)
    if application == "app":
        server.wait_ready()
        server.kill(signal.SIGTERM)
    assert server.wait() == (0 if application == "app" else 4)
    assert f"Process {server.pid} leaves behind what the application did not end: thread letters" in server.log
