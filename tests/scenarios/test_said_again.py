"""What a master has to say, to the new one or to systemd, is said again where the kernel did not take it at once."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.server import Server, answer, connector, free_port

CONFIG = """
import errno, os, time
from sdserve.process.handover import Handover
from sdserve.systemd.notify import Notifier

while os.path.exists("DIRECTORY/hold-reading") and not os.path.exists(f"DIRECTORY/reads-{os.getpid()}"):
    time.sleep(0.01)

bind = ["unix:DIRECTORY/one"]
metrics_bind = []
if os.path.exists("DIRECTORY/more"):
    bind.append(open("DIRECTORY/more").read())

def sends(self, type, fds=(), *, send=Handover.send, **fields):
    once = f"DIRECTORY/fails-{type}{'-with-listeners' if fds else ''}"
    if os.path.exists(once):
        os.unlink(once)
        raise OSError(errno.ETOOMANYREFS, "too many references")
    return send(self, type, fds, **fields)

Handover.send = sends

def delivers(self, message, fds=(), *, deliver=Notifier._deliver):
    if not fds or not os.path.exists("DIRECTORY/deaf"):
        return deliver(self, message, fds)
    os.replace("DIRECTORY/deaf", "DIRECTORY/was-deaf")
    self.trouble = OSError(errno.ETOOMANYREFS, "too many references")
    return False

Notifier._deliver = delivers
"""
APP = """
import os, time

while os.path.exists("DIRECTORY/hold") and not os.path.exists(f"DIRECTORY/free-{os.getppid()}"):
    time.sleep(0.01)

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""


@pytest.fixture
def directory(short_path: Path) -> Path:
    for name, text in ("conf.py", CONFIG), ("app.py", APP):
        (short_path / name).write_text(text.replace("DIRECTORY", str(short_path)))
    return short_path


@pytest.fixture
def server(start: Callable[..., Server], directory: Path) -> Server:
    options = ("-w", "1", "-c", "conf.py", "--upgrade", "auto", "-p", f"{directory}/pid")
    return start(*options, "app:application", cwd=directory).wait_ready()


def test_systemd_is_asked_again_to_keep_the_queue(start: Callable[..., Server], directory: Path) -> None:
    """At a restart with more idle connections than the service may have descriptors, the kernel sends no more."""
    (directory / "deaf").touch()
    server = start("-w", "1", "-c", "conf.py", "--fd-store", "app:application", cwd=directory).wait_ready()
    server.notify.wait("FDNAME=sdserve-proof")
    assert (directory / "was-deaf").exists()
    server.wait_log("does not keep the queue")  # for the tests' manager does not
    assert server.log.count("does not keep the queue") == 1


def test_a_new_master_hears_that_it_is_the_main_process(server: Server, short_path: Path) -> None:
    (short_path / "fails-main").touch()
    with Load(connector(f"{short_path}/one"), clients=4) as load:
        server.kill(signal.SIGUSR2)
        server.wait_log("is the main process now")
        server.wait_log("has been promoted")
        load.wait(lambda record: len(record.answers) > 100)
    assert load.record.failures == []
    assert not (short_path / "fails-main").exists()


def beside_a_new_master(server: Server, directory: Path, *more: str) -> None:
    """A reload that succeeds while a new master boots, and brings more addresses."""
    (directory / f"free-{server.pid}").touch()
    (directory / "hold").touch()
    mark = server.mark
    server.kill(signal.SIGUSR2)
    server.wait_log("Booting worker", since=mark)
    with (directory / "conf.py").open("a") as config:
        config.writelines(f"bind.append('unix:{directory}/{name}')\n" for name in more)
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ")
    (directory / "hold").unlink()


def test_a_new_master_hears_of_a_reload(server: Server, short_path: Path) -> None:
    (short_path / "fails-reload").touch()
    beside_a_new_master(server, short_path)
    server.wait_log("has been promoted")
    assert "is the main process now" in server.log
    assert server.log.count("Reloaded: ") == 2
    assert not (short_path / "fails-reload").exists()


def test_a_listener_that_cannot_be_passed_is_named_and_the_upgrade_backed_out(server: Server, short_path: Path) -> None:
    """Nobody else could open it: the old master serves it."""
    (short_path / "fails-reload-with-listeners").touch()
    beside_a_new_master(server, short_path, "two")
    server.wait_log("two cannot be passed to the new master: ")
    server.wait_log("Upgrade backed out")
    assert [answer(f"{short_path}/{name}").body for name in ("one", "two")] == [b"hello", b"hello"]


@pytest.mark.parametrize("when", ["before it opens its own", "while it tries to"])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_new_master_gets_an_address_that_it_cannot_open(
    server: Server, short_path: Path, kind: str, when: str
) -> None:
    """A reload of the old one has brought that, before the new one has read its configuration."""
    address: str | tuple[str, int] = f"{short_path}/two" if kind == "unix" else ("127.0.0.1", free_port())
    for held in ("hold-reading", f"reads-{server.pid}", f"free-{server.pid}"):
        (short_path / held).touch()
    server.kill(signal.SIGUSR2)
    server.wait_log("the new master is pid")
    (short_path / "more").write_text(f"unix:{address}" if isinstance(address, str) else "{}:{}".format(*address))
    if when == "while it tries to":
        (short_path / f"free-{server.pid}").unlink()
        (short_path / "hold").touch()
        mark = server.mark
        server.kill(signal.SIGHUP)
        server.wait_log("Booting worker", since=mark)
        (short_path / "hold-reading").unlink()
        server.wait_log("trying again for")
        (short_path / "hold").unlink()
    else:
        server.kill(signal.SIGHUP)
        server.wait_log("Reloaded: ")
        (short_path / "hold-reading").unlink()
    server.wait_log("has been promoted")
    assert "backed out" not in server.log
    assert answer(address, "/").status == answer(f"{short_path}/one", "/").status == 200
