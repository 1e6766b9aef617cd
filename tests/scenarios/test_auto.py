"""What serves an application, it decides itself: the log says so once, and hooks see the class that it came to be."""

import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server, answer

Start = Callable[..., Server]

WSGI = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]
"""
HOOKS = """
def noted(name):
    def hook(*args):
        [worker] = [arg for arg in args if hasattr(arg, "age")]
        with open("seen", "a") as file:
            file.write(f"{name} {type(worker).__name__}\\n")
    return hook

def pre_fork(server, worker): noted("pre_fork")(worker)
def post_fork(server, worker): noted("post_fork")(worker)
def post_worker_init(worker): noted("post_worker_init")(worker)
def worker_exit(server, worker): noted("worker_exit")(worker)
def child_exit(server, worker): noted("child_exit")(worker)
"""


def serve(start: Start, place: Path, application: str, *arguments: str) -> Server:
    (place / "app.py").write_text(application)
    return start("-b", f"unix:{place}/s", *arguments, "app", cwd=place).wait_ready()


def using(server: Server) -> list[str]:
    return [line.partition("Using worker: ")[2] for line in server.log.splitlines() if "Using worker: " in line]


def test_the_log_says_it_once(start: Start, short_path: Path) -> None:
    server = serve(start, short_path, WSGI, "-w", "2")
    first = server.wait_workers(2)
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ")
    server.wait_workers(2, besides=[each.pid for each in first])
    assert answer(f"{short_path}/s").body == b"wsgi"
    assert using(server) == ["wsgi (app is not an async callable)"]


def test_a_class_that_is_named_is_said_at_the_start(start: Start, short_path: Path) -> None:
    server = serve(start, short_path, WSGI, "-k", "wsgi")
    assert using(server) == ["wsgi"]
    assert server.log.index("Using worker: ") < server.log.index("Booting worker")


def test_hooks_see_what_it_became(start: Start, short_path: Path) -> None:
    (short_path / "conf.py").write_text(HOOKS)
    server = serve(start, short_path, WSGI, "-c", "conf.py")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    seen = dict(line.split() for line in (short_path / "seen").read_text().splitlines())
    before = dict.fromkeys(("pre_fork", "post_fork"), "AutoWorker")
    assert seen == before | dict.fromkeys(("post_worker_init", "worker_exit", "child_exit"), "WSGIWorker")
