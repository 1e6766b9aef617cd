"""What the workers' loops want to know of the configuration, read once at boot: the layers below get values."""

import resource
from typing import TYPE_CHECKING

from sdserve.http.limits import Limits, Times
from sdserve.immutable import Immutable

if TYPE_CHECKING:
    from sdserve.config import Config

RESERVED_DESCRIPTORS = 100  # for the application, temporary files and ourselves


def _connections() -> int:
    """As many as RLIMIT_NOFILE (a unit's LimitNOFILE=) leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, soft - RESERVED_DESCRIPTORS)


class Options(Immutable):
    """`connections` is how many may be open at once; a worker that has so many accepts no more."""

    limits: Limits
    times: Times
    threads: int
    connections: int
    request_buffering: str  # on, auto, off
    spool: int  # bytes that all temporary files together may take, 0: no limit
    timeout: float
    workers: int
    forwarded_allow_ips: tuple[str, ...]
    forwarded_headers: str  # x-forwarded, forwarded, none
    secure_scheme_headers: dict[str, str]
    proxy_protocol: str  # off, v1, v2, auto
    proxy_allow_ips: tuple[str, ...]
    reuse_port: bool

    @classmethod
    def of(cls, cfg: "Config") -> "Options":
        limits = Limits(
            request_line=cfg.limit_request_line,
            fields=cfg.limit_request_fields,
            field_size=cfg.limit_request_field_size,
            head=cfg.limit_request_head,
            body=cfg.limit_request_body,
            requests=cfg.keepalive_requests,
        )
        times = Times(
            head=cfg.header_timeout,
            keepalive=cfg.keepalive,
            body_rate=cfg.body_min_rate,
            body_grace=cfg.header_timeout or 30.0,
            body_idle=cfg.body_timeout,
        )
        same = ("request_buffering", "timeout", "workers", "forwarded_headers", "proxy_protocol", "reuse_port")
        return cls(
            limits=limits,
            times=times,
            threads=max(1, cfg.threads),
            connections=_connections(),
            spool=cfg.spool_limit,
            forwarded_allow_ips=tuple(cfg.forwarded_allow_ips),
            proxy_allow_ips=tuple(cfg.proxy_allow_ips),
            secure_scheme_headers=dict(cfg.secure_scheme_headers),
            **{name: getattr(cfg, name) for name in same},
        )
