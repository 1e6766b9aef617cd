"""The proxies of docs/how-to/proxy.md, as they stand there: Host arrives; what a client says of itself is not believed.

Each example is taken from the page and run by a real nginx or haproxy, with other places to listen at. The client sends
every field by which it might speak for itself; what the application is told must be the proxy's word.
"""

import http.client
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.proxies import program, proxy
from tests.support.server import CHECKOUT, Server, free_port

pytestmark = pytest.mark.once

PAGE = (CHECKOUT / "docs" / "how-to" / "proxy.md").read_text()
CLAIMS = {
    "X-Forwarded-For": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=https",
    "PATH_INFO": "/admin",
    "SCRIPT_NAME": "/environ",
    "REMOTE_USER": "root",
}


def example(language: str, port: int, backend: str) -> str:
    """The page's example, with other places to listen at; the backend is HOST:PORT or, as the page says, a path."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    assert "127.0.0.1:8000" in found[1]
    on_unix = {"nginx": "unix:", "haproxy": "unix@"}[language]
    assert f"`{on_unix}/run/sdserve.sock`" in PAGE
    text = found[1].replace("127.0.0.1:8000", on_unix + backend if backend.startswith("/") else backend)
    return re.sub(r"(listen |bind :)80\b", rf"\g<1>{port}", text)


def with_files(config: str, static: Path) -> str:
    """nginx's example with the page's location for static files, which are in `static` here."""
    found = re.search(r"```nginx\n(    location /static/.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return config.replace(
        "    location / {", found[1].replace("/srv/project/static/", f"{static}/") + "    location / {"
    )


Behind = Callable[..., tuple[int, Server]]


@pytest.fixture(params=["nginx", "haproxy"])
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    """`behind(app, tcp=False, static=None)`: starts sdserve and a proxy in front of it.

    Returns where the proxy listens, and the server.
    """
    program(request.param)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp")))

        def run(app: str, tcp: bool = False, static: Path | None = None) -> tuple[int, Server]:
            backend = f"127.0.0.1:{free_port()}" if tcp else f"{directory}/backend"
            bind = backend if tcp else f"unix:{backend}"
            server = stack.enter_context(Server("-b", bind, "--keep-alive", "60", app)).wait_ready()
            port = free_port()
            config = example(request.param, port, backend)
            config = config if static is None else with_files(config, static)
            stack.enter_context(proxy(request.param, directory, port, config))
            return port, server

        yield run


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_the_application_is_told_what_the_proxy_knows(behind: Behind, tcp: bool) -> None:
    port, _ = behind("web", tcp)
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
            *(() if tcp else ("SERVER_NAME=project.example", "SERVER_PORT=8000")),
        ):
            assert line in lines, lines
        assert not [line for line in lines if "REMOTE_USER" in line or "HTTP_PATH_INFO" in line]


def test_the_connection_to_sdserve_is_kept(behind: Behind) -> None:
    port, server = behind("web")
    [worker] = server.wait_workers(1)

    def accepted() -> set[str]:
        """The sockets of the worker that are connections, by inode."""
        links = {os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")}
        return {link for link in links if link.startswith("socket:")}

    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
        client.request("GET", "/pid")  # each client with a connection of its own
        assert client.getresponse().read()
        client.close()

    ask()
    first = accepted()
    for _ in range(9):
        ask()
    assert accepted() == first


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_a_form_of_django_passes_its_csrf_check(behind: Behind, tcp: bool) -> None:
    port, _ = behind("form_django", tcp)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    client.request("GET", "/", headers={"Host": "project.example:8080"})
    answer = client.getresponse()
    token, cookie = answer.read().decode(), answer.headers["Set-Cookie"].partition(";")[0]
    fields = {"Host": "project.example:8080", "Origin": "http://project.example:8080"}
    client.request("POST", "/", "x", {**fields, "X-CSRFToken": token, "Cookie": cookie})
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (200, b"http://project.example:8080/")


@pytest.mark.parametrize("behind", ["nginx"], indirect=True)
def test_static_files_are_the_proxys(behind: Behind, short_path: Path) -> None:
    (short_path / "site.css").write_text("body { }")
    port, _ = behind("web", static=short_path)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    client.request("GET", "/static/site.css")
    assert client.getresponse().read() == b"body { }"
    client.request("GET", "/environ")
    assert b"PATH_INFO=/environ" in client.getresponse().read()
