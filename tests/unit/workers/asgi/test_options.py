"""Each setting of ASGI reaches the worker, as the value that it works with."""

from typing import Any

import pytest

from sdserve.config import SETTINGS, load
from sdserve.workers.asgi.options import AsgiOptions
from sdserve.workers.http.deadlines import NEVER

# setting: (field, what is configured, what the worker gets)
TABLE: dict[str, tuple[str, str, Any]] = {
    "asgi_loop": ("loop", "uvloop", "uvloop"),
    "asgi_lifespan": ("lifespan", "off", "off"),
    "root_path": ("root_path", "/api/", "/api"),
    "asgi_sendfile": ("sendfile", "on", True),
    "asgi_disconnect_grace_period": ("disconnect_grace", "3", 3.0),
    "websocket_max_message_size": ("max_message", "1M", 1 << 20),
    "websocket_max_queue": ("max_queue", "7", 7),
    "websocket_ping_interval": ("ping_interval", "0", 0.0),
    "websocket_ping_timeout": ("ping_timeout", "2.5", 2.5),
    "websocket_compression": ("compression", "off", False),
    "limit_concurrency": ("concurrency", "100", 100),
    "stream_grace": ("stream_grace", "0", 0.0),
    "lifespan_shutdown_timeout": ("shutdown_timeout", "7", 7.0),
}
DEFAULTS = AsgiOptions(
    loop="auto",
    lifespan="auto",
    root_path="",
    sendfile=False,
    disconnect_grace=0.0,
    max_message=16 << 20,
    max_queue=32,
    ping_interval=20.0,
    ping_timeout=20.0,
    compression=True,
    concurrency=0,
    stream_grace=NEVER,
    shutdown_timeout=5.0,
)


def options(**environ: str) -> AsgiOptions:
    return AsgiOptions.of(load(["app:app"], environ, "/"))


def test_by_default() -> None:
    assert options() == DEFAULTS


def test_no_setting_and_no_field_is_missed() -> None:
    assert set(TABLE) == {name for name, setting in SETTINGS.items() if setting.section == "ASGI"}
    assert {field for field, _, _ in TABLE.values()} == set(AsgiOptions._fields)


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_reaches_its_field_and_no_other(name: str) -> None:
    field, text, value = TABLE[name]
    assert options(**{SETTINGS[name].env: text}) == DEFAULTS.replace(**{field: value})


@pytest.mark.parametrize(
    ("graceful_timeout", "configured", "expected"),
    [("30", "5", 5.0), ("30", "20", 15.0), ("4", "5", 2.0), ("30", "0", 15.0), ("0", "5", 0.0)],
)
def test_a_lifespans_end_has_half_of_the_graceful_timeout_at_most(
    graceful_timeout: str, configured: str, expected: float
) -> None:
    environ = {"SDSERVE_GRACEFUL_TIMEOUT": graceful_timeout, "SDSERVE_LIFESPAN_SHUTDOWN_TIMEOUT": configured}
    assert options(**environ).shutdown_share(float(graceful_timeout)) == expected


def test_compression_can_be_switched_off_by_a_flag() -> None:
    assert AsgiOptions.of(load(["--no-websocket-compression", "app:app"], {}, "/")).compression is False


@pytest.mark.parametrize(("text", "path"), [("", ""), ("/", ""), ("/api", "/api"), ("/a/b//", "/a/b")])
def test_a_root_path_ends_without_a_slash(text: str, path: str) -> None:
    assert SETTINGS["root_path"].convert(text) == path


def test_a_root_path_begins_with_one() -> None:
    with pytest.raises(ValueError, match="'api' is not a path such as /api"):
        SETTINGS["root_path"].convert("api")
