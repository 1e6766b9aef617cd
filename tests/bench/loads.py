"""What servers are put under, as a table.

A load is what wrk sends, what stands beside it, and how the server is to be run. `threads` asks for servers that work
on as many requests at a time; loads that ask for none run on each server's plain form.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    name: str
    title: str
    path: str = "/tiny"
    connections: int = 32
    body: int = 0
    """Bytes that each request posts; 0: GET."""
    close: bool = False
    """A new connection for each request."""
    threads: int = 1
    """Requests that the server must be able to work on at a time."""
    workers: int = 1
    beside: tuple[int, str] | None = None
    """(connections, path) of a second client that is not measured."""
    idle: int = 0
    """Connections that ask once and then stay open."""
    hostile: bool = False
    """Slow clients beside the measured ones: see hostile.py."""
    traffic: str = ""
    """Requests that differ from each other, and how: a name in wrk.lua."""
    application: str = "apps:application"
    packages: tuple[str, ...] = ()
    """What the application needs, beside the server."""
    asgi: bool = False
    """The application speaks that."""
    access_log: bool = False
    """With a record of each request, in a file."""


FAST = ("uvloop", "httptools")  # what makes the peers fast
ASGI = (
    Load("asgi-tiny", "ASGI: tiny answer", application="asgi_apps:application", asgi=True, packages=FAST),
    Load(
        "asgi-proxied",
        "ASGI: behind a proxy, as above",
        path="/any/1",
        traffic="proxied",
        application="asgi_apps:application",
        asgi=True,
        packages=FAST,
    ),
    Load(
        "asgi-single",
        "ASGI: tiny answer, one request after the other, as in a service that is not busy",
        connections=1,
        application="asgi_apps:application",
        asgi=True,
        packages=FAST,
    ),
    Load(
        "fastapi",
        "FastAPI: one route, as behind a proxy",
        path="/any/1",
        traffic="proxied",
        application="fastapi_hello:application",
        asgi=True,
        packages=("fastapi", *FAST),
    ),
    Load(
        "asgi-post",
        "ASGI: 64 kB posted and echoed, keep-alive",
        path="/echo",
        body=65536,
        application="asgi_apps:application",
        asgi=True,
        packages=FAST,
    ),
    Load(
        "asgi-pieces",
        "ASGI: 1 MB in pieces of 16 kB, 8 connections",
        path="/pieces",
        connections=8,
        application="asgi_apps:application",
        asgi=True,
        packages=FAST,
    ),
)

LOADS = (
    Load(
        "proxied",
        "behind a proxy: 12 fields, of which id, client, cookie, referrer and path differ each time",
        path="/any/1",
        traffic="proxied",
    ),
    Load(
        "browser",
        "40 browsers with cookies of 1 to 2 kB, a path of its own each time",
        path="/any/1",
        traffic="browser",
    ),
    Load("json", "200 bytes of JSON posted, others each time; 1 kB answered", path="/json", body=200, traffic="json"),
    Load(
        "flask",
        "Flask: one route, as behind a proxy",
        "/any/1",
        traffic="proxied",
        application="flask_hello:application",
        packages=("flask",),
    ),
    Load(
        "django",
        "Django: one route, as behind a proxy",
        "/any/1",
        traffic="proxied",
        application="django_hello:application",
        packages=("django",),
    ),
    Load("logged", "tiny answer, with an access log in a file", access_log=True),
    Load("tiny", "tiny answer, 32 keep-alive connections"),
    Load("single", "tiny answer, one request after the other, as in a service that is not busy", connections=1),
    Load("close", "tiny answer, a new connection for each request", close=True),
    Load("ten", "10 kB answer, keep-alive", path="/ten"),
    Load("post", "64 kB posted and echoed, keep-alive", path="/echo", body=65536),
    Load("sleep", "application sleeps 50 ms, 16 threads, 32 connections (ideal: 320/s)", path="/sleep50", threads=16),
    Load(
        "beside",
        "tiny answers to 4 connections, beside 12 on requests of 500 ms; 16 threads",
        connections=4,
        threads=16,
        beside=(12, "/sleep500"),
    ),
    Load("idle", "tiny answer, 16 keep-alive connections beside 1,000 idle ones", connections=16, idle=1000),
    Load("healthy", "tiny answer, 8 keep-alive connections", connections=8),
    Load(
        "hostile",
        "the same beside 8 half-open requests, 500 clients that send a byte a second and 500 that never read",
        connections=8,
        hostile=True,
    ),
    *ASGI,
    Load("workers-2", "tiny answer, keep-alive, 2 workers", workers=2),
    Load("workers-4", "tiny answer, keep-alive, 4 workers", workers=4),
)
