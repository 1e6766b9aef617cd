"""WebSockets in the ASGI worker: how they are opened, polled, kept alive and closed.

A client whose WebSocket is open stays in the phase CALL, as if its request were being answered. It is polled for
messages as long as there is room for them. Its deadline is for the next ping, the answer to a close, or a peer that
takes nothing. A WebSocket has no timer of its own.
"""

from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING

from sdserve.errors import in_words
from sdserve.gateway.asgi import HTTPCall
from sdserve.gateway.asgi_call import Call
from sdserve.gateway.asgi_websocket import WebSocketCall, WebSocketHost
from sdserve.gateway.scope import Scope, websocket
from sdserve.http.errors import MethodNotSupported, Unavailable
from sdserve.http.handshake import Handshake
from sdserve.http.heartbeat import Heartbeat
from sdserve.http.request import Request
from sdserve.http.writer import ClientGone
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.clients import ASGIClients
from sdserve.workers.asgi.exchange import ASGIExchange
from sdserve.workers.asgi.extra import NO_WEBSOCKETS
from sdserve.workers.http.clients import CALL
from sdserve.workers.http.deadlines import NEVER, after
from sdserve.workers.preimport import missing

if TYPE_CHECKING:
    from sdserve.http.websocket import WebSocket


class WebSocketExchange(ASGIExchange):
    """Answers requests for WebSockets, too."""

    host: WebSocketHost

    def _open(self, client: ASGIClient, request: Request, scope: Scope) -> HTTPCall:
        if self.host.leaving:
            raise Unavailable("a WebSocket was asked for while the worker leaves")
        if self._kind is None:
            raise MethodNotSupported("websockets cannot be imported")
        asgi, handshake = self.asgi, Handshake(request)
        websocket(scope, handshake.subprotocols)
        scope["extensions"] = {"websocket.http.response": {}}
        return WebSocketCall(
            *(self.heads, client, request, self._log, self.host),
            self._kind(handshake, max_message=asgi.max_message, compression=asgi.compression),
            Heartbeat(asgi.ping_interval, asgi.ping_timeout, monotonic()),
            asgi.max_queue,
        )

    @cached_property
    def _kind(self) -> "type[WebSocket] | None":
        """None where the library cannot be had, which the log says once. No first answer waits for it: see extra.later.

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

    def opened(self, client: ASGIClient, call: WebSocketCall, now: float) -> None:
        """Writes a record when it opens. Another one at its end says what went over it."""
        if self._record is not None and self._reads:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in call.headers]
            seconds = now - call.began
            self._record(self._environ(client, call.request), call.status, 0, seconds, headers, "+")

    def _incomplete(self, call: Call, error: BaseException | None) -> None:
        if isinstance(call, WebSocketCall) and call.upgraded:
            if not call.gone:
                try:
                    call.finish(error, monotonic())
                except ClientGone as gone:
                    self.host.lost(call, gone)
        else:
            super()._incomplete(call, error)


class WebSocketClients(ASGIClients):
    """Clients, some of which are WebSockets."""

    _exchange: WebSocketExchange

    # --- the host of calls --------------------------------------------------------------------------------------------

    @property
    def leaving(self) -> bool:
        return not self._worker.alive

    def opened(self, call: WebSocketCall) -> None:
        client, now = self._exchange.client_of(call), monotonic()
        self._exchange.opened(client, call, now)
        early = client.conn.rest
        client.conn.close()
        self._go_on(client, call)
        if early:
            self._arrived(client, call, early)

    def wants_more(self, call: WebSocketCall) -> None:
        self._listen(self._exchange.client_of(call))

    def closing(self, call: WebSocketCall) -> None:
        self._go_on(self._exchange.client_of(call), call)

    def wants_room(self, call: Call) -> None:
        if isinstance(call, WebSocketCall) and call.upgraded:
            self._go_on(self._exchange.client_of(call), call)
        else:
            super().wants_room(call)

    # --- events -------------------------------------------------------------------------------------------------------

    def goes_on(self, client: ASGIClient) -> None:
        call = client.call
        if client.phase is CALL and isinstance(call, WebSocketCall) and call.upgraded and call.goes_on():
            self._arrived(client, call, b"")
            self._listen(client)

    def _listen(self, client: ASGIClient) -> None:
        """As for others. What a WebSocket has sent, and nobody has looked at yet, is queued for its turn."""
        super()._listen(client)
        call = client.call
        if isinstance(call, WebSocketCall) and call.goes_on() and client.phase is CALL and not client.queued:
            self.queue(client)

    def _arrived(self, client: ASGIClient, call: Call, data: bytes) -> None:
        if not (isinstance(call, WebSocketCall) and call.upgraded):
            super()._arrived(client, call, data)
            return
        try:
            call.take(data, monotonic())
        except ClientGone as error:
            self.gone(client, error)
            return
        if call.ended or client.unsent is not None:
            self._go_on(client, call)
        elif not call.reads():
            self._listen(client)

    def _end_of(self, client: ASGIClient, call: Call) -> None:
        if isinstance(call, WebSocketCall):  # a peer that cannot answer cannot be told anything
            self.gone(client, ClientGone("it has closed its connection"))
        else:
            super()._end_of(client, call)

    def _pour(self, client: ASGIClient, call: Call) -> None:
        super()._pour(client, call)
        if isinstance(call, WebSocketCall) and call.upgraded and client.unsent is None:
            self._go_on(client, call)

    def _go_on(self, client: ASGIClient, call: WebSocketCall) -> None:
        """Waits for what comes next, or ends the connection: after the last frame, once that was sent."""
        if client.phase is not CALL or client.call is not call:
            return
        now = monotonic()
        if call.ended:
            call.complete = True
            self.has_sent(client, now)
            return
        stalled = client.unsent is not None
        due = after(now, self._times.send) if stalled else NEVER
        client.deadline = min(due, call.due()) if call.closes or not stalled else due
        self.look_by(client.deadline)
        self._listen(client)
        self._settle()

    def expired(self, client: ASGIClient, now: float) -> None:
        call = client.call
        if client.phase is not CALL or not isinstance(call, WebSocketCall) or not call.upgraded:
            super().expired(client, now)
            return
        try:
            if client.unsent is not None or not call.beat(now, late=client.has_news()):
                raise ClientGone("it takes nothing, or answers no ping")
        except ClientGone as error:
            self.gone(client, error)
        else:
            self._go_on(client, call)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def leaves(self, client: ASGIClient) -> None:
        call = client.call
        if isinstance(call, WebSocketCall) and call.upgraded and call not in self._exchange.running:
            call.complete = True  # its handler is over, and its peer has not answered the close
        super().leaves(client)

    def _leave(self, client: ASGIClient, call: WebSocketCall) -> None:
        try:
            call.leave(monotonic())
        except ClientGone as error:
            self.gone(client, error)

    def end_streams(self) -> None:
        for client in self:
            call = client.call
            if isinstance(call, WebSocketCall) and call.head is None and not call.complete:
                self.refused(call, Unavailable("a WebSocket was not accepted before its worker left"))
        super().end_streams()

    def end_stream(self, client: ASGIClient, call: Call) -> None:
        if isinstance(call, WebSocketCall) and call.upgraded:
            self._leave(client, call)
        else:
            super().end_stream(client, call)

    def cut(self) -> bool:
        for client in self:
            if isinstance(client.call, WebSocketCall):
                self._leave(client, client.call)
        return super().cut()
