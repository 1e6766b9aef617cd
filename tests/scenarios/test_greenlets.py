"""What patches the standard library, as gevent and eventlet do, is refused in one line, and costs no service."""

import importlib.util
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import CHECKOUT, Server, answer

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
ASGI = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
HOOK = "def {}(*args):\n" + "".join(f"    {line}\n" for line in PATCH.split("\n") if line)
REASON = (
    "select and threading are patched by something (gevent.monkey, eventlet): remove it, sdserve serves with threads"
)


# gevent, as far as it matters.
GEVENT = f"""
import threading
def patch_socket(): ...

def patch_thread():
    {PATCH.strip().replace(chr(10), chr(10) + "    ")}

def patch_all(socket=True, dns=True, time=True, select=True, thread=True):
    if thread:
        patch_thread()
    if socket:
        patch_socket()
"""
CALL = "\nfrom gevent import monkey\nmonkey.patch_all()\n"
HOOKED = "def {}(*_):\n    from gevent import monkey\n    monkey.patch_all()\n"
SOCKETS = """from gevent import monkey
monkey.patch_all(thread=False, select=False)
print("sockets are patched", flush=True)
"""
POOL = WSGI.replace('return [b"ok"]', "return [ThreadPoolExecutor(1).submit(lambda: b'by a thread').result()]").replace(
    '"2")', '"11")'
)
POOL = f"from concurrent.futures import ThreadPoolExecutor\n{POOL}"
INSTALLED = importlib.util.find_spec("gevent") is not None


def write(place: Path, app: str = WSGI, config: str = "", gevent: str = "") -> None:
    if gevent == "stand-in":
        (place / "gevent").mkdir(exist_ok=True)
        (place / "gevent/__init__.py").touch()
        (place / "gevent/monkey.py").write_text(GEVENT)
    (place / "shop.py").write_text(app)
    (place / "conf.py").write_text(config)


def check(place: Path, options: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sdserve", "--check-config", *options]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=30)


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.skipif(not INSTALLED, reason="no gevent"))])
def gevent(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def options(short_path: Path) -> tuple[str, ...]:
    return ("-c", "conf.py", "-b", f"unix:{short_path}/s", "-w", "2", "shop")


# By hand, which nothing refuses: where it is looked at, the process ends.
CASES = {
    "wsgi": (PATCH + WSGI, "", 4, "shop: "),
    "asgi": (PATCH + ASGI, "", 4, "shop: "),
    "preloaded": (PATCH + WSGI, "preload_app = True", 4, "shop: "),
    "config file": (WSGI, PATCH, 3, ""),
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


def test_a_start_amid_greenlets(start: Start, short_path: Path, options: tuple[str, ...]) -> None:
    """As by `python -m gevent.monkey`: Python's own start has patched."""
    write(short_path)
    (short_path / "sitecustomize.py").write_text(PATCH)
    server = start(*options, cwd=short_path, env={"PYTHONPATH": f"{short_path}:{CHECKOUT}"})
    assert server.wait() == 3
    assert REASON in server.status()


@pytest.mark.parametrize("case", ["wsgi", "asgi", "config file"])
def test_a_check(short_path: Path, options: tuple[str, ...], case: str) -> None:
    app, config, code, where = CASES[case]
    write(short_path, app, config)
    done = check(short_path, options)
    assert done.returncode == code
    [line] = done.stderr.splitlines()
    assert line.startswith("sdserve: error: ") and line.endswith(f"{where}{REASON}")


# What gevent's own function would do: a file that calls it, its line, and the exit code.
CALLS = {
    "wsgi": (CALL + WSGI, "", "shop", 3),
    "asgi": (CALL + ASGI, "", "shop", 3),
    "preloaded": (CALL + WSGI, "preload_app = True", "shop", 3),
    "config file": (WSGI, CALL, "conf", 1),
    "deep": ("import json\nimport deep\n" + WSGI, "preload_app = True", "deep", 3),
    "on_starting": (WSGI, HOOKED.format("on_starting"), "conf", 3),
    "post_fork": (WSGI, HOOKED.format("post_fork"), "conf", 3),
}
RELOADS = {**CALLS, "on_reload": (WSGI, HOOKED.format("on_reload"), "conf", 3)}
del RELOADS["on_starting"]  # is called at the start only


def refused(place: Path, case: str) -> str:
    path = place / f"{(CALLS | RELOADS)[case][2]}.py"
    return f"gevent.monkey.patch_all() in {path}, line 3: remove it, sdserve serves with threads"


@pytest.mark.parametrize("case", CALLS)
def test_who_would_patch_is_named(
    start: Start, short_path: Path, options: tuple[str, ...], gevent: str, case: str
) -> None:
    app, config, _, code = CALLS[case]
    write(short_path, app, config, gevent)
    (short_path / "deep.py").write_text(CALL)
    server = start(*options, cwd=short_path)
    assert server.wait() == code
    assert refused(short_path, case) in server.status()


@pytest.mark.parametrize("case", [case for case in CALLS if case not in ("on_starting", "post_fork")])
def test_a_check_names_who_would_patch(short_path: Path, options: tuple[str, ...], gevent: str, case: str) -> None:
    app, config, _, code = CALLS[case]
    write(short_path, app, config, gevent)
    (short_path / "deep.py").write_text(CALL)
    done = check(short_path, options)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith("sdserve: error: ")
    assert done.stderr.splitlines()[-1].endswith(refused(short_path, case))


@pytest.mark.parametrize("case", RELOADS)
def test_a_reload_is_rolled_back_each_time_until_it_is_mended(
    start: Start, short_path: Path, options: tuple[str, ...], gevent: str, case: str
) -> None:
    """Nothing was patched: the master goes on forking workers, hears of their ends, and serves what is mended."""
    write(short_path, gevent=gevent)
    server = start(*options, cwd=short_path).wait_ready()
    first, _ = server.wait_workers(2)
    app, config, _, _ = RELOADS[case]
    write(short_path, app, config, gevent)
    (short_path / "deep.py").write_text(CALL)
    for _ in range(2):
        mark = server.mark
        server.kill(signal.SIGHUP)
        reason = re.escape(refused(short_path, case))
        server.wait_log(f"Reload failed, the old workers serve on: .*{reason}", since=mark)
    assert [answer(f"{short_path}/s").body for _ in range(4)] == [b"ok"] * 4
    first.kill(signal.SIGKILL)
    server.wait_workers(2, besides=[first.pid])
    write(short_path, POOL, "preload_app = True" if "preload" in config else "", gevent)
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: Running: 2 of 2 workers serving")
    assert answer(f"{short_path}/s").body == b"by a thread"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0


def test_what_was_refused_in_the_master_is_imported_anew_by_workers(
    start: Start, short_path: Path, options: tuple[str, ...], gevent: str
) -> None:
    write(short_path, gevent=gevent)
    server = start(*options, cwd=short_path).wait_ready()
    write(short_path, CALL + WSGI, "preload_app = True", gevent)
    server.kill(signal.SIGHUP)
    server.wait_log("Reload failed, the old workers serve on: .*patch_all")
    write(short_path, POOL, gevent=gevent)
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: Running: 2 of 2 workers serving")
    assert answer(f"{short_path}/s").body == b"by a thread"


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["wsgi", "asgi"])
@pytest.mark.parametrize("threads", ["1", "4"])
def test_sockets_are_an_applications_own(
    start: Start, short_path: Path, options: tuple[str, ...], gevent: str, threads: str, app: str
) -> None:
    """As grequests has them. A master would wait and fork by what goes with that."""
    write(short_path, SOCKETS + app, gevent=gevent)
    assert check(short_path, options).returncode == 0
    server = start(*options, "--threads", threads, cwd=short_path).wait_ready()
    assert answer(f"{short_path}/s").body == b"ok"
    server.wait_log("sockets are patched")
    write(short_path, SOCKETS + app, "preload_app = True", gevent)
    reason = r"patch_all\(\) in .*shop\.py, line 2: the master forks, waits and polls by what this replaces"
    assert re.search(reason, check(short_path, options).stderr)
    server.kill(signal.SIGHUP)
    server.wait_log(f"Reload failed, the old workers serve on: .*{reason}")
    write(
        short_path, SOCKETS + app.replace("ok", "go") + "# of another size, for the cache of bytecode\n", gevent=gevent
    )
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: Running: 2 of 2 workers serving")
    assert answer(f"{short_path}/s").body == b"go"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.parametrize(("hook", "served"), [("on_starting", False), ("post_fork", True)])
def test_a_hook_of_the_master_patches_nothing_at_all(
    start: Start, short_path: Path, options: tuple[str, ...], gevent: str, hook: str, served: bool
) -> None:
    lines = "".join(f"    {line}\n" for line in SOCKETS.splitlines())
    write(short_path, config=f"def {hook}(*_):\n{lines}", gevent=gevent)
    server = start(*options, cwd=short_path)
    if served:
        server.wait_ready()
        assert answer(f"{short_path}/s").body == b"ok"
    else:
        assert server.wait() == 3
        assert "conf.py, line 3: the master forks, waits and polls by what this replaces" in server.status()


def test_an_application_may_go_without(start: Start, short_path: Path, options: tuple[str, ...], gevent: str) -> None:
    tries = f"try:\n    from gevent import monkey\n    monkey.patch_all()\nexcept Exception:\n    pass\n{WSGI}"
    write(short_path, tries, gevent=gevent)
    start(*options, cwd=short_path).wait_ready()
    assert answer(f"{short_path}/s").body == b"ok"


def test_who_patches_the_master_all_the_same_does_not_keep_it_awake(
    start: Start, short_path: Path, options: tuple[str, ...]
) -> None:
    write(short_path, config="def on_starting(server):\n    import os\n    os.waitpid = lambda pid, options: (0, 0)\n")
    server = start(*options, cwd=short_path).wait_ready()
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
