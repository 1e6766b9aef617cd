"""What becomes of gunicorn's settings that sdserve does not have, and of names that are like no setting.

A configuration written for gunicorn must not lose a setting in silence. Where nothing is lost that an application or
its clients could miss, the setting is accepted, and one line says what it means here. Where something is, it is
refused, and the line names the way out. A value that asks for nothing (gunicorn's default, or empty) passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

_TLS = "end TLS in a proxy in front (nginx, haproxy, stunnel)"
_LOGGING = "configure handlers for the loggers sdserve.error and sdserve.access in the application"
_SYSLOG = "the journal takes the log under systemd and forwards it to syslog (journald.conf: ForwardToSyslog=)"
_RELOADER = "send HUP (`systemctl reload`) when code changes, for example from a systemd.path unit"
_STRICT = "requests are parsed strictly; let the proxy in front mend or refuse what is not HTTP/1.1"
_HTTP2 = "HTTP/2 ends in the proxy in front"
_DIRTY = "run long jobs in a task queue or a service of their own"
_PASTE = "name a module as the application in which `application = paste.deploy.loadapp('config:/path/x.ini')`"
_PEP = "requests come by HTTP: use proxy_pass instead of uwsgi_pass"

# name: (what it means here, gunicorn's default)
ACCEPTED: dict[str, tuple[str, object]] = {
    "worker_connections": ("a worker holds as many connections as LimitNOFILE= of the unit allows", 1000),
    "worker_tmp_dir": ("workers share memory with the master, no heartbeat is written to files", None),
    "tmp_upload_dir": ("bodies that are too large for memory go to the directory in the variable TMPDIR", None),
    "capture_output": ("what is printed goes to the standard streams, under systemd to the journal", False),
    "enable_stdio_inheritance": ("the standard streams are inherited; PYTHONUNBUFFERED=1 unbuffers them", False),
    "sendfile": (
        "files are sent by sendfile(2) wherever that is possible, for ASGI where `asgi_sendfile` offers it",
        None,
    ),
    "control_socket_disable": ("there is no control socket, and sdservectl does not find this server", False),
    "http_parser": ("there is one parser, httptools", "auto"),
    "debug": ("nothing, gunicorn dropped it as well; loglevel = 'debug' shows more", False),
}

_WITH_TLS = ("certfile", "keyfile")
_WITH_DIRTY = ("dirty_apps", "dirty_workers")

# What to do instead; settings whose values ask for nothing unless one of these is in force; gunicorn's defaults.
_WAYS_OUT: tuple[tuple[str, tuple[str, ...], dict[str, object]], ...] = (
    (_RELOADER, (), {"reload": False}),
    (_RELOADER, ("reload",), {"reload_engine": "auto", "reload_extra_files": ()}),
    ("use loglevel = 'trace', or a tracer of Python", (), {"spew": False}),
    (_LOGGING, (), {"logger_class": "gunicorn.glogging.Logger"}),
    (_LOGGING, (), dict.fromkeys(("logconfig", "logconfig_dict", "logconfig_json"))),
    (_SYSLOG, (), {"syslog": False}),
    (_SYSLOG, ("syslog",), {"syslog_addr": "udp://localhost:514", "syslog_prefix": None, "syslog_facility": "user"}),
    (_SYSLOG, ("syslog",), {"disable_redirect_access_to_syslog": False}),
    ("use proc_name", (), {"default_proc_name": "gunicorn"}),
    (_PASTE, (), {"paste": None}),
    (_PASTE, ("paste",), {"raw_paste_global_conf": ()}),
    (_TLS, (), {"keyfile": None, "certfile": None}),
    (_TLS, _WITH_TLS, {"ssl_context": None, "ssl_version": 2, "cert_reqs": 0, "ca_certs": None, "ciphers": None}),
    (_TLS, _WITH_TLS, {"suppress_ragged_eofs": True, "do_handshake_on_connect": False}),
    (_PEP, (), {"protocol": "http", "uwsgi_allow_ips": "127.0.0.1,::1"}),
    (_HTTP2, (), {"http_protocols": "h1", "http2_cleartext": "off", "http2_max_concurrent_streams": 100}),
    (_HTTP2, (), {"http2_initial_window_size": 65535, "http2_max_frame_size": 16384}),
    (_HTTP2, (), {"http2_max_header_list_size": 65536}),
    (_STRICT, (), dict.fromkeys(("permit_obsolete_folding", "strip_header_spaces", "casefold_http_method"), False)),
    (_STRICT, (), {"permit_unconventional_http_method": False, "permit_unconventional_http_version": False}),
    (_DIRTY, (), {"dirty_apps": (), "dirty_workers": 0, "dirty_timeout": 300}),
    (_DIRTY, (), {"dirty_threads": 1, "dirty_graceful_timeout": 30}),
    (_DIRTY, _WITH_DIRTY, dict.fromkeys(("on_dirty_starting", "dirty_post_fork"))),
    (_DIRTY, _WITH_DIRTY, dict.fromkeys(("dirty_worker_init", "dirty_worker_exit"))),
    ("only root and the user of the service may use the control socket", (), {"control_socket_mode": 0o600}),
)
# name: (what to do instead, gunicorn's default)
REFUSED = {name: (instead, default) for instead, _, defaults in _WAYS_OUT for name, default in defaults.items()}
MATTERS_WITH = {name: others for _, others, defaults in _WAYS_OUT if others for name in defaults}

# Flags whose name does not follow from the setting's, and short ones.
_FLAGS = {
    "-R": "enable_stdio_inheritance",
    "--reload-extra-file": "reload_extra_files",
    "--no-sendfile": "sendfile",
    "--log-config": "logconfig",
    "--log-config-json": "logconfig_json",
    "--log-syslog": "syslog",
    "--log-syslog-to": "syslog_addr",
    "--log-syslog-prefix": "syslog_prefix",
    "--log-syslog-facility": "syslog_facility",
    "--paster": "paste",
    "--paste-global": "raw_paste_global_conf",
    "--uwsgi-allow-from": "uwsgi_allow_ips",
    "--dirty-app": "dirty_apps",
    "--no-control-socket": "control_socket_disable",
}
_BARE = ("sendfile",)  # flags without a value, besides those whose default is a boolean

SYNC = frozenset(
    {"wsgi", "sync", "gthread", "gunicorn.workers.sync.SyncWorker", "gunicorn.workers.gthread.ThreadWorker"}
)
ASGI = frozenset(
    {
        *("asgi", "gunicorn.workers.gasgi.ASGIWorker"),
        *(
            f"{package}.Uvicorn{kind}Worker"
            for package in ("uvicorn.workers", "uvicorn_worker")
            for kind in ("", "H11")
        ),
    }
)
GREENLETS = frozenset(
    {
        *("gevent", "gevent_wsgi", "gevent_pywsgi", "eventlet", "tornado"),
        *(f"gunicorn.workers.ggevent.Gevent{kind}Worker" for kind in ("", "Base", "PyWSGI")),
        *("gunicorn.workers.geventlet.EventletWorker", "gunicorn.workers.gtornado.TornadoWorker"),
    }
)
# Threads of a worker that stands in for one with greenlets: a thread costs more memory than a greenlet, and what most
# such services have in common is some tens of requests that wait at the same time.
GREENLET_THREADS = 64
_ASGI_PACKAGES = ("uvicorn", "uvicorn_worker", "sanic", "hypercorn", "daphne", "granian")


CLOSE = 0.8  # likeness from which on a name counts as another one misspelt


def is_foreign(name: str) -> bool:
    """Whether gunicorn has a setting of this name, and sdserve has not."""
    return name in ACCEPTED or name in REFUSED


def default_of(name: str) -> object:
    """gunicorn's default of a setting that sdserve does not have."""
    return (ACCEPTED.get(name) or REFUSED[name])[1]


def asks_for_nothing(name: str, value: object) -> bool:
    """Whether the value of a setting that sdserve does not have changes nothing in gunicorn either."""
    default = default_of(name)
    if value is None or value == default or str(value).strip().lower() == str(default).lower():
        return True
    return not value and not default and name not in _BARE


def foreign(values: Mapping[str, object], say: Callable[[str, str], str]) -> tuple[list[str], list[str]]:
    """(problems, warnings) of settings that sdserve does not have; `say(name, clause)` makes a line of a clause."""
    asking = {name: value for name, value in values.items() if not asks_for_nothing(name, value)}
    problems, warnings = [], []
    for name in asking:
        if name in MATTERS_WITH and asking.keys().isdisjoint(MATTERS_WITH[name]):
            continue
        if name in ACCEPTED:
            warnings.append(say(name, f"means here: {ACCEPTED[name][0]}"))
        else:
            problems.append(say(name, f"has no counterpart in sdserve: {REFUSED[name][0]}"))
    return problems, warnings


def foreign_flag(flag: str) -> tuple[str, object] | None:
    """(setting, value) of a flag of gunicorn's that sdserve does not have; the value is None when one follows."""
    name = _FLAGS.get(flag) or flag.removeprefix("--").replace("-", "_")
    if not flag.startswith("-") or not is_foreign(name):
        return None
    if name in _BARE:
        return name, False
    return name, True if isinstance(default_of(name), bool) else None


def worker_class_of(configured: str) -> str:
    """The worker class that serves what gunicorn's class of this name would; any other name as it is."""
    name = configured.removeprefix("egg:gunicorn#")
    if name in ASGI:
        return "asgi"
    return "wsgi" if name in SYNC or name in GREENLETS else configured


def instead_of_class(name: str) -> str:
    """What to do about a worker class of another server's, as the end of a sentence; "" when it is not known."""
    package = name.partition(".")[0]
    if package in _ASGI_PACKAGES:
        return "use worker_class = 'asgi'"
    if package in ("aiohttp", "gaiohttp"):
        return "applications of aiohttp speak neither ASGI nor WSGI, and are served by aiohttp itself"
    if package == "geventwebsocket":
        return (
            "use worker_class = 'wsgi' with threads, and simple-websocket (Flask-Sock, Flask-SocketIO) for WebSockets"
        )
    if package in ("gunicorn", "meinheld"):
        return "use worker_class = 'wsgi', with threads if need be"
    return ""


def nearest(name: str, known: Iterable[str], cutoff: float = CLOSE) -> str | None:
    """The known name most like `name`, if any is alike enough."""
    close, best = max(((likeness(each, name), each) for each in known), default=(0.0, ""))
    return best if close >= cutoff else None


def likeness(one: str, other: str) -> float:
    """From 0 to 1, the share of letters that stand in both in the same order: difflib's ratio of two short words.

    A master whose configuration is mistaken says so without a disk, and difflib takes more memory than it is worth.
    """
    return 2 * _common(one, other) / (len(one) + len(other) or 1)


def _common(one: str, other: str) -> int:
    """The letters of the longest common part, of what the two have in common before it, and after it."""
    size, at, there = 0, 0, 0
    for i in range(len(one)):
        while i + size < len(one) and (found := other.find(one[i : i + size + 1])) >= 0:
            size, at, there = size + 1, i, found
    if not size:
        return 0
    return size + _common(one[:at], other[:there]) + _common(one[at + size :], other[there + size :])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    close = nearest(name, known)
    return f"; did you mean {close}?" if close else ""
