"""The declarations: complete, consistent, and a superset of gunicorn's names where a promise says so."""

import re
from pathlib import Path

import pytest

import sdserve
from sdserve.config import SETTINGS, load
from sdserve.config.gunicorn import ACCEPTED, MATTERS_WITH, REFUSED, asks_for_nothing, foreign_flag
from sdserve.config.schema import RESERVED_ENVIRONMENT
from sdserve.config.setting import Setting

GUNICORN_NAMES = """
    config wsgi_app bind backlog workers worker_class threads worker_connections max_requests
    max_requests_jitter timeout graceful_timeout keepalive limit_request_line limit_request_fields
    limit_request_field_size reload reload_engine reload_extra_files spew check_config print_config preload_app
    sendfile reuse_port chdir daemon raw_env pidfile worker_tmp_dir user group umask initgroups tmp_upload_dir
    secure_scheme_headers forwarded_allow_ips accesslog disable_redirect_access_to_syslog access_log_format
    errorlog loglevel capture_output logger_class logconfig logconfig_dict logconfig_json syslog_addr syslog
    syslog_prefix syslog_facility enable_stdio_inheritance statsd_host dogstatsd_tags statsd_prefix
    enable_backlog_metric proc_name default_proc_name pythonpath paste on_starting on_reload when_ready pre_fork
    post_fork post_worker_init worker_int worker_abort pre_exec pre_request post_request child_exit worker_exit
    nworkers_changed on_exit ssl_context proxy_protocol proxy_allow_ips protocol uwsgi_allow_ips keyfile
    certfile ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect ciphers http_protocols
    http2_cleartext http2_max_concurrent_streams http2_initial_window_size http2_max_frame_size
    http2_max_header_list_size raw_paste_global_conf permit_obsolete_folding strip_header_spaces
    permit_unconventional_http_method permit_unconventional_http_version casefold_http_method forwarder_headers
    header_map asgi_loop asgi_lifespan asgi_disconnect_grace_period websocket_max_message_size http_parser
    root_path dirty_apps dirty_workers dirty_timeout dirty_threads dirty_graceful_timeout on_dirty_starting
    dirty_post_fork dirty_worker_init dirty_worker_exit control_socket control_socket_mode
    control_socket_disable
"""
GUNICORN = GUNICORN_NAMES.split()

FLAGS = {
    "config": "-c --config",
    "bind": "-b --bind",
    "backlog": "--backlog",
    "workers": "-w --workers",
    "worker_class": "-k --worker-class",
    "threads": "--threads",
    "max_requests": "--max-requests",
    "max_requests_jitter": "--max-requests-jitter",
    "timeout": "-t --timeout",
    "graceful_timeout": "--graceful-timeout",
    "keepalive": "--keep-alive",
    "limit_request_line": "--limit-request-line",
    "limit_request_fields": "--limit-request-fields",
    "check_config": "--check-config",
    "print_config": "--print-config",
    "preload_app": "--preload",
    "reuse_port": "--reuse-port",
    "chdir": "--chdir",
    "daemon": "-D --daemon",
    "raw_env": "-e --env",
    "pidfile": "-p --pid",
    "user": "-u --user",
    "group": "-g --group",
    "umask": "-m --umask",
    "initgroups": "--initgroups",
    "forwarded_allow_ips": "--forwarded-allow-ips",
    "accesslog": "--access-logfile",
    "access_log_format": "--access-logformat",
    "errorlog": "--error-logfile --log-file",
    "loglevel": "--log-level",
    "proc_name": "-n --name",
    "pythonpath": "--pythonpath",
    "proxy_protocol": "--proxy-protocol",
    "proxy_allow_ips": "--proxy-allow-from",
    "forwarder_headers": "--forwarder-headers",
    "header_map": "--header-map",
}


@pytest.mark.parametrize("name", GUNICORN)
def test_each_of_gunicorns_settings_is_one_of_ours_or_has_a_way_out(name: str) -> None:
    assert [name in table for table in (SETTINGS, ACCEPTED, REFUSED)].count(True) == 1


def test_only_gunicorns_settings_are_called_so() -> None:
    assert {*ACCEPTED, *REFUSED} - {"debug"} <= set(GUNICORN)  # debug was one in its early versions
    assert set(MATTERS_WITH) <= set(REFUSED)


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_gunicorns(name: str) -> None:
    assert set(FLAGS[name].split()) <= set(SETTINGS[name].flags)


def test_no_flag_sets_two_settings() -> None:
    flags = [flag for setting in SETTINGS.values() for flag in setting.flags]
    assert len(flags) == len(set(flags))
    assert not any(foreign_flag(flag) for flag in flags)


def test_negated_flags_are_not_flags_of_others() -> None:
    flags = {flag for setting in SETTINGS.values() for flag in setting.flags}
    for setting in SETTINGS.values():
        if not setting.takes_value:
            assert flags.isdisjoint(f"--no-{flag[2:]}" for flag in setting.flags)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=repr)
def test_declarations_are_complete(setting: Setting) -> None:
    assert setting.name.isidentifier()
    assert setting.name == setting.name.lower()
    assert setting.doc.endswith(".")
    assert setting.summary.endswith(".")
    assert setting.effect in ("reload", "upgrade", "start")
    assert all(flag.startswith("-") for flag in setting.flags)
    assert (setting.split is not None) == setting.repeatable
    assert setting.env not in RESERVED_ENVIRONMENT


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=repr)
def test_a_default_is_what_its_converter_gives(setting: Setting) -> None:
    if setting.default is not None:
        assert setting.convert(setting.default) == setting.default


def test_gunicorns_defaults_ask_for_nothing() -> None:
    for name, (_, default) in (ACCEPTED | REFUSED).items():
        assert asks_for_nothing(name, default), name
        assert asks_for_nothing(name, None), name


@pytest.mark.parametrize(("name", "value"), [("sendfile", False), ("reload", True), ("reload", "on"), ("syslog", True)])
def test_a_value_that_asks_for_something_does(name: str, value: object) -> None:
    assert not asks_for_nothing(name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("reload", "false"), ("worker_connections", "1000"), ("keyfile", ""), ("dirty_apps", [])]
)
def test_a_value_that_asks_for_nothing_does_not(name: str, value: object) -> None:
    assert asks_for_nothing(name, value)


def test_declarations_are_immutable() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        SETTINGS["workers"].default = 3  # type: ignore[misc]


def _names_read_by_the_server() -> set[str]:
    """Names that code outside the config package reads off a configuration, as an attribute or from `settings`."""
    package = Path(sdserve.__file__).parent
    sources = [path.read_text() for path in package.rglob("*.py") if path.parent.name != "config"]
    found = set()
    for source in sources:
        found |= set(re.findall(r"\bcfg\.([a-z_]+)", source)) | set(re.findall(r'"([a-z_]+)"', source))
    return found


def test_every_setting_is_read_by_the_server() -> None:
    # Read as address, env, logs, ...
    derived = {"config", "bind", "worker_class", "chdir", "pythonpath", "raw_env", "errorlog"}
    assert set(SETTINGS) - derived <= _names_read_by_the_server()


def test_the_server_reads_only_what_there_is() -> None:
    package = Path(sdserve.__file__).parent
    cfg = load([], {}, "/")
    for path in package.rglob("*.py"):
        for name in re.findall(r"\bcfg\.([a-z_]+)", path.read_text()):
            assert hasattr(cfg, name), f"{path.relative_to(package)} reads cfg.{name}"
