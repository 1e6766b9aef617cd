"""What the extra `asgi` installs, uvloop and websockets, and what becomes of a service without them.

HTTP needs neither. A configuration that asks for uvloop by name gets no other loop. Clients that want a WebSocket are
refused, and the log says why, once.
"""

import asyncio
import importlib.util
from typing import TYPE_CHECKING

from sdserve.errors import BootError, ConfigError

if TYPE_CHECKING:
    from sdserve.config import Config
    from sdserve.log import Logger

INSTALL = "pip install 'sdserve[asgi]'"
NO_UVLOOP = f"asgi_loop = 'uvloop': uvloop is not installed: {INSTALL}, or set asgi_loop = 'auto'"
NO_WEBSOCKETS = (
    "A WebSocket was asked for and refused with 501: websockets is not installed, too old or broken (%s): "
    f"{INSTALL}, then upgrade or restart the service"
)


def installed(package: str) -> bool:
    """Whether a package can be imported, without doing so."""
    return importlib.util.find_spec(package) is not None


def demand_loop(cfg: "Config") -> None:
    """Raises ConfigError where uvloop is asked for and missing."""
    if cfg.asgi_loop == "uvloop" and not installed("uvloop"):
        raise ConfigError(NO_UVLOOP)


def later(kind: str) -> tuple[str, ...]:
    """What workers have in memory, where it is installed: one that is forked tomorrow serves as those of today do."""
    return ("sdserve.http.websocket", *(("uvloop",) if kind != "asyncio" else ()))


def new_event_loop(kind: str, log: "Logger") -> asyncio.AbstractEventLoop:
    """The event loop that asgi_loop means. Raises BootError where uvloop is asked for and missing."""
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise BootError(NO_UVLOOP) from None
            log.info("asgi_loop: asyncio's loop, since uvloop is not installed: %s makes it faster", INSTALL)
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()
