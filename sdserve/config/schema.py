"""Every setting, declared once as data; command line, environment, config file and documentation follow from it.

Those of HTTP and proxies stand in schema_http.py, those of processes and logs in schema_process.py, hooks in hooks.py.
A section is a class, a setting an attribute of it; its type is what its converter returns. To add one, put a `Setting`
where the documentation should show it, and write that anew: `python -m sdserve.config.render docs` and `... man`.
Names, flags, types and defaults are gunicorn's wherever gunicorn has the setting.
"""

from __future__ import annotations

from sdserve.config import convert
from sdserve.config.address import binds
from sdserve.config.hooks import Hooks
from sdserve.config.schema_http import HTTP, Proxies
from sdserve.config.schema_process import Logging, Process, Service
from sdserve.config.setting import COMMAND_ARGS, Setting

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
        flags=("-c", "--config"),
        metavar="FILE",
        default_doc="./sdserve.conf.py or ./gunicorn.conf.py",
        effect="start",
        in_file=False,
    )
    wsgi_app = Setting(
        convert.optional_text,
        None,
        """The application, as module:callable or module:factory(arguments). The positional argument of the command
        line is the same.""",
        metavar="APP",
    )
    check_config = Setting(
        convert.boolean,
        False,
        "Check the configuration, import the application, and exit: 0 if both are good.",
        flags=("--check-config",),
        effect="start",
    )
    print_config = Setting(
        convert.boolean,
        False,
        "Print every setting with its value and where it comes from, and exit.",
        flags=("--print-config",),
        effect="start",
    )


class Sockets:
    bind = Setting(
        binds,
        ["127.0.0.1:8000"],
        """Where to listen: host:port, host, :port, [v6]:port, unix:/path, unix:@abstract, or fd://N for an inherited
        descriptor. The default port is 8000. Under socket activation systemd's sockets are served instead.""",
        flags=("-b", "--bind"),
        metavar="ADDRESS",
        repeatable=True,
        split=convert.split_commas,
        fallback=("PORT", lambda port: f"0.0.0.0:{port}"),
        default_doc="127.0.0.1:8000, or 0.0.0.0:$PORT where PORT is set",
    )
    backlog = Setting(
        convert.whole(0, 2**31 - 1),
        2048,
        """Connections that may wait to be accepted on each socket. The kernel caps it at net.core.somaxconn; sockets
        of systemd have their unit's Backlog=.""",
        flags=("--backlog",),
        metavar="N",
        effect="start",
    )
    reuse_port = Setting(
        convert.boolean,
        False,
        "Set SO_REUSEPORT on TCP sockets, so that another server may bind the same port.",
        flags=("--reuse-port",),
        effect="start",
    )
    socket_mode = Setting(
        convert.file_mode,
        0o600,
        """Permissions of the Unix sockets that sdserve makes, in octal. A proxy of another user needs 0660 and a
        common group, or 0666. Sockets of systemd have their unit's SocketMode=.""",
        flags=("--socket-mode",),
        metavar="MODE",
        effect="start",
        default_doc="0600",
    )


class Workers:
    workers = Setting(
        convert.whole(0, 10_000),
        1,
        "The number of worker processes. TTIN and TTOU change it while the server runs.",
        flags=("-w", "--workers"),
        metavar="N",
        fallback=("WEB_CONCURRENCY", lambda count: count),
        default_doc="1, or $WEB_CONCURRENCY where it is set",
    )
    worker_class = Setting(
        convert.worker_class,
        "wsgi",
        """The kind of worker: wsgi, the name of an entry point of the group sdserve.workers, or the dotted path of a
        class. gunicorn's sync and gthread mean wsgi.""",
        flags=("-k", "--worker-class"),
        metavar="CLASS",
    )
    threads = Setting(
        convert.whole(1, 10_000),
        1,
        "Requests that one worker can be busy with at the same time.",
        flags=("--threads",),
        metavar="N",
    )
    timeout = Setting(
        convert.seconds,
        30,
        """Seconds that one request may take; with threads, an answer that has begun may take so long for each piece.
        One that exceeds it is named in the log with its stack, and its worker is replaced. 0 means no limit.""",
        flags=("-t", "--timeout"),
        metavar="SECONDS",
    )
    graceful_timeout = Setting(
        convert.seconds,
        30,
        """Seconds that a retiring worker, or a stopping server, has to finish the requests in progress. The log names
        those that have not ended by then.""",
        flags=("--graceful-timeout",),
        metavar="SECONDS",
    )
    orphan_timeout = Setting(
        convert.seconds,
        5,
        """Seconds that workers have to finish the requests in progress when their master has died. No new connection is
        answered until the last of them has left and systemd starts the next master: a longer time saves more of the
        requests in progress, a shorter one ends the pause sooner. The unit's WatchdogSec=,
        which ends what is left, should be longer by a few seconds.""",
        flags=("--orphan-timeout",),
        metavar="SECONDS",
    )
    boot_timeout = Setting(
        convert.seconds,
        120,
        "Seconds that a worker may take from its fork until it can serve. 0 means no limit.",
        flags=("--boot-timeout",),
        metavar="SECONDS",
    )
    warmup = Setting(
        convert.each(convert.request_target),
        [],
        """Requests that each new worker answers to itself before it counts as serving: paths such as /health, or URLs
        where the application looks at the host or the scheme. An answer of 500 or above fails the boot, and with it a
        start or a reload. boot_timeout bounds it.""",
        flags=("--warmup",),
        metavar="PATH",
        repeatable=True,
        split=convert.split_commas,
    )
    max_requests = Setting(
        convert.whole(),
        0,
        "Requests after which a worker is replaced; the replacement is ready before it retires. 0 means never.",
        flags=("--max-requests",),
        metavar="N",
    )
    max_requests_jitter = Setting(
        convert.whole(),
        0,
        "The most that is added to max_requests at random for each worker, so that they are not replaced in step.",
        flags=("--max-requests-jitter",),
        metavar="N",
    )
    max_memory = Setting(
        convert.size,
        0,
        """Replace a worker that holds more than this many bytes of memory: its proportional share (PSS) where pages are
        shared. The replacement serves before the worn worker retires. 0 means no limit.""",
        flags=("--max-memory",),
        metavar="BYTES",
    )
    max_age = Setting(
        convert.seconds,
        0,
        """Replace a worker that has served for this many seconds, up to a tenth more at random. The replacement serves
        before the worn worker retires. 0 means no limit.""",
        flags=("--max-age",),
        metavar="SECONDS",
    )
    reload_strategy = Setting(
        convert.choice("all", "rolling"),
        "all",
        """How a reload replaces workers. `all`: a whole new generation boots, then the old one retires; `rolling`: one
        worker after the other, which needs less memory, while old and new code serve side by side.""",
        flags=("--reload-strategy",),
        metavar="NAME",
    )
    surge = Setting(
        convert.whole(),
        1,
        """How many workers more than wanted may be alive during a rolling reload. 0: the old worker leaves before the
        new one boots, one at a time, at each reload of either strategy and when a worker is worn. That is for
        applications that hold an exclusive lock; with one worker, clients wait meanwhile.""",
        flags=("--surge",),
        metavar="N",
    )
    idle_exit = Setting(
        convert.seconds,
        0,
        """Exit after this many seconds without a request, and leave the socket to systemd, whose next connection starts
        the service again. Needs socket activation. 0 means never.""",
        flags=("--idle-exit",),
        metavar="SECONDS",
        effect="upgrade",
    )
    preload_app = Setting(
        convert.boolean,
        False,
        "Import the application in the master before workers are forked: they start faster and share its memory.",
        flags=("--preload",),
    )
    gpus = Setting(
        convert.gpu_list,
        [],
        """GPUs to spread the workers over, such as 0,1: each worker's CUDA_VISIBLE_DEVICES names one of them, and no
        GPU has more than its share. Empty means that CUDA_VISIBLE_DEVICES is left alone.""",
        flags=("--gpus",),
        metavar="LIST",
        aliases=("USE_GPUS",),
    )


class Settings(Configuration, Sockets, Workers, HTTP, Proxies, Process, Service, Logging, Hooks):
    """All of them: what a loaded configuration has as attributes, with their types."""


SETTINGS: dict[str, Setting[Any]] = {
    name: setting
    for section in Settings.__bases__
    for name, setting in vars(section).items()
    if isinstance(setting, Setting)
}
