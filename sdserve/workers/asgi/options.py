"""What only ASGI workers need of the configuration, read once at boot: the layers below get values."""

from typing import TYPE_CHECKING

from sdserve.immutable import Immutable
from sdserve.workers.http.deadlines import NEVER

if TYPE_CHECKING:
    from sdserve.config import Config


class AsgiOptions(Immutable):
    """Times are in seconds, sizes in bytes. 0 switches a limit off, unless said otherwise.

    loop: auto, uvloop, asyncio. lifespan: auto, on, off.
    root_path: without the slash at its end, "" for none.
    sendfile: whether applications are offered to have files sent.
    disconnect_grace: after which a call whose client has gone is cancelled.
    max_queue: messages, 1 at least. concurrency: calls at once.
    stream_grace: 0 is at once, NEVER until the end of what graceful_timeout gives to requests.
    shutdown_timeout: what lifespan.shutdown has at most, NEVER for all that is left.
    """

    loop: str
    lifespan: str
    root_path: str
    sendfile: bool
    disconnect_grace: float
    max_message: int
    max_queue: int
    ping_interval: float
    ping_timeout: float
    compression: bool
    concurrency: int
    stream_grace: float
    shutdown_timeout: float

    @classmethod
    def of(cls, cfg: "Config") -> "AsgiOptions":
        return cls(
            loop=cfg.asgi_loop,
            lifespan=cfg.asgi_lifespan,
            root_path=cfg.root_path,
            sendfile=cfg.asgi_sendfile,
            disconnect_grace=float(cfg.asgi_disconnect_grace_period),
            max_message=cfg.websocket_max_message_size,
            max_queue=cfg.websocket_max_queue,
            ping_interval=float(cfg.websocket_ping_interval),
            ping_timeout=float(cfg.websocket_ping_timeout),
            compression=cfg.websocket_compression,
            concurrency=cfg.limit_concurrency,
            stream_grace=NEVER if cfg.stream_grace is None else float(cfg.stream_grace),
            shutdown_timeout=float(cfg.lifespan_shutdown_timeout or NEVER),
        )

    def shutdown_share(self, seconds: float) -> float:
        """Of `seconds` to leave in, what requests do not get: the application's shutdown needs it."""
        return min(self.shutdown_timeout, seconds / 2)
