"""One request from parsed head to finished response: environ, hooks, application, access record, counters."""

import socket
import time
from collections import defaultdict
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from io import BufferedReader, BytesIO
from threading import get_ident
from typing import TYPE_CHECKING, Any

from sdserve.gateway.response import Nowhere, Response
from sdserve.gateway.wsgi import Environ, Gateway, set_body
from sdserve.http.connection import State
from sdserve.http.errors import HTTPError
from sdserve.http.request import Request
from sdserve.http.scan import glimpse
from sdserve.http.writer import ClientGone
from sdserve.process.forked import Border
from sdserve.process.listeners import Listener
from sdserve.workers.base import Worker
from sdserve.workers.options import Options
from sdserve.workers.rate_limit import RateLimit
from sdserve.workers.wsgi import hooked
from sdserve.workers.wsgi.client import Reply, WSGIClient
from sdserve.workers.wsgi.contexts import Contexts
from sdserve.workers.wsgi.fiber import Fiber
from sdserve.workers.wsgi.input import EarlyResponse, Incoming

if TYPE_CHECKING:
    from sdserve.access import AccessLog

EARLY = 64  # requests of a worker whose bodies arrive while they are answered; further ones are received first
WILDCARDS = ("0.0.0.0", "::")
Hook = Callable[..., Any]


class Exchange:
    """Answers requests. `access` writes access records, None when nobody reads them."""

    def __init__(self, worker: Worker, gateway: Gateway, options: Options, access: "AccessLog | None" = None) -> None:
        self._worker = worker
        self.gateway = gateway
        self.heads = gateway.writer
        self._last = options.limits.requests
        self._before = self._hook_named("pre_request")  # None when nobody set it
        self._after = self._hook_named("post_request")
        self.access = access
        self._record = access.record if access is not None else None
        self._complaints = defaultdict[str, RateLimit](RateLimit)  # by level
        gateway.complain = partial(self.complain, worker.log.info)
        self.held: dict[int, set[object]] = {}  # by thread, of several: responses that wait there (roster.py)
        self._early: dict[WSGIClient, Fiber] = {}  # calls whose bodies arrive meanwhile, and their threads
        self._contexts = Contexts(copy_context() if options.threads == 1 else Context())  # as threads begin
        # Requests in the application whose post_request is owed, by the response that goes with them.
        self._owed: dict[Response, tuple[Request, Environ]] = {}

    def base(self, listener: Listener, sock: socket.SocketType, peer: tuple[str, str]) -> Environ:
        """What the environs of a new connection share."""
        address = listener.address
        if isinstance(address, str):
            return self.gateway.connection_environ(("localhost", "80"), peer)
        if address[0] in WILDCARDS:
            address = sock.getsockname()
        return self.gateway.connection_environ((address[0], str(address[1])), peer)

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
            environ = gateway.environ(client.base, request, client.standing)
        except HTTPError as error:
            self._end_early(client)
            client.conn.close()
            answer = self.refuse(client, error, began)
            client.close_after = True
            if self._after is not None:
                self._hook(self._after, self._worker, request, {}, self._refusal(request, answer, error.status))
            return
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
            self._over(client, environ, response, began)
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
            step(environ, response)

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
                reply.context.run(step, reply.environ, response)
            else:
                step(reply.environ, response)
                if response.result is None:
                    self._contexts.taken.discard(reply.thread)
            if client.unsent is not None or response.result is not None:
                return
        if lost:
            response.broken = True
            response.sent = max(0, response.sent - reply.lost)
        client.reply = None
        self._let_go(reply)
        self._over(client, reply.environ, response, reply.began)

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
        self._let_go(reply)
        if reply.fiber is None and reply.context is None:
            self._contexts.taken.discard(reply.thread)

    def _let_go(self, reply: Reply) -> None:
        if (held := self.held.get(reply.thread)) is not None:
            held.discard(reply)

    def _over(self, client: WSGIClient, environ: Environ, response: Response, began: float) -> None:
        """The client has taken the whole response, or there will be no more of it."""
        if response.taken is not None:
            response.taken.end(response)
        if response.broken:
            client.close_after = True  # and its client must notice: its body has not ended where the connection ends
            client.conn.close()
            client.reset = not response.chunked and response.response_length is None
        elif not response.keep_alive:
            client.close_after = True
            client.lingers = self._may_send(client, response.request)
            client.conn.close()
        client.sent = response.sent
        client.failed = response.status >= "5"
        if self._record is not None:
            seconds = time.monotonic() - began
            ended = "X" if response.broken else "-" if client.close_after else "+"
            self._record(environ, response.status, response.sent, seconds, response.headers, ended)
        # Not so if a worker that ends has told the hook already (`interrupted`), in another thread.
        if self._after is not None and self._owed.pop(response, None) is not None:
            self._hook(self._after, self._worker, response.request, environ, response)
        response.let_go()

    def _may_send(self, client: WSGIClient, request: Request) -> bool:
        """Whether a client may be sending when the answer to its request ends the connection: the rest of the body, or
        the next request where not the client has said that there is none."""
        if client.conn.state is State.BODY or client.conn.requests == self._last:
            return True
        return request.keep_alive or hooked.was_closed(request)

    def _hooked(self, client: WSGIClient, request: Request) -> None:
        """Gives a request to pre_request, and to post_request later, as they know requests."""
        seen = hooked.hook(request, client, self._worker.cfg, self._environ)
        if self._before is not None:
            self._hook(self._before, self._worker, seen)
            seen.heed()

    def _environ(self, client: WSGIClient, request: Request) -> Environ:
        return self.gateway.environ(client.base, request, client.standing)

    def interrupted(self) -> None:
        """At the end of a worker: post_request for the requests that never came back from the application."""
        while self._after is not None and self._owed:
            response, (request, environ) = self._owed.popitem()
            self._hook(self._after, self._worker, request, environ, response)

    def refuse(self, client: WSGIClient, error: HTTPError, now: float) -> bytes:
        """Sends the answer to a request that cannot be served, and returns it."""
        self.heads.clock(now)
        log = self._worker.log.error if error.ours else self._worker.log.info
        self.complain(log, "%s: %d %s: %s", client.peer or "unix", error.status, error.reason, error)
        head = error.head or client.conn.rest
        client.conn.close()
        request = client.request
        has_body = request.method != "HEAD" if request is not None else not head.startswith(b"HEAD ")
        answer = self.heads.error(error, body=has_body)
        if self._record is not None:
            sent = len(answer) - answer.index(b"\r\n\r\n") - 4
            self._record(
                self._known(client, head), f"{error.status} {error.reason}", sent, max(0.0, now - client.began), (), "-"
            )
        try:
            client.send(answer)
        except ClientGone as gone:
            self._worker.log.debug("%s: the client went away: %s", client.peer, gone)
            client.forget_unsent()
        return answer

    def _refusal(self, request: Request, answer: bytes, status: int) -> Response:
        """The answer to a request that pre_request has seen and the application has not, as post_request sees it."""
        response = Response(self.gateway, Nowhere(), request)
        response.keep_alive = False
        response.fail(answer, status)
        return response

    def complain(self, log: Callable[..., None], what: str, *args: Any) -> None:
        """Says by `log` what a client did, or could bring about."""
        self._complaints[log.__name__].say(log, what, *args)

    def _known(self, client: WSGIClient, head: bytes) -> Environ:
        """What the record of a refused request says of it: all, or what can be made out of `head`."""
        from sdserve.access import refused

        request = client.request
        if request is None:
            return refused(*glimpse(head), client.base["REMOTE_ADDR"])
        try:
            return self._environ(client, request)
        except HTTPError:
            line = f"{request.method} {request.uri} HTTP/1.{request.minor}".encode("ascii")
            return refused(line, request.fields, client.base["REMOTE_ADDR"])

    def _hook_named(self, name: str) -> Hook | None:
        cfg = self._worker.cfg
        return None if cfg.settings[name].source == "default" else getattr(cfg, name)

    def _hook(self, hook: Hook, *args: Any) -> None:
        try:
            with Border(self._worker.log.error):
                hook(*args)
        except Exception:
            self._worker.log.exception("Exception in the hook %s", getattr(hook, "__name__", hook))
