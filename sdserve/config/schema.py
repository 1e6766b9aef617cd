"""Every setting, declared once as data; command line, environment, config file and documentation follow from it.

Those of HTTP and proxies stand in schema_http.py, those of ASGI in schema_asgi.py, those of processes and logs in
schema_process.py, those of metrics in schema_ops.py, hooks in hooks.py.
A section is a class, a setting an attribute of it; its type is what its converter returns. To add one, put a `Setting`
where the documentation should show it, and run `python docs/generate.py`.
Names, flags, types and defaults are gunicorn's wherever gunicorn has the setting.
"""

from __future__ import annotations

from sdserve.config import convert
from sdserve.config.address import binds
from sdserve.config.hooks import Hooks
from sdserve.config.schema_asgi import ASGI
from sdserve.config.schema_http import HTTP, Proxies
from sdserve.config.schema_ops import Observed
from sdserve.config.schema_process import Logging, Process, Service
from sdserve.config.setting import COMMAND_ARGS, Setting, count, seconds, size, switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Environment variables with our prefix that are not settings; any other is refused as a misspelt setting.
RESERVED_ENVIRONMENT = frozenset({COMMAND_ARGS})


class Configuration:
    config = Setting[str | None](
        convert.text,
        None,
        """The config file, a Python file: PATH, file:PATH, or python:MODULE for an importable module. Without it
        ./sdserve.conf.py or else ./gunicorn.conf.py is read if there is one; the empty string means no file.""",
        short="-c",
        metavar="FILE",
        default_doc="./sdserve.conf.py or ./gunicorn.conf.py",
        effect="start",
        in_file=False,
    )
    wsgi_app = Setting(
        convert.optional_text,
        None,
        """The application, WSGI or ASGI, as module:callable or module:factory(arguments). The positional argument of
        the command line is the same.""",
    )
    check_config = switch(
        "Check the configuration, import the application, and exit: 0 if both are good.", effect="start"
    )
    print_config = switch("Print every setting with its value and where it comes from, and exit.", effect="start")


class Sockets:
    bind = Setting(
        binds,
        ["127.0.0.1:8000"],
        """Where to listen: host:port, host, :port, [v6]:port, unix:/path, unix:@abstract, or fd://N for an inherited
        descriptor. The default port is 8000. Under socket activation systemd's sockets are served instead.""",
        short="-b",
        metavar="ADDRESS",
        repeatable=True,
        split=convert.split_commas,
        fallback=("PORT", lambda port: f"0.0.0.0:{port}"),
        default_doc="127.0.0.1:8000, or 0.0.0.0:$PORT where PORT is set",
    )
    backlog = count(
        2048,
        """Connections that may wait to be accepted on each socket. The kernel caps it at net.core.somaxconn; sockets
        of systemd have their unit's Backlog=.""",
        maximum=2**31 - 1,
        effect="start",
    )
    reuse_port = switch(
        "Set SO_REUSEPORT on TCP sockets, so that another server may bind the same port.", effect="start"
    )
    socket_mode = Setting(
        convert.file_mode,
        0o600,
        """Permissions of the Unix sockets that sdserve makes, in octal. A proxy of another user needs 0660 and a
        common group, or 0666. Sockets of systemd have their unit's SocketMode=.""",
        metavar="MODE",
        effect="start",
        default_doc="0600",
    )


class Workers:
    workers = count(
        1,
        "The number of worker processes. TTIN and TTOU change it while the server runs.",
        maximum=10_000,
        short="-w",
        fallback=("WEB_CONCURRENCY", lambda count: count),
        default_doc="1, or $WEB_CONCURRENCY where it is set",
    )
    worker_class = Setting(
        convert.worker_class,
        "auto",
        """The kind of worker: wsgi; asgi; auto, which is asgi for an async callable and wsgi for others; the name of an
        entry point of the group sdserve.workers; or the dotted path of a class. gunicorn's sync and gthread mean wsgi,
        uvicorn.workers.UvicornWorker means asgi.""",
        short="-k",
        metavar="CLASS",
    )
    threads = count(
        1,
        "Requests that one worker can be busy with at the same time. A worker that serves ASGI has one event loop.",
        minimum=1,
        maximum=10_000,
    )
    timeout = seconds(
        30,
        """Seconds that one request may take; with threads, an answer that has begun may take so long for each piece.
        One that exceeds it is named in the log with its stack, and its worker is replaced. For a worker that serves
        ASGI: seconds that its event loop may be blocked. A worker that does not poll while it is idle is replaced
        after twice as many seconds at most. 0 means no limit.""",
        short="-t",
    )
    graceful_timeout = seconds(
        30,
        """Seconds that a retiring worker, or a stopping server, has to finish the requests in progress. The log names
        those that have not ended by then.""",
    )
    orphan_timeout = seconds(
        5,
        """Seconds that workers have to finish the requests in progress when their master has died. No new connection is
        answered until the last of them has left and systemd starts the next master: a longer time saves more of the
        requests in progress, a shorter one ends the pause sooner. Where an ASGI application is told of its end, up to
        half of it is for that (lifespan_shutdown_timeout). The unit's WatchdogSec=, which ends what is left, should be
        longer by a few seconds.""",
    )
    boot_timeout = seconds(120, "Seconds that a worker may take from its fork until it can serve. 0 means no limit.")
    warmup = Setting(
        convert.each(convert.request_target),
        [],
        """Requests that each new worker answers to itself before it counts as serving: paths such as /health, or URLs
        where the application looks at the host or the scheme. An answer of 500 or above fails the boot, and with it a
        start or a reload. boot_timeout bounds it.""",
        metavar="PATH",
        repeatable=True,
        split=convert.split_commas,
    )
    max_requests = count(
        0, "Requests after which a worker is replaced; the replacement is ready before it retires. 0 means never."
    )
    max_requests_jitter = count(
        0, "The most that is added to max_requests at random for each worker, so that they are not replaced in step."
    )
    max_memory = size(
        0,
        """Replace a worker that holds more than this many bytes of memory: its proportional share (PSS) where pages are
        shared. The replacement serves before the worn worker retires. 0 means no limit.""",
    )
    max_age = seconds(
        0,
        """Replace a worker that has served for this many seconds, up to a tenth more at random. The replacement serves
        before the worn worker retires. 0 means no limit.""",
    )
    reload_strategy = Setting(
        convert.choice("all", "rolling"),
        "all",
        """How a reload replaces workers: all, when a whole new generation has booted, or rolling, one after the other.
        The latter needs less memory, while old and new code serve side by side.""",
        metavar="NAME",
    )
    surge = count(
        1,
        """How many workers more than wanted may be alive during a rolling reload. 0: the old worker leaves before the
        new one boots, one at a time, at each reload of either strategy and when a worker is worn. That is for
        applications that hold an exclusive lock; with one worker, clients wait meanwhile.""",
    )
    idle_exit = seconds(
        0,
        """Exit after this many seconds without a request, and leave the socket to systemd, whose next connection starts
        the service again. Needs socket activation. 0 means never.""",
        effect="upgrade",
    )
    preload_app = switch(
        "Import the application in the master before workers are forked: they start faster and share its memory.",
        flags=("--preload",),
    )
    gpus = Setting(
        convert.gpu_list,
        [],
        """GPUs to spread the workers over, such as 0,1: each worker's CUDA_VISIBLE_DEVICES names one of them, and no
        GPU has more than its share. Empty means that CUDA_VISIBLE_DEVICES is left alone.""",
        metavar="LIST",
        aliases=("USE_GPUS",),
    )


class Settings(Configuration, Sockets, Workers, HTTP, Proxies, ASGI, Process, Service, Observed, Logging, Hooks):
    """All of them: what a loaded configuration has as attributes, with their types."""


SETTINGS: dict[str, Setting[Any]] = {
    name: setting
    for section in Settings.__bases__
    for name, setting in vars(section).items()
    if isinstance(setting, Setting)
}
