"""One request of a WSGI application, from its head to its finished response.

A response may have to wait for its client, and a call for its request's body; both go on where they were.
"""

from contextvars import Context, copy_context
from functools import partial
from io import BufferedReader, BytesIO
from threading import get_ident
from typing import TYPE_CHECKING

from sdserve.gateway.environ import Environ, Environs, set_body
from sdserve.gateway.forwarded import TRUSTED
from sdserve.gateway.response import Response
from sdserve.gateway.wsgi import Gateway
from sdserve.http.errors import HTTPError
from sdserve.http.request import Request
from sdserve.workers.base import Worker
from sdserve.workers.http import hooked
from sdserve.workers.http.exchange import Exchange
from sdserve.workers.options import Options
from sdserve.workers.wsgi.client import Reply, WSGIClient
from sdserve.workers.wsgi.contexts import Contexts
from sdserve.workers.wsgi.fiber import Fiber
from sdserve.workers.wsgi.input import EarlyResponse, Incoming

if TYPE_CHECKING:
    from sdserve.access.measured import Records

EARLY = 64  # requests of a worker whose bodies arrive while they are answered; further ones are received first


class WSGIExchange(Exchange[WSGIClient]):
    """Answers requests by `gateway`; the rest is as in workers/http/exchange.py."""

    def __init__(
        self, worker: Worker, gateway: Gateway, environs: Environs, options: Options, access: "Records | None" = None
    ) -> None:
        super().__init__(worker, environs, gateway.writer, options, access)
        self.gateway = gateway
        gateway.complain = partial(self.complain, worker.log.info)
        self.held: dict[int, set[object]] = {}  # by thread, of several: responses that wait there (roster.py)
        self._early: dict[WSGIClient, Fiber] = {}  # calls whose bodies arrive meanwhile, and their threads
        self._contexts = Contexts(copy_context() if options.threads == 1 else Context())  # as threads begin

    def answer(self, client: WSGIClient, request: Request, began: float) -> None:
        """Serves one request, as far as its client has room: the rest is done by `go_on` while `client.reply` is set.

        When it is over, `client.close_after` says whether the connection goes on.
        """
        writer, gateway = self.heads, self.gateway
        if began >= writer.until:
            writer.clock(began)
        if self._before is not None or self._after is not None:
            self._hooked(client, request)
        try:
            environ = self.environs.of_request(client.base, request, client.standing)
        except HTTPError as error:
            self._end_early(client)
            self.refuse_seen(client, request, error, began)
            return
        if client.standing & TRUSTED and (stamp := environ.get("HTTP_X_REQUEST_START")):
            self.note_queue(stamp)
        if self._early and (fiber := self._early.get(client)) is not None:
            self._answer_early(client, request, environ, began, fiber)
            return
        response = client.response = Response(gateway, client, request)
        body = client.body
        if body is not None:
            set_body(environ, request, hooked.reader(request, body), body.size)
        else:
            environ["wsgi.input"] = BytesIO()
        if self._after is not None:
            self._owed[response] = request, environ
        context = None
        if self._contexts.taken and (context := self._contexts.for_call()) is not None:
            context.run(gateway.call, environ, response)
        else:
            gateway.call(environ, response)
        if client.unsent is None and response.result is None:
            self.over(client, environ, response, began)
        else:
            client.reply = reply = Reply(environ, response, began, get_ident())
            if response.result is not None:
                reply.context = context
                if (held := self.held.get(reply.thread)) is not None:
                    held.add(reply)
                if context is None:
                    self._contexts.taken.add(reply.thread)

    def needs_its_thread(self, reply: Reply) -> bool:
        """Whether what is left of a response has to do with the application."""
        return reply.fiber is None and (reply.response.result is not None or self._after is not None)

    def begins_early(self, client: WSGIClient) -> bool:
        """Whether a request may be answered while its body arrives. If so, a thread waits for its call."""
        if len(self._early) >= EARLY:
            return False
        try:
            self._early[client] = Fiber()
        except RuntimeError as error:
            self.complain(self._worker.log.warning, "%s: a body is received first: %s", client.peer or "unix", error)
            return False
        return True

    def _end_early(self, client: WSGIClient) -> None:
        """The call of a request is over, or there will be none: its thread is not needed any more."""
        fiber = self._early.pop(client, None)
        if fiber is not None:
            client.arrival = None
            if not fiber.thread:  # it has not begun
                fiber.resume()

    def _answer_early(self, client: WSGIClient, request: Request, environ: Environ, began: float, fiber: Fiber) -> None:
        """Serves a request whose body has not arrived: the call pauses where it reads what is not there."""
        assert client.arrival is not None
        incoming = Incoming(client, request, client.arrival)
        response = client.response = EarlyResponse(self.gateway, client, request, incoming)
        environ["wsgi.input"] = BufferedReader(incoming, 65536)
        client.reply = reply = Reply(environ, response, began, 0)
        reply.incoming = incoming
        incoming.response = response
        reply.fiber = incoming.fiber = fiber
        fiber.work = partial(self.in_fiber, reply)
        if self._after is not None:
            self._owed[response] = request, environ
        self.go_on(client, reply)

    def in_fiber(self, reply: Reply) -> None:
        """What the thread of a call does whose body arrives meanwhile."""
        environ, response, fiber = reply.environ, reply.response, reply.fiber
        assert fiber is not None
        self.gateway.call(environ, response)
        while response.result is not None:
            fiber.pause()
            step = self.gateway.drop if reply.lost >= 0 else self.gateway.go_on
            step(response)

    def go_on(self, client: WSGIClient, reply: Reply) -> None:
        """Goes on with a response whose client has room, as `answer` began it; `client.reply` is None when it is over.

        Called in the response's thread if it needs that. With `reply.lost` set, its client has gone.
        """
        response, lost = reply.response, reply.lost >= 0
        if reply.fiber is not None:
            if not reply.fiber.ended:
                reply.fiber.resume()
            if not reply.fiber.ended or client.unsent is not None:
                return
            self._end_early(client)
            if reply.incoming is not None:
                reply.incoming.let_go()
        elif response.result is not None:
            step = self.gateway.drop if lost else self.gateway.go_on
            if reply.context is not None:
                reply.context.run(step, response)
            else:
                step(response)
                if response.result is None:
                    self._contexts.taken.discard(reply.thread)
            if client.unsent is not None or response.result is not None:
                return
        if lost:
            response.broken = True
            response.sent = max(0, response.sent - reply.lost)
        client.reply = None
        self._discard(reply)
        self.over(client, reply.environ, response, reply.began)

    def forget(self, client: WSGIClient) -> None:
        """Something went wrong with a response that was not over: nothing more becomes of it."""
        response, client.response = client.response, None
        if response is not None:
            response.let_go()
        reply, client.reply = client.reply, None
        self._end_early(client)
        if reply is None:
            return
        if reply.incoming is not None:
            reply.incoming.let_go()
        self._owed.pop(reply.response, None)
        self._discard(reply)
        if reply.fiber is None and reply.context is None:
            self._contexts.taken.discard(reply.thread)

    def _discard(self, reply: Reply) -> None:
        if (held := self.held.get(reply.thread)) is not None:
            held.discard(reply)
