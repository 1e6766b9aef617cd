"""A hook that ignores SIGCHLD in the master: the kernel reaps workers, and the master goes on all the same."""

import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server, answer

HOOK = """
import signal
def when_ready(server):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
"""
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_a_worker_that_somebody_else_reaped_is_replaced(start: Callable[..., Server], short_path: Path) -> None:
    (short_path / "web.py").write_text(APP)
    (short_path / "conf.py").write_text(HOOK)
    address = f"{short_path}/s"
    server = start("-b", f"unix:{address}", "-c", "conf.py", "web:application", cwd=short_path).wait_ready()
    (worker,) = server.wait_workers(1)
    worker.kill(signal.SIGKILL)
    server.wait_workers(1, besides=[worker.pid])
    server.wait_log(rf"Worker \(pid:{worker.pid}\) .*somebody else reaped it")
    assert answer(address).body == b"ok"
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert server.log.count(f"Worker (pid:{worker.pid})") == 1
    assert "Traceback" not in server.log
