"""What has patched the standard library, as gevent and eventlet do, is refused in one line, and costs no service."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, answer

Start = Callable[..., Server]

# What gevent's patch_all() does, as far as it matters.
PATCH = """
import _thread, os, select, threading
del select.epoll
real = _thread.get_ident
_thread.get_ident = threading.get_ident = lambda: real()
os.waitpid = lambda pid, options: (0, 0)
"""
WSGI = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
ASGI = "async def application(scope, receive, send): ...\n"
HOOK = "def {}(*args):\n" + "".join(f"    {line}\n" for line in PATCH.split("\n") if line)
REASON = (
    "select and threading are patched by something (gevent.monkey, eventlet): remove it, sdserve serves with threads"
)


def write(place: Path, app: str = WSGI, config: str = "") -> None:
    (place / "shop.py").write_text(app)
    (place / "conf.py").write_text(config)


@pytest.fixture
def options(short_path: Path) -> tuple[str, ...]:
    return ("-c", "conf.py", "-b", f"unix:{short_path}/s", "-w", "2", "shop")


CASES = {
    "wsgi": (PATCH + WSGI, "", 4, "shop: "),
    "asgi": (PATCH + ASGI, "", 4, "shop: "),
    "preloaded": (PATCH + WSGI, "preload_app = True", 4, "shop: "),
    "config file": (WSGI, PATCH, 1, "conf.py: "),
    "post_fork": (WSGI, HOOK.format("post_fork"), 4, "shop: "),
    "post_worker_init": (WSGI, HOOK.format("post_worker_init"), 3, "Worker failed to boot: "),
}


@pytest.mark.parametrize("case", CASES)
def test_a_start(start: Start, short_path: Path, options: tuple[str, ...], case: str) -> None:
    app, config, code, where = CASES[case]
    write(short_path, app, config)
    server = start(*options, cwd=short_path)
    assert server.wait() == code
    assert f"{where}{REASON}" in server.status()
    assert not any("READY=1" in message for message in server.notify.messages)
    assert "Traceback" not in server.log


@pytest.mark.parametrize("case", ["wsgi", "asgi", "config file"])
def test_a_check(short_path: Path, options: tuple[str, ...], case: str) -> None:
    app, config, code, where = CASES[case]
    write(short_path, app, config)
    command = [sys.executable, "-m", "sdserve", "--check-config", *options]
    done = subprocess.run(command, cwd=short_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == code
    [line] = done.stderr.splitlines()
    assert line.startswith("sdserve: error: ") and line.endswith(f"{where}{REASON}")


@pytest.mark.parametrize("case", CASES)
def test_a_reload_is_rolled_back(start: Start, short_path: Path, options: tuple[str, ...], case: str) -> None:
    """What a master has run is undone: it goes on forking workers, hears of their ends, and reloads what is mended."""
    write(short_path)
    server = start(*options, cwd=short_path).wait_ready()
    first, _ = server.wait_workers(2)
    write(short_path, *CASES[case][:2])
    server.kill(signal.SIGHUP)
    server.wait_log(f"Reload failed, the old workers serve on: .*{REASON.replace('(', '.').replace(')', '.')}")
    assert [answer(f"{short_path}/s").body for _ in range(4)] == [b"ok"] * 4
    write(short_path)
    if case in ("config file", "preloaded"):
        first.kill(signal.SIGKILL)
        server.wait_workers(2, besides=[first.pid])
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: Running: 2 of 2 workers serving")
    assert answer(f"{short_path}/s").body == b"ok"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0


def test_a_config_file_that_raises_once_it_has_patched_is_undone(
    start: Start, short_path: Path, options: tuple[str, ...]
) -> None:
    write(short_path)
    server = start(*options, cwd=short_path).wait_ready()
    first, _ = server.wait_workers(2)
    write(short_path, config=PATCH + "raise RuntimeError('no licence today')\n")
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed, the old workers serve on: .*no licence today")
    first.kill(signal.SIGKILL)
    server.wait_workers(2, besides=[first.pid])
    assert answer(f"{short_path}/s").body == b"ok"


def test_who_patches_the_master_all_the_same_does_not_keep_it_awake(
    start: Start, short_path: Path, options: tuple[str, ...]
) -> None:
    write(short_path, config="def on_starting(server):\n    import os\n    os.waitpid = lambda pid, options: (0, 0)\n")
    server = start(*options, cwd=short_path).wait_ready()
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
