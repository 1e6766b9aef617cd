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


@pytest.mark.parametrize("kind", ["tcp", "abstract"])
def test_who_comes_later_is_refused(start: Callable[..., Server], tmp_path: Path, kind: str) -> None:
    (tmp_path / "slow_app.py").write_text(SLOW)
    port = free_port()
    address = ("127.0.0.1", port) if kind == "tcp" else f"\0{tmp_path}"
    bind = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:@{tmp_path}"
    server = start("-b", bind, "-w", "1", "slow_app:application", cwd=tmp_path)
    server.wait_ready()
    (tmp_path / "slow").touch()
    server.kill(signal.SIGHUP)
    eventually((tmp_path / "boots").exists, "the new worker boots")
    mark = server.mark
    server.kill(signal.SIGTERM)
    server.wait_log("Worker exiting", since=mark)
    assert server.workers, "the new one boots still"
    with pytest.raises(ConnectionRefusedError):
        connector(address)()
    assert server.workers, "it was refused while that boots"
    assert server.wait(20) == 0
