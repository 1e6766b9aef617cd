"""Real proxies in front of servers: nginx or haproxy with a configuration, and what else that takes."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import eventually

AROUND = {
    "nginx": (
        "daemon off; master_process off; pid {0}/pid; error_log {0}/errors; events {{}} http {{ access_log off;"
        " client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; scgi_temp_path {0}/s;"
        " uwsgi_temp_path {0}/u; underscores_in_headers on; {1} }}"
    ),
    "haproxy": (
        "global\n    nbthread 1\ndefaults\n    timeout client 10s\n    timeout connect 10s\n    timeout server 10s\n{1}"
    ),
}


def program(name: str) -> str:
    """Where nginx or haproxy is; the test is skipped where it is not installed."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def proxy(name: str, directory: Path, port: int, config: str) -> Iterator[None]:
    """One that listens at `port`, as `config` says, until the end of the `with`. Its files lie in `directory`."""
    (directory / "config").write_text(AROUND[name].format(directory, config))
    options = ["-p", str(directory), "-c"] if name == "nginx" else ["-db", "-f"]
    process = subprocess.Popen([program(name), *options, str(directory / "config")], stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: is_up(port), f"{name} listens")
        yield
    finally:
        process.kill()
        process.wait()


def is_up(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
