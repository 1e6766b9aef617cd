"""Starlette, FastAPI, Django and Channels, served for real: routes, uploads, streams, files, events, a chat, and
clients that leave."""

import hashlib
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.corners import LOOPS
from tests.support.server import APPS, Server, free_port
from tests.support.waiting import eventually
from tests.support.wire import Wire, get

DATA = bytes(range(256)) * 4096
NUMBERS = "".join(f"{number}\n" for number in range(1000))


class Site:
    """A server of a framework's application, and a client of it."""

    def __init__(self, server: Server, port: int, client: httpx.Client) -> None:
        self.server, self.client, self.address = server, client, ("127.0.0.1", port)

    def socket(self, path: str) -> ClientConnection:
        return connect("ws://{}:{}{}".format(*self.address, path), subprotocols=[Subprotocol("chat")], open_timeout=20)

    def wait_seen(self, what: str) -> None:
        eventually(lambda: what in self.client.get("/seen").json(), what)


@contextmanager
def site(app: str, loop: str, *args: str) -> Iterator[Site]:
    port = free_port()
    with Server("-b", f"127.0.0.1:{port}", "--asgi-loop", loop, "--log-level", "debug", *args, app) as server:
        server.wait_ready()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield Site(server, port, client)


@pytest.fixture(scope="module", params=LOOPS)
def starlette(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site("asgi_starlette", request.param) as found:
        yield found


@pytest.fixture(scope="module", params=LOOPS)
def django(request: pytest.FixtureRequest) -> Iterator[Site]:
    with site("asgi_django", request.param) as found:
        yield found


def test_starlettes_routes(starlette: Site) -> None:
    client = starlette.client
    assert client.get("/").text == "hello"
    assert client.get("/items/5").json() == {"number": 5, "url": str(client.base_url.join("/items/7"))}
    assert (client.get("/items/x").status_code, client.post("/").status_code) == (404, 405)
    assert client.get("/state").text == "of lifespan"
    assert client.head("/").headers["Content-Length"] == "5"


def test_its_uploads(starlette: Site) -> None:
    found = starlette.client.post("/upload", data={"name": "é"}, files={"file": ("a.bin", DATA)})
    assert found.json() == ["é", "a.bin", hashlib.sha256(DATA).hexdigest()]
    assert starlette.client.post("/raw", content=DATA).text == str(len(DATA))
    assert starlette.client.post("/raw", content=iter([DATA, b"x"])).text == str(len(DATA) + 1)


def test_its_streams(starlette: Site) -> None:
    assert starlette.client.get("/stream").text == NUMBERS
    found = starlette.client.get("/wrapped/stream")
    assert (found.text, found.headers["X-Signed"], found.headers["Content-Encoding"]) == (NUMBERS, "yes", "gzip")


def test_its_files(starlette: Site) -> None:
    client, whole = starlette.client, bytes(range(256)) * 8192
    found = client.get("/file")
    assert (found.content, found.headers["Content-Length"]) == (whole, str(len(whole)))
    assert client.head("/file").headers["Content-Length"] == str(len(whole))
    part = client.get("/file", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole[10:20])
    several = client.get("/file", headers={"Range": "bytes=0-1,5-6"})
    assert (several.status_code, several.content.count(b"Content-Range")) == (206, 2)
    static = client.get("/static/asgi_starlette.py")
    assert static.content == (APPS / "asgi_starlette.py").read_bytes()
    again = client.get("/static/asgi_starlette.py", headers={"If-None-Match": static.headers["ETag"]})
    assert (again.status_code, again.content, client.get("/static/none").status_code) == (304, b"", 404)


def test_its_files_are_compressed_by_its_middleware(starlette: Site) -> None:
    found = starlette.client.get("/wrapped/file")
    assert found.content == bytes(range(256)) * 8192
    assert (found.headers["Content-Encoding"], found.headers["Vary"]) == ("gzip", "Accept-Encoding")


def test_its_files_pass_middleware_that_knows_bodies_alone(starlette: Site) -> None:
    found = starlette.client.get("/collected/file")
    assert (found.status_code, found.content) == (200, bytes(range(256)) * 8192)


def test_with_sendfile_its_files_are_left_to_the_server() -> None:
    """Which shows: middleware that compresses bodies sees none, and one that waits for them waits in vain."""
    with site("asgi_starlette", "auto", "--asgi-sendfile") as found:
        test_its_files(found)
        passed = found.client.get("/wrapped/file")
        assert (passed.content, "Content-Encoding" in passed.headers) == (bytes(range(256)) * 8192, False)
        assert found.client.get("/collected/file").status_code == 500


def test_its_events_and_background_tasks(starlette: Site) -> None:
    found = starlette.client.get("/events")
    assert found.headers["Content-Type"].startswith("text/event-stream")
    assert re.findall(r"data: (\d)", found.text) == ["1", "2"]
    assert starlette.client.get("/background").text == "at once"
    starlette.wait_seen("background is over")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/events?more", "events are over"),
        ("/endless", "endless is over"),
        ("/wrapped/endless", "endless is over"),
    ],
)
def test_its_streams_end_with_their_clients(starlette: Site, path: str, told: str) -> None:
    mark, before = starlette.server.mark, starlette.client.get("/seen").json().count(told)
    with Wire(starlette.address, get(path)) as wire:
        wire.head()
    eventually(lambda: starlette.client.get("/seen").json().count(told) > before, told)
    assert not re.search(r"Traceback|\[ERROR\]", starlette.server.log[mark:]), starlette.server.log[mark:]


@pytest.mark.parametrize("path", ["/upload", "/raw", "/api/items", "/api/files"])
def test_uploads_that_are_broken_off_are_no_errors(starlette: Site, path: str) -> None:
    mark = starlette.server.mark
    head = get(path, "Content-Length: 1000000", "Content-Type: multipart/form-data; boundary=x", method="POST")
    with Wire(starlette.address, head + b"--x\r\n"):
        pass
    starlette.server.wait_log(f"POST {path}: the client went away", since=mark)
    assert not re.search(r"\[ERROR\]", starlette.server.log[mark:]), starlette.server.log[mark:]
    assert starlette.client.get("/").text == "hello"


def test_a_route_that_fails_is_a_500(starlette: Site) -> None:
    mark = starlette.server.mark
    assert starlette.client.get("/fails").status_code == 500
    starlette.server.wait_log("Error handling request GET /fails", since=mark)
    assert starlette.client.get("/").text == "hello"


def test_fastapi(starlette: Site) -> None:
    client = starlette.client
    found = client.post("/api/items", json={"name": "a", "price": 1.5})
    assert found.json() == {"name": "a", "twice": 3.0, "of": "session"}
    starlette.wait_seen("task is over")
    starlette.wait_seen("session ends")
    assert client.post("/api/items", json={"name": "a"}).status_code == 422
    assert client.get("/api/sync/5").json() == {"number": 5}
    several = [("several", ("a", DATA)), ("several", ("b", b"x"))]
    assert client.post("/api/files", files=several).json() == [len(DATA), 1]
    assert "/items" in client.get("/api/openapi.json").json()["paths"]


@pytest.mark.parametrize("loop", LOOPS)
def test_lifespan_begins_and_ends(loop: str) -> None:
    with site("asgi_starlette", loop, "--stream-grace", "0") as found:
        assert found.client.get("/state").text == "of lifespan"
        with Wire(found.address, get("/events?more")) as wire:
            wire.head()
            found.server.kill(signal.SIGTERM)
            assert found.server.wait() == 0
        log = found.server.log
        assert log.index("lifespan begins") < log.index("lifespan ends")
        assert not re.search(r"Traceback|\[ERROR\]", log), log


def test_djangos_views(django: Site) -> None:
    client = django.client
    assert client.get("/").text == "hello"
    assert client.get("/hello/%C3%A9%20").text == "helloé "
    assert client.get("/sync?a=1").json() == {"path": "/sync", "scheme": "http", "query": {"a": "1"}}
    assert client.get("/none").status_code == 404
    assert client.get("/file").content == (APPS / "asgi_django.py").read_bytes()
    assert client.get("/fails").status_code == 500


def test_its_uploads_and_streams(django: Site) -> None:
    found = django.client.post("/upload", data={"name": "é"}, files={"file": ("a.bin", DATA)})
    assert found.json() == ["é", "a.bin", hashlib.sha256(DATA).hexdigest()]
    assert django.client.get("/stream").text == NUMBERS


def test_its_clients_that_leave_are_no_errors(django: Site) -> None:
    mark, before = django.server.mark, django.client.get("/seen").json().count("stream is over")
    with Wire(django.address, get("/stream?more")) as wire:
        wire.head()
    eventually(lambda: django.client.get("/seen").json().count("stream is over") > before, "it is over")
    head = get("/upload", "Content-Length: 1000000", "Content-Type: multipart/form-data; boundary=x", method="POST")
    with Wire(django.address, head + b"--x\r\n"):
        pass
    assert django.client.get("/").text == "hello"
    assert not re.search(r"Traceback|\[ERROR\]", django.server.log[mark:]), django.server.log[mark:]


def test_a_chat_by_channels(django: Site) -> None:
    mark = django.server.mark
    with ExitStack() as stack:
        kitchen = [stack.enter_context(django.socket("/chat/kitchen")) for _ in range(3)]
        hall = stack.enter_context(django.socket("/chat/hall"))
        assert {each.subprotocol for each in kitchen} == {"chat"}
        hall.send('"who is there?"')
        kitchen[0].send('"dinner is ready"')
        assert [each.recv(timeout=20) for each in kitchen] == ['"dinner is ready"'] * 3
        assert hall.recv(timeout=20) == '"who is there?"'
        kitchen[1].close(3000)
        django.wait_seen("left kitchen with 3000")
        kitchen[2].send('"coming"')
        assert [kitchen[at].recv(timeout=20) for at in (0, 2)] == ['"coming"'] * 2
    django.wait_seen("left hall with 1000")
    with django.socket("/guarded?token") as guarded:
        assert guarded.recv(timeout=20) == "welcome"
        with pytest.raises(ConnectionClosed) as closed:
            guarded.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 3001
    with pytest.raises(InvalidStatus) as denied:
        django.socket("/guarded")
    assert denied.value.response.status_code == 403
    assert not re.search(r"Traceback|\[ERROR\]", django.server.log[mark:]), django.server.log[mark:]
