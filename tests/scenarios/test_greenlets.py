"""What patches the standard library, as gevent and eventlet do, is refused in one line, and costs no service."""

import re
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


# gevent, as far as it matters. It says what it has patched, as grequests and others do.
GEVENT = f"""
def patch_socket():
    print("sockets are patched", flush=True)

def patch_thread():
    {PATCH.strip().replace(chr(10), chr(10) + "    ")}

def patch_all(socket=True, select=True, thread=True):
    if thread:
        patch_thread()
    if socket:
        patch_socket()
"""
CALL = "from gevent import monkey\nmonkey.patch_all()\n"
REFUSED = "gevent.monkey.patch_all(): remove it, sdserve serves with threads"


def write(place: Path, app: str = WSGI, config: str = "") -> None:
    (place / "gevent").mkdir(exist_ok=True)
    (place / "gevent/__init__.py").touch()
    (place / "gevent/monkey.py").write_text(GEVENT)
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


CALLS = {
    "wsgi": (CALL + WSGI, "", 3, "shop"),
    "asgi": (CALL + ASGI, "", 3, "shop"),
    "preloaded": (CALL + WSGI, "preload_app = True", 3, "shop"),
    "config file": (WSGI, CALL, 1, "conf"),
    "deep": ("import json\nimport deep\n" + WSGI, "preload_app = True", 3, "deep"),
}


@pytest.mark.parametrize("case", CALLS)
def test_who_would_patch_is_named(start: Start, short_path: Path, options: tuple[str, ...], case: str) -> None:
    app, config, code, where = CALLS[case]
    write(short_path, app, config)
    (short_path / "deep.py").write_text(CALL)
    server = start(*options, cwd=short_path)
    assert server.wait() == code
    assert REFUSED in server.status() and f"{where}.py" in server.status()
    done = subprocess.run(
        [sys.executable, "-m", "sdserve", "--check-config", *options],
        cwd=short_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code and REFUSED in done.stderr


@pytest.mark.parametrize("case", CALLS)
def test_a_reload_is_rolled_back_each_time_until_it_is_mended(
    start: Start, short_path: Path, options: tuple[str, ...], case: str
) -> None:
    """Nothing was patched: the master goes on forking workers, hears of their ends, and serves what is mended."""
    write(short_path)
    server = start(*options, cwd=short_path).wait_ready()
    first, _ = server.wait_workers(2)
    write(short_path, *CALLS[case][:2])
    (short_path / "deep.py").write_text(CALL)
    for _ in range(2):
        mark = server.mark
        server.kill(signal.SIGHUP)
        server.wait_log(f"Reload failed, the old workers serve on: .*{re.escape(REFUSED)}", since=mark)
    assert [answer(f"{short_path}/s").body for _ in range(4)] == [b"ok"] * 4
    first.kill(signal.SIGKILL)
    server.wait_workers(2, besides=[first.pid])
    write(short_path, WSGI.replace("ok", "go"), CALLS[case][1].replace(CALL, ""))
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: Running: 2 of 2 workers serving")
    assert answer(f"{short_path}/s").body == b"go"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0


SOCKETS = "from gevent import monkey\nmonkey.patch_all(thread=False, select=False)\n"


@pytest.mark.parametrize("threads", ["1", "4"])
def test_sockets_are_an_applications_own(
    start: Start, short_path: Path, options: tuple[str, ...], threads: str
) -> None:
    """As grequests has them. A master would wait and fork by what goes with that."""
    write(short_path, SOCKETS + WSGI)
    server = start(*options, "--threads", threads, cwd=short_path).wait_ready()
    assert answer(f"{short_path}/s").body == b"ok"
    server.wait_log("sockets are patched")
    write(short_path, SOCKETS + WSGI, "preload_app = True")
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed, the old workers serve on: .*would patch the master")


def test_an_application_may_go_without(start: Start, short_path: Path, options: tuple[str, ...]) -> None:
    tries = f"try:\n    from gevent import monkey\n    monkey.patch_all()\nexcept Exception:\n    pass\n{WSGI}"
    write(short_path, tries)
    start(*options, cwd=short_path).wait_ready()
    assert answer(f"{short_path}/s").body == b"ok"


def test_who_patches_the_master_all_the_same_does_not_keep_it_awake(
    start: Start, short_path: Path, options: tuple[str, ...]
) -> None:
    write(short_path, config="def on_starting(server):\n    import os\n    os.waitpid = lambda pid, options: (0, 0)\n")
    server = start(*options, cwd=short_path).wait_ready()
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
