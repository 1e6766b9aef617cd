"""The call for a request that asks for a WebSocket.

No first answer waits for the library of WebSockets, which is imported after it, or by the first of these: extra.later.
"""

from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING

from sdserve.errors import in_words
from sdserve.gateway.asgi_websocket import WebSocketCall, WebSocketHost
from sdserve.gateway.scope import Scope, websocket
from sdserve.http.errors import MethodNotSupported, Unavailable
from sdserve.http.handshake import Handshake
from sdserve.http.heartbeat import Heartbeat
from sdserve.http.request import Request
from sdserve.http.response import HeadWriter
from sdserve.log import Logger
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.extra import NO_WEBSOCKETS
from sdserve.workers.asgi.options import AsgiOptions
from sdserve.workers.preimport import missing

if TYPE_CHECKING:
    from sdserve.http.websocket import WebSocket


class Opening:
    """Makes these calls. What became of the library is found out once."""

    def __init__(self, heads: HeadWriter, host: WebSocketHost, options: AsgiOptions, log: Logger) -> None:
        self._heads = heads
        self._host = host
        self._options = options
        self._log = log

    def call(self, client: ASGIClient, request: Request, scope: Scope) -> WebSocketCall:
        """Its scope becomes one of a WebSocket. Raises HTTPError."""
        if self._host.leaving:
            raise Unavailable("a WebSocket was asked for while the worker leaves")
        if self._kind is None:
            raise MethodNotSupported("websockets cannot be imported")
        options, handshake = self._options, Handshake(request)
        websocket(scope, handshake.subprotocols)
        scope["extensions"] = {"websocket.http.response": {}}
        return WebSocketCall(
            *(self._heads, client, request, self._log, self._host),
            self._kind(handshake, max_message=options.max_message, compression=options.compression),
            Heartbeat(options.ping_interval, options.ping_timeout, monotonic()),
            options.max_queue,
        )

    @cached_property
    def _kind(self) -> "type[WebSocket] | None":
        """None where the library cannot be had, which the log says once.

        Raises Unavailable when there is no room to import it.
        """
        try:
            reason = missing("sdserve.http.websocket")
        except (OSError, MemoryError) as error:
            raise Unavailable(f"websockets cannot be imported: {in_words(error)}") from error
        if reason:  # it is not installed, another version than we know, or broken
            self._log.warning(NO_WEBSOCKETS, reason)
            return None
        from sdserve.http.websocket import WebSocket

        return WebSocket
