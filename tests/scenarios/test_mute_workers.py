"""An application closes a descriptor that is not its own: the channel by which its worker speaks to the master."""

from collections.abc import Callable
from pathlib import Path

from tests.support.load import ask
from tests.support.server import Server, connector

APP = """
import os, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(600)
    start_response("200 OK", [("Content-Length", "2"), ("X-Pid", str(os.getpid()))])
    return [b"ok"]
"""
HOOKS = """
import os

def pre_request(worker, request):
    if request.path == "/mute":
        os.close(worker.channel.fileno())
"""
AT_BOOT = """
import os, time

def post_worker_init(worker):
    os.close(worker.channel.fileno())
    time.sleep(600)
"""


def begin(start: Callable[..., Server], place: Path, hooks: str) -> Server:
    (place / "web.py").write_text(APP)
    (place / "conf.py").write_text(hooks)
    return start("-b", f"unix:{place}/s", "-c", "conf.py", "--timeout", "2", "web:application", cwd=place)


def test_a_hung_request_of_a_mute_worker_is_noticed(start: Callable[..., Server], short_path: Path) -> None:
    server = begin(start, short_path, HOOKS).wait_ready()
    [mute] = server.wait_workers(1)
    with connector(f"{short_path}/s")() as client:
        assert ask(client, "/mute").pid == mute.pid
        server.wait_log(rf"Worker \(pid:{mute.pid}\) has closed its channel to the master, and is replaced")
        assert ask(client, "/").pid == mute.pid
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_log(rf"WORKER TIMEOUT \(pid:{mute.pid}\)")
    server.wait_workers(1, besides=[mute.pid])


def test_a_worker_that_is_mute_before_it_serves_has_not_booted(start: Callable[..., Server], short_path: Path) -> None:
    server = begin(start, short_path, AT_BOOT)
    assert server.wait() == 3
    server.wait_log("Worker failed to boot: it has closed its channel, and cannot say when it serves")
