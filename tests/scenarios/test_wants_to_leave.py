"""What foreign code raises to end its process is an error as any other: in the master, and while a worker boots."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.waiting import eventually

Start = Callable[..., Server]
ERRORS = ["SystemExit(5)", "SystemExit()", "KeyboardInterrupt('a key')", "GeneratorExit()", "CancelledError()"]
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def serve(start: Start, short_path: Path) -> Callable[..., Server]:
    (short_path / "app.py").write_text(APP)

    def serve(config: str, *arguments: str) -> Server:
        imports = "import os, signal, sys\nfrom asyncio import CancelledError\n"
        (short_path / "conf.py").write_text(imports + config)
        return start("-c", "conf.py", "-b", "unix:s", "-p", "pid", "-w", "2", *arguments, "app", cwd=short_path)

    return serve


def name(error: str) -> str:
    """As messages have it."""
    return error.partition("(")[0]


def leaves_nothing(server: Server, path: Path) -> None:
    assert not (path / "pid").exists() and not (path / "s").exists()
    eventually(lambda: not server.session, "the end of all processes")


@pytest.mark.parametrize("error", ERRORS)
def test_a_hook_that_only_hears_of_something(serve: Callable[..., Server], short_path: Path, error: str) -> None:
    server = serve(f"def child_exit(server, worker):\n    raise {error}\n").wait_ready()
    workers = server.wait_workers(2)
    os.kill(workers[0].pid, signal.SIGKILL)
    server.wait_log(f"Exception in the child_exit hook(.|\n)*{name(error)}")
    server.wait_workers(2, besides=[workers[0].pid])
    server.kill(signal.SIGTTIN)
    server.wait_workers(3)
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    leaves_nothing(server, short_path)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("hook", "status"), [("on_starting", 255), ("when_ready", 255), ("nworkers_changed", 255), ("pre_fork", 3)]
)
def test_a_hook_at_the_start(
    *, serve: Callable[..., Server], short_path: Path, hook: str, status: int, error: str
) -> None:
    server = serve(f"def {hook}(*args):\n    raise {error}\n")
    assert server.wait() == status
    assert name(error) in server.status()
    leaves_nothing(server, short_path)


@pytest.mark.parametrize("error", ERRORS)
def test_the_last_hook(serve: Callable[..., Server], short_path: Path, error: str) -> None:
    server = serve(f"def on_exit(server):\n    raise {error}\n").wait_ready()
    server.kill(signal.SIGTERM)
    assert server.wait() == 255
    leaves_nothing(server, short_path)


@pytest.mark.parametrize("arguments", [["--preload"], [], ["-k", "wsgi"], ["--check-config"]], ids=" ".join)
@pytest.mark.parametrize("error", ERRORS)
def test_an_application(serve: Callable[..., Server], short_path: Path, error: str, arguments: list[str]) -> None:
    (short_path / "app.py").write_text(f"from asyncio import CancelledError\nraise {error}\n")
    server = serve("", *arguments)
    assert server.wait() == 3
    said = server.log if "--check-config" in arguments else server.status()
    assert f"app: importing app failed ({short_path}/app.py, line 2): {name(error)}" in said
    leaves_nothing(server, short_path)


def test_an_application_that_says_why(serve: Callable[..., Server], short_path: Path) -> None:
    (short_path / "app.py").write_text("import sys\nsys.exit('DATABASE_URL is not set')\n")
    server = serve("")
    assert server.wait() == 3
    assert (
        f"app: importing app failed ({short_path}/app.py, line 2): SystemExit: DATABASE_URL is not set"
        in server.status()
    )
    leaves_nothing(server, short_path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("SystemExit('no GPU')", "it exited with code 1 (no GPU) before it served"),
        ("GeneratorExit('x')", "GeneratorExit: x"),
    ],
)
def test_a_hook_of_a_worker(serve: Callable[..., Server], short_path: Path, error: str, said: str) -> None:
    server = serve(f"def post_fork(server, worker):\n    raise {error}\n")
    assert server.wait() == 3
    assert said in server.status()
    leaves_nothing(server, short_path)


def test_a_module_that_stands_in_for_one_of_pythons(serve: Callable[..., Server], short_path: Path) -> None:
    (short_path / "shlex.py").write_text("import sys\nsys.exit()\n")
    server = serve("")
    assert server.wait() == 255
    assert f'File "{short_path}/shlex.py", line 2' in server.log
    assert "SystemExit" in server.status()
    leaves_nothing(server, short_path)


def test_a_worker_class(serve: Callable[..., Server], short_path: Path) -> None:
    source = "import sys\nfrom sdserve.workers.wsgi.worker import WSGIWorker\nclass Mine(WSGIWorker):\n"
    source += "    def __init__(self, *args):\n        sys.exit(7)\n"
    (short_path / "mine.py").write_text(source)
    server = serve("worker_class = 'mine.Mine'\n")
    assert server.wait() == 3
    assert "Worker failed to boot: SystemExit: 7" in server.status()
    leaves_nothing(server, short_path)


@pytest.mark.parametrize("end", ["sys.exit(5)", "pass", "raise RuntimeError"])
def test_a_child_that_a_hook_forks_is_no_second_master(
    serve: Callable[..., Server], short_path: Path, end: str
) -> None:
    config = f"""
def when_ready(server):
    if os.fork() == 0:
        open("forked", "w").write(str(os.getpid()))
        {end}
"""
    server = serve(config).wait_ready()
    child = int(eventually(lambda: (short_path / "forked").read_text(), "a child"))
    eventually(lambda: child not in {each.pid for each in server.session}, "its end")
    server.wait_workers(2)
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    leaves_nothing(server, short_path)


@pytest.mark.parametrize(
    ("handler", "status"),
    [("sys.exit(5)", 5), ("sys.exit()", 0), ("sys.exit('enough')", 1), ("signal.default_int_handler(*args)", 0)],
)
def test_a_signal_handler_of_a_hook_stops_the_service(
    *, serve: Callable[..., Server], short_path: Path, handler: str, status: int
) -> None:
    """It has taken the place of the master's own, and wants what that does."""
    config = f"def when_ready(server):\n    signal.signal(signal.SIGTERM, lambda *args: {handler})\n"
    server = serve(config).wait_ready()
    server.wait_workers(2)
    server.kill(signal.SIGTERM)
    assert server.wait() == status
    assert "was raised by a signal handler: this master stops" in server.log
    leaves_nothing(server, short_path)


def test_a_signal_handler_between_two_turns(serve: Callable[..., Server], short_path: Path) -> None:
    """The interpreter calls it where the next turn begins: the planted call stands for it."""
    config = """
from sdserve.arbiter.arbiter import Arbiter
attempt = Arbiter.attempt
def between(self, step):
    Arbiter.attempt = attempt
    sys.exit(5)
def when_ready(server):
    Arbiter.attempt = between
"""
    server = serve(config)
    assert server.wait() == 5
    assert "was raised by a signal handler: this master stops" in server.log
    leaves_nothing(server, short_path)


@pytest.mark.parametrize("error", ["GeneratorExit", "CancelledError", "RuntimeError"])
def test_a_signal_handler_of_a_hook_that_fails(serve: Callable[..., Server], short_path: Path, error: str) -> None:
    config = f"def handler(*args):\n    raise {error}\n"
    config += "def when_ready(server):\n    signal.signal(signal.SIGUSR1, handler)\n"
    server = serve(config).wait_ready()
    workers = server.wait_workers(2)
    server.kill(signal.SIGUSR1)
    server.wait_log(f"conf.py(.|\n)*{error}")
    assert server.wait_workers(2) == workers
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    leaves_nothing(server, short_path)
