"""A reload that fails is rolled back whatever happens meanwhile: even when the roll-back itself meets an error."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, answer, children
from tests.support.waiting import eventually

Start = Callable[..., Server]

GOOD = """
raw_env = ["COLOUR=green"]
bind = ["unix:s"]
"""
# Each line of what a roll-back does fails once: what stands in TARGET raises, and is itself again.
BAD = """
import importlib, os

raw_env = ["COLOUR=red", "EXTRA=1"]
chdir = "elsewhere"
bind = ["unix:s", "unix:another"]
errorlog = "error.log"
workers = 5

def on_reload(server):
    module, _, path = TARGET.partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real = getattr(owner, name)

    def fails(*args, **kwargs):
        setattr(owner, name, real)
        raise KeyError("planted")

    setattr(owner, name, fails)
    os.rename("../conf.py", "../bad.py")
    raise RuntimeError("no licence today")
"""
STEPS = [
    "sdserve.arbiter.reload:reset_environment",
    "sdserve.config.paths:Place.enter",
    "sdserve.config.paths:Place.close",
    "sdserve.config.paths:lead_imports",
    "os:fchdir",
    "sdserve.arbiter.service:Service.setup",
    "sdserve.arbiter.service:Service.status",
    "sdserve.log:Logger.use",
    "sdserve.log:Destinations.close",
    "sdserve.arbiter.generation:Generation.close",
    "sdserve.process.listeners:Listener.unlink",
    "sdserve.process.listeners:Listener.close",
    "sdserve.arbiter.service_manager:ServiceManager.reloaded",
    "sdserve.arbiter.commands:Commands.reloaded",
    "sdserve.arbiter.hooks:_explained",
]


@pytest.fixture
def server(start: Start, short_path: Path) -> Server:
    (short_path / "elsewhere").mkdir()
    (short_path / "app.py").write_text(APP)
    (short_path / "conf.py").write_text(GOOD)
    arguments = ("-c", "conf.py", "--control-socket", "control", "-w", "2", "app")
    return start(*arguments, cwd=short_path).wait_ready()


APP = """
import os

def application(environ, start_response):
    body = " ".join([os.environ.get("COLOUR", "-"), os.environ.get("EXTRA", "-"), os.getcwd()]).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def serves(path: Path, where: Path) -> None:
    assert answer(str(path / "s")).body.decode() == f"green - {where}"


def obeys(server: Server, path: Path) -> None:
    """The old generation serves, a worker that dies is replaced by one of the same, and a good reload works."""
    serves(path, path)
    workers = server.wait_workers(2)
    os.kill(workers[0].pid, signal.SIGKILL)
    workers = server.wait_workers(2, besides=[workers[0].pid])
    for _ in range(4):
        serves(path, path)
    (path / "conf.py").write_text(GOOD)
    mark = server.mark
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ", since=mark)
    server.wait_workers(2, besides=[p.pid for p in workers])
    serves(path, path)


@pytest.mark.parametrize("target", STEPS)
def test_any_step_may_fail(server: Server, short_path: Path, target: str) -> None:
    (short_path / "conf.py").write_text(f"TARGET = {target!r}\n{BAD}")
    server.kill(signal.SIGHUP)

    def told() -> bool:
        log = server.log + "".join(each.read_text() for each in short_path.rglob("error.log"))  # whichever was in force
        return "planted" in log and "no licence today" in log

    eventually(told, "what failed in the log")
    obeys(server, short_path)
    server.kill(signal.SIGTERM)
    assert server.wait() == 0


def test_a_link_to_nowhere(start: Start, short_path: Path) -> None:
    """The release that serves was pruned, and the link leads to one that is not there."""
    (short_path / "one").mkdir()
    (short_path / "one" / "app.py").write_text(APP)
    (short_path / "current").symlink_to("one")
    arguments = ("--chdir", "current", "-b", f"unix:{short_path}/s", "-w", "2", "app")
    server = start(*arguments, cwd=short_path, env={"COLOUR": "green"}).wait_ready()
    serves(short_path, short_path / "one")
    (short_path / "current").unlink()
    (short_path / "current").symlink_to("two")
    (short_path / "one").rename(short_path / "old")
    for _ in range(2):
        mark = server.mark
        server.kill(signal.SIGHUP)
        server.wait_log("Reload failed, the old workers serve on: .*'current' is not a directory", since=mark)
        serves(short_path, short_path / "old")
    workers = server.wait_workers(2)
    os.kill(workers[0].pid, signal.SIGKILL)
    server.wait_workers(2, besides=[workers[0].pid])
    (short_path / "two").mkdir()
    (short_path / "two" / "app.py").write_text(APP)
    (short_path / "old" / "app.py").unlink()
    mark = server.mark
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ", since=mark)
    serves(short_path, short_path / "two")


def test_the_old_directory_is_deleted(start: Start, short_path: Path) -> None:
    for name in ("one", "two"):
        (short_path / name).mkdir()
        (short_path / name / "app.py").write_text(APP)
    (short_path / "current").symlink_to("one")
    arguments = ("--chdir", "current", "-b", f"unix:{short_path}/s", "-w", "2", "app")
    server = start(*arguments, cwd=short_path, env={"COLOUR": "green"}).wait_ready()
    (short_path / "current").unlink()
    (short_path / "current").symlink_to("two")
    (short_path / "one" / "app.py").unlink()
    for each in (short_path / "one").rglob("*.pyc"):
        each.unlink()
    for each in (short_path / "one").glob("*"):
        each.rmdir()
    (short_path / "one").rmdir()
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ")
    serves(short_path, short_path / "two")


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt('a key')", "GeneratorExit('enough')"])
def test_a_config_file_and_a_hook_that_want_to_leave(server: Server, short_path: Path, error: str) -> None:
    """What ends most programs is one more reason why a reload fails."""
    name = error.partition("(")[0]
    (short_path / "conf.py").write_text(f"{GOOD}raise {error}\n")
    server.kill(signal.SIGHUP)
    server.wait_log(rf"Reload failed, the old workers serve on: .*conf\.py:4: the config file raised {name}: \S+")
    mark = server.mark
    (short_path / "conf.py").write_text(f"{GOOD}def on_reload(server):\n    raise {error}\n")
    server.kill(signal.SIGHUP)
    server.wait_log(rf"Reload failed, the old workers serve on: the hook on_reload raised {name}: \S+", since=mark)
    obeys(server, short_path)


FAILING = {
    "a host that is not there": "statsd_host = 'nowhere..invalid:8125'",
    "a log in no directory": "errorlog = 'nowhere/error.log'",
    "the other log": "errorlog = 'error.log'\naccesslog = 'nowhere/access.log'",
    "an address that cannot be had": "bind = ['unix:s', 'unix:another', 'unix:nowhere/third']",
    "an address that raises": "bind = ['unix:s', 'unix:another', 'unix:third']\n"
    + """
from sdserve.process import listeners
real = listeners._bind_unix

def _bind_unix(path, *args):
    if path == "third":
        listeners._bind_unix = real
        raise MemoryError
    return real(path, *args)

listeners._bind_unix = _bind_unix
""",
    "a hook": "bind = ['unix:s', 'unix:another']\ndef on_reload(server):\n    raise RuntimeError('no')",
    "a worker class": "worker_class = 'nowhere.Worker'",
    "an application": "preload_app = True\nwsgi_app = 'nowhere'",
    "workers": "bind = ['unix:s', 'unix:another']\nwsgi_app = 'nowhere'\nstatsd_host = '127.0.0.1:9'",
}


@pytest.mark.parametrize("broken", FAILING)
def test_a_reload_that_fails_leaves_no_descriptor(start: Start, short_path: Path, broken: str) -> None:
    (short_path / "app.py").write_text(APP)
    good = f"{GOOD}wsgi_app = 'app'\n"
    (short_path / "conf.py").write_text(good)
    arguments = ("-c", "conf.py", "--control-socket", "control", "-w", "1")
    server = start(*arguments, cwd=short_path).wait_ready()
    workers = [each.pid for each in server.wait_workers(1)]

    def fails() -> int:
        (short_path / "conf.py").write_text(f"{good}{FAILING[broken]}\n")
        mark = server.mark
        server.kill(signal.SIGHUP)
        server.wait_log("Reload failed, the old workers serve on: ", since=mark)
        server.kill(signal.SIGTTOU)  # means nothing to a single worker, and is heard when all of the reload is over
        server.wait_log("Handling signal: ttou", since=mark)
        eventually(lambda: [each.pid for each in children(server.pid)] == workers, "nobody but the old worker")
        return server.master.descriptors

    held = fails()
    assert [fails() for _ in range(3)] == [held] * 3
    assert not (short_path / "another").exists()
