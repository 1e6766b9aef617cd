"""Settings of ASGI: the event loop, lifespan, WebSockets, and what becomes of streams when a worker leaves.

They say nothing to a worker that serves WSGI, so one configuration does for both. Part of the schema; see schema.py for
how to add one.
"""

from __future__ import annotations

from sdserve.config import convert
from sdserve.config.setting import Setting, count, seconds, size


def _mount(value: object) -> str:
    """A path without the slash at its end; "" and "/" mean that nothing is mounted anywhere."""
    path = convert.text(value).rstrip("/")
    if path and not path.startswith("/"):
        raise ValueError(f"{convert.show(value)} is not a path such as /api")
    return path


class ASGI:
    asgi_loop = Setting(
        convert.choice("auto", "uvloop", "asyncio"),
        "auto",
        """The event loop of a worker that serves ASGI: uvloop, asyncio, or auto, which is uvloop where it is installed.
        `pip install 'sdserve[asgi]'` installs it.""",
        metavar="NAME",
    )
    asgi_lifespan = Setting(
        convert.choice("auto", "on", "off", also={True: "on", False: "off"}),
        "auto",
        """Whether the application is told that its worker starts and ends (lifespan.startup, lifespan.shutdown): on,
        off, or auto, which serves applications that do not know these events as well. One that says startup.failed
        fails the boot in either case.""",
        metavar="MODE",
    )
    lifespan_shutdown_timeout = seconds(
        5,
        """Seconds that the application has for lifespan.shutdown when its worker leaves, of graceful_timeout, or of
        orphan_timeout where the master has died. Half of these is the requests' at least; what they do not need the
        shutdown may have as well, up to this setting. 0 means all that is left.""",
    )
    root_path = Setting(
        _mount,
        "",
        """The path at which a proxy mounts an ASGI application, such as /api: the scope's root_path, and the beginning
        of its path, where it is put if the proxy has taken it away.""",
        metavar="PATH",
    )
    asgi_sendfile = Setting(
        convert.boolean,
        False,
        """Offer http.response.pathsend and http.response.zerocopysend: files of applications that use them, as those of
        Starlette and FastAPI do, go by sendfile(2). Only for applications all of whose middleware knows these messages:
        what compresses, collects or changes bodies does not see them.""",
        "",
    )
    limit_concurrency = count(
        0,
        """Requests and WebSockets that a worker calls an ASGI application for at the same time. Others get 503 with
        Retry-After. Idle connections do not count. 0 means no limit.""",
    )
    asgi_disconnect_grace_period = seconds(
        0,
        """Seconds after which an ASGI call is cancelled when its client has gone. The application hears of that at once
        (http.disconnect), and may finish what it does. 0 means never, where gunicorn's 0 cancels at once; gunicorn's
        default is 3.""",
    )
    stream_grace = Setting[float | None](
        convert.seconds,
        None,
        """Seconds that a worker which leaves lets WebSockets and streamed responses go on. Then WebSockets are closed
        with code 1012 (service restart), so that clients come back to the next worker, and the connections of streams
        are closed; the application hears http.disconnect. 0 is at once. Responses of a known length are finished in any
        case, until graceful_timeout ends.""",
        metavar="SECONDS",
        default_doc="until shortly before graceful_timeout ends",
    )
    websocket_max_message_size = size(
        16 << 20,
        "Bytes of a WebSocket message, after inflation. A longer one ends with code 1009. 0 means no limit.",
    )
    websocket_max_queue = count(
        32,
        """WebSocket messages that wait for the application; with more of them, or more than 1 MiB, nothing is read from
        that client until it has received some.""",
        minimum=1,
    )
    websocket_ping_interval = seconds(
        20,
        "Seconds between two pings of a WebSocket from which nothing comes. 0 means no pings.",
    )
    websocket_ping_timeout = seconds(
        20,
        """Seconds after a ping within which something must come from a WebSocket's client, or it is taken for gone. 0
        means that it never is.""",
    )
    websocket_compression = Setting(
        convert.boolean,
        True,
        "Compress WebSocket messages for clients that offer it (permessage-deflate). It takes memory for each of them.",
        "",
    )
