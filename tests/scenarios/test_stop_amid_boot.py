"""A stop while a worker boots: its copy of the address keeps no client waiting for somebody who never accepts."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, connector, free_port
from tests.support.waiting import eventually

SLOW = """import hashlib, os
if os.path.exists("slow"):
    open("boots", "w").close()
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 6000000)  # C code hears no signal, as the import of a large library

def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_who_comes_later_is_refused(start: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "slow_app.py").write_text(SLOW)
    address = "127.0.0.1", free_port()
    server = start("-b", "{}:{}".format(*address), "-w", "1", "slow_app:application", cwd=tmp_path)
    server.wait_ready()
    (tmp_path / "slow").touch()
    server.kill(signal.SIGHUP)
    eventually((tmp_path / "boots").exists, "the new worker boots")
    mark = server.mark
    server.kill(signal.SIGTERM)
    server.wait_log("Worker exiting", since=mark)
    with pytest.raises(ConnectionRefusedError):
        connector(address)()
    assert server.wait(20) == 0
