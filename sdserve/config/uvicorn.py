"""uvicorn's options and what says the same here: for who types them, and for the page that tells of moving.

Imported only where an option is not known.
"""

from __future__ import annotations

# (uvicorn's, what says the same here), both as the page shows them.
OPTIONS: tuple[tuple[str, str], ...] = (
    (
        "`--host`, `--port`, `--uds`, `--fd`",
        "`-b host:port`, `-b unix:/path`, `-b fd://N`; under systemd the socket unit says it",
    ),
    ("`--workers`, `WEB_CONCURRENCY`", "`-w`, `WEB_CONCURRENCY`"),
    ("`--loop auto`, `asyncio`, `uvloop`", "`--asgi-loop`"),
    ("`--lifespan auto`, `on`, `off`", "`--asgi-lifespan`"),
    (
        "`--interface`",
        "`-k auto`, `asgi`, `wsgi`. ASGI 2 is not served: wrap it in `asgiref.compatibility.guarantee_single_callable`",
    ),
    ("`--factory main:create_app`", "`'main:create_app()'`, with arguments if need be"),
    ("`--app-dir`", "`--chdir`, `--pythonpath`"),
    ("`--env-file`", "`EnvironmentFile=` of the unit, or `raw_env`"),
    ("`--root-path`", "`--root-path`"),
    ("`--proxy-headers`, `--no-proxy-headers`", "`--forwarded-headers x-forwarded`, `none`"),
    ("`--forwarded-allow-ips`, `FORWARDED_ALLOW_IPS`", "the same"),
    ("`--limit-concurrency`", "`--limit-concurrency`: calls, and never idle connections"),
    (
        "`--limit-max-requests`, `--limit-max-requests-jitter`",
        "`--max-requests`, `--max-requests-jitter`: the replacement serves before the worker leaves",
    ),
    ("`--timeout-keep-alive` (5)", "`--keep-alive` (2)"),
    ("`--timeout-graceful-shutdown` (none)", "`--graceful-timeout` (30), and `--stream-grace`"),
    ("`--timeout-worker-healthcheck`", "`--timeout`: a worker whose event loop is blocked for so long is replaced"),
    ("`--backlog`", "`--backlog`"),
    ("`--ws-max-size`, `--ws-max-queue`", "`--websocket-max-message-size`, `--websocket-max-queue`"),
    ("`--ws-ping-interval`, `--ws-ping-timeout`", "`--websocket-ping-interval`, `--websocket-ping-timeout`; 0 is off"),
    ("`--ws-per-message-deflate false`", "`--no-websocket-compression`"),
    ("`--http`, `--ws`", "there is one implementation of each"),
    ("`--h11-max-incomplete-event-size`", "`--limit-request-head` and its relatives"),
    ("`--access-log`, `--no-access-log`", "`--access-logfile -`; off by default"),
    ("`--log-level`, `--log-config`", "`--log-level`; handlers for the loggers `sdserve.error` and `sdserve.access`"),
    (
        "`--reload` and its relatives",
        "HUP (`systemctl reload`) when code changes, for example from a systemd.path unit",
    ),
    ("`--ssl-…`, `--http2`", "end in the proxy in front"),
    (
        "`--header`, `--server-header`, `--no-server-header`, `--date-header`, `--no-date-header`",
        "the proxy in front, or middleware",
    ),
    ("`--reset-contextvars`", "always: each call has a context of its own"),
)


def instead_of(flag: str) -> str:
    """What to write in place of an option of uvicorn's; "" for one that it does not have."""
    for theirs, ours in OPTIONS:
        if flag in theirs.replace("`", " ").replace(",", " ").split():
            return ours.replace("`", "")
    return ""
