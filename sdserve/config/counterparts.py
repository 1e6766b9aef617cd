"""What to say about names that are no settings: gunicorn's without a counterpart, and misspelt ones.

A config file written for gunicorn must not lose a setting in silence, so each of gunicorn's settings that sdserve
lacks is listed with what to do instead. A value that asks for nothing (gunicorn's default, or empty) passes.
"""

from __future__ import annotations

from collections.abc import Iterable

_TLS = "end TLS in a proxy in front (nginx, haproxy, stunnel)"
_LOGGING = "configure handlers for the loggers sdserve.error and sdserve.access in the application"
_SYSLOG = "the journal takes the log under systemd and forwards it to syslog (journald.conf: ForwardToSyslog=)"
_STATSD = "read the figures with `sdservectl status`"
_RELOADER = "send HUP (`systemctl reload`) when code changes, for example from a systemd.path unit"
_STRICT = "requests are parsed strictly; let the proxy in front mend or refuse what is not HTTP/1.1"
_HTTP2 = "HTTP/2 ends in the proxy in front"
_DIRTY = "run long jobs in a task queue or a service of their own"
_PASTE = "give a module that calls paste.deploy.loadapp as the application"
_ASGI = "a worker class of your own may read its environment"
_PEP = "requests come by HTTP: use proxy_pass instead of uwsgi_pass"

# name: (what to do instead, gunicorn's default)
NO_COUNTERPART: dict[str, tuple[str, object]] = {
    "worker_connections": ("connections cost no thread and are bounded by LimitNOFILE= of the unit", 1000),
    "reload": (_RELOADER, False),
    "reload_engine": (_RELOADER, "auto"),
    "reload_extra_files": (_RELOADER, ()),
    "spew": ("use loglevel = 'trace', or a tracer of Python", False),
    "sendfile": ("sendfile(2) is used where it is possible", True),
    "worker_tmp_dir": ("no temporary file is used as a heartbeat: remove it", None),
    "tmp_upload_dir": ("set the environment variable TMPDIR", None),
    "disable_redirect_access_to_syslog": (_SYSLOG, False),
    "capture_output": ("systemd sends both standard streams to the journal; elsewhere redirect them", False),
    "logger_class": (_LOGGING, "gunicorn.glogging.Logger"),
    "logconfig": (_LOGGING, None),
    "logconfig_dict": (_LOGGING, None),
    "logconfig_json": (_LOGGING, None),
    "syslog": (_SYSLOG, False),
    "syslog_addr": (_SYSLOG, "udp://localhost:514"),
    "syslog_prefix": (_SYSLOG, None),
    "syslog_facility": (_SYSLOG, "user"),
    "enable_stdio_inheritance": ("the standard streams are inherited: set PYTHONUNBUFFERED=1 if need be", False),
    "statsd_host": (_STATSD, None),
    "statsd_prefix": (_STATSD, ""),
    "dogstatsd_tags": (_STATSD, ""),
    "enable_backlog_metric": (_STATSD, False),
    "default_proc_name": ("use proc_name", "gunicorn"),
    "paste": (_PASTE, None),
    "raw_paste_global_conf": (_PASTE, ()),
    "ssl_context": (_TLS, None),
    "keyfile": (_TLS, None),
    "certfile": (_TLS, None),
    "ssl_version": (_TLS, 2),
    "cert_reqs": (_TLS, 0),
    "ca_certs": (_TLS, None),
    "suppress_ragged_eofs": (_TLS, True),
    "do_handshake_on_connect": (_TLS, False),
    "ciphers": (_TLS, None),
    "protocol": (_PEP, "http"),
    "uwsgi_allow_ips": (_PEP, "127.0.0.1,::1"),
    "http_protocols": (_HTTP2, "h1"),
    "http2_cleartext": (_HTTP2, "off"),
    "http2_max_concurrent_streams": (_HTTP2, 100),
    "http2_initial_window_size": (_HTTP2, 65535),
    "http2_max_frame_size": (_HTTP2, 16384),
    "http2_max_header_list_size": (_HTTP2, 65536),
    "permit_obsolete_folding": (_STRICT, False),
    "strip_header_spaces": (_STRICT, False),
    "permit_unconventional_http_method": (_STRICT, False),
    "permit_unconventional_http_version": (_STRICT, False),
    "casefold_http_method": (_STRICT, False),
    "http_parser": ("there is one parser, httptools", "auto"),
    "asgi_loop": (_ASGI, "auto"),
    "asgi_lifespan": (_ASGI, "auto"),
    "asgi_disconnect_grace_period": (_ASGI, 3),
    "websocket_max_message_size": (_ASGI, 16777216),
    "root_path": ("let the proxy send SCRIPT_NAME, see forwarder_headers", ""),
    "dirty_apps": (_DIRTY, ()),
    "dirty_workers": (_DIRTY, 0),
    "dirty_timeout": (_DIRTY, 300),
    "dirty_threads": (_DIRTY, 1),
    "dirty_graceful_timeout": (_DIRTY, 30),
    "on_dirty_starting": (_DIRTY, None),
    "dirty_post_fork": (_DIRTY, None),
    "dirty_worker_init": (_DIRTY, None),
    "dirty_worker_exit": (_DIRTY, None),
    "control_socket_mode": ("only root and the user of the service may use the control socket", 0o600),
    "control_socket_disable": ("the control socket is off when control_socket is empty", False),
}

# gunicorn calls these hooks only where one of the settings named here is in force: without it they are mere functions.
MATTERS_WITH = {
    "ssl_context": ("certfile", "keyfile"),
    "on_dirty_starting": ("dirty_apps", "dirty_workers"),
    "dirty_post_fork": ("dirty_apps", "dirty_workers"),
    "dirty_worker_init": ("dirty_apps", "dirty_workers"),
    "dirty_worker_exit": ("dirty_apps", "dirty_workers"),
}

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


def asks_for_nothing(name: str, value: object) -> bool:
    """Whether gunicorn's setting without a counterpart has a value that changes nothing there either."""
    default = NO_COUNTERPART[name][1]
    if value is None or value == default:
        return True
    return not value and not default


def refusal(name: str, value: str = "") -> str:
    """A clause about one of gunicorn's settings without a counterpart, with the way out; `value` is how it was set."""
    setting = f"{name} = {value}" if value else name
    return f"gunicorn's setting {setting} has no counterpart in sdserve: {NO_COUNTERPART[name][0]}"


def foreign_flag(flag: str) -> str | None:
    """The setting without a counterpart that this flag sets in gunicorn, if it is one of its flags."""
    name = _FLAGS.get(flag) or flag.removeprefix("--").replace("-", "_")
    return name if flag.startswith("-") and name in NO_COUNTERPART else None


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like `name`, if any is alike enough."""
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    close = nearest(name, known)
    return f"; did you mean {close}?" if close else ""
