"""The proxies of docs/deployment.md, as they stand there: Host arrives; what a client says of itself is not believed.

Each example is taken from the page and run by a real nginx or haproxy, with other places to listen at. The client sends
every field by which it might speak for itself; what the application is told must be the proxy's word.
"""

import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import CHECKOUT, Server
from tests.support.waiting import eventually

PAGE = (CHECKOUT / "docs" / "deployment.md").read_text()
NGINX = (
    "daemon off; master_process off; pid {0}/pid; error_log {0}/errors; events {{}} http {{ access_log off;"
    " client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; scgi_temp_path {0}/s;"
    " uwsgi_temp_path {0}/u; underscores_in_headers on; {1} }}"
)
HAPROXY = "defaults\n    timeout client 10s\n    timeout connect 10s\n    timeout server 10s\n{1}"
CLAIMS = {
    "X-Forwarded-For": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=https",
    "PATH_INFO": "/admin",
    "SCRIPT_NAME": "/environ",
    "REMOTE_USER": "root",
}


def example(language: str, port: int, backend: Path) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    text = found[1].replace("/run/sdserve.sock", str(backend))
    return re.sub(r"(listen |bind :)80\b", rf"\g<1>{port}", text)


def is_up(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture(params=["nginx", "haproxy"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Where a proxy listens, with sdserve behind it."""
    program = shutil.which(request.param, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as name:
        directory = Path(name)
        wrapped = (NGINX if request.param == "nginx" else HAPROXY).format(
            directory, example(request.param, port, directory / "backend")
        )
        (directory / "config").write_text(wrapped)
        with Server("-b", f"unix:{directory}/backend", "--keep-alive", "60", "web") as server:
            server.wait_ready()
            options = ["-p", str(directory), "-c"] if request.param == "nginx" else ["-db", "-f"]
            proxy = subprocess.Popen([program, *options, str(directory / "config")], stdin=subprocess.DEVNULL)
            try:
                eventually(lambda: is_up(port), f"{request.param} listens")
                yield port
            finally:
                proxy.kill()
                proxy.wait()


def test_the_application_is_told_what_the_proxy_knows(port: int) -> None:
    # Not from 127.0.0.1, which is a trusted proxy itself.
    client = http.client.HTTPConnection("127.0.0.1", port, source_address=("127.0.0.9", 0), timeout=15)
    for _ in range(2):
        client.request("GET", "/environ", headers={**CLAIMS, "Host": "project.example:8000"})
        answer = client.getresponse()
        lines = answer.read().decode("latin-1").splitlines()
        assert answer.status == 200
        for line in (
            *("REMOTE_ADDR=127.0.0.9", "wsgi.url_scheme=http", "PATH_INFO=/environ", "SCRIPT_NAME="),
            *("HTTP_HOST=project.example:8000", "HTTP_FORWARDED=for=6.6.6.6;proto=https"),
            *("SERVER_NAME=project.example", "SERVER_PORT=8000"),
        ):
            assert line in lines, lines
        assert not [line for line in lines if "REMOTE_USER" in line or "HTTP_PATH_INFO" in line]
