"""statsd hears of each request what gunicorn tells it, from WSGI and from ASGI, over UDP and a Unix socket.

Nobody waits for it: what it does not read is lost, and no request is.
"""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.load import until_closed
from tests.support.server import Server, answer
from tests.support.statsd import Figure, Statsd
from tests.support.waiting import eventually

Start = Callable[..., Server]

APP = """
import logging

logger = logging.getLogger("gunicorn.error")

def say(path):
    if path == "/basket":
        logger.info("", extra={"metric": "basket", "value": 3, "mtype": "gauge"})
    elif path == "/raises":
        raise RuntimeError("on purpose")

def wsgi(environ, start_response):
    say(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        say(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""
HOSTILE = "/a:1%7Cc%0Aforged:1%7Cc?forged:1|c"
NO_HOST = "a" * 64  # too long for a name: no server is asked


def configure(place: Path, **settings: object) -> None:
    lines = [f"{name} = {value!r}" for name, value in {"bind": f"unix:{place}/s", **settings}.items()]
    (place / "sdserve.conf.py").write_text("\n".join(lines))


def of(figures: list[Figure], name: str) -> list[tuple[float, str, tuple[str, ...]]]:
    return [figure[1:] for figure in figures if figure.name == name]


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_statsd_hears_what_gunicorn_tells_it(start: Start, short_path: Path, kind: str) -> None:
    (short_path / "app.py").write_text(APP)
    address, path = f"{short_path}/s", short_path / "dsd"
    first, second = Statsd(path if kind == "asgi" else None), Statsd(None if kind == "asgi" else path)
    tagged = {"statsd_prefix": "shop", "dogstatsd_tags": "env:live,web", "enable_backlog_metric": True}
    configure(short_path, statsd_host=first.address, **tagged)
    server = start(f"app:{kind}", cwd=short_path, env={"SDSERVE_LOGLEVEL": "info"}).wait_ready()

    for target in ("/", HOSTILE, "/basket", "/raises"):
        assert answer(address, target).status == (500 if target == "/raises" else 200)
        first.hear()  # the kernel keeps ten datagrams for a Unix socket
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)
        client.sendall(b"GET /%s HTTP/1.1\r\nbad header\r\n\r\n" % HOSTILE.encode())
        assert until_closed(client).startswith(b"HTTP/1.1 400 ")
    assert first.wait("shop.gunicorn.requests", 5) == {
        "shop.gunicorn.requests": 5,
        "shop.gunicorn.request.duration": 5,
        "shop.gunicorn.request.status.200": 3,
        "shop.gunicorn.request.status.400": 1,
        "shop.gunicorn.request.status.500": 1,
        "shop.gunicorn.log.exception": 1,
    }
    figures = first.hear()
    assert {figure.tags for figure in figures} == {("env:live", "web")}
    assert of(figures, "shop.basket") == [(3, "g", ("env:live", "web"))]
    assert (1, "g", ("env:live", "web")) in of(figures, "shop.gunicorn.workers")
    assert (0, "h", ("env:live", "web")) in of(figures, "shop.gunicorn.backlog")
    assert "basket" not in server.log, "a record without a text"

    configure(short_path, statsd_host=f"{NO_HOST}:8125", statsd_prefix="lost")
    server.kill(signal.SIGHUP)
    server.wait_log(f"Reload failed, the old workers serve on: statsd_host: {NO_HOST} cannot be resolved")
    assert answer(address).status == 200
    first.wait("shop.gunicorn.requests", 6)

    configure(short_path, statsd_host=second.address, statsd_prefix="shop.v2.")
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded: ")
    eventually(lambda: of(second.hear(), "shop.v2.gunicorn.workers"))
    assert answer(address).status == 200
    assert second.wait("shop.v2.gunicorn.requests", 1)["shop.v2.gunicorn.request.status.200"] == 1
    assert {figure.tags for figure in second.hear()} == {()}

    second.close()  # the second one dies, or does not read any more
    mark = server.mark
    assert [answer(address).status for _ in range(5)] == [200] * 5
    server.wait_log("statsd at .*: figures are lost until it can be reached: Connection refused", since=mark)
    assert server.log.count("figures are lost") <= 2, "by worker and master, once each"


def test_one_that_does_not_read_costs_no_request(start: Start, short_path: Path) -> None:
    (short_path / "app.py").write_text(APP)
    silent = Statsd(short_path / "dsd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
        other.setblocking(False)
        while True:
            other.sendto(b"full:1|c", str(short_path / "dsd"))
    configure(short_path, statsd_host=silent.address, accesslog="-")
    server = start("app:wsgi", cwd=short_path).wait_ready()
    assert [answer(f"{short_path}/s").status for _ in range(5)] == [200] * 5
    server.wait_log("statsd at .*: figures are lost until it can be reached: it does not read")
    eventually(lambda: server.log.count('"GET / HTTP/1.1" 200') == 5, "written behind the figures of the same turn")
    assert set(silent.counts()) == {"full"}
    assert answer(f"{short_path}/s").status == 200
    assert silent.wait("gunicorn.requests", 1)["gunicorn.request.status.200"] == 1
