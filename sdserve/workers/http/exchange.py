"""What every worker class does around one request: hooks, refusals, the access record, and what becomes of the client.

How a request is answered is a worker class's own: see workers/wsgi/exchange.py and workers/asgi/exchange.py.
"""

import socket
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic

from sdserve.gateway.answer import Answer, Nowhere
from sdserve.gateway.environ import Environ, Environs
from sdserve.http.connection import State
from sdserve.http.errors import HTTPError
from sdserve.http.queue_time import queue_seconds
from sdserve.http.request import Request
from sdserve.http.response import HeadWriter
from sdserve.http.scan import glimpse
from sdserve.http.writer import ClientGone
from sdserve.process.forked import Border
from sdserve.process.listeners import Listener
from sdserve.rate_limit import RateLimit
from sdserve.workers.base import Worker
from sdserve.workers.http import hooked
from sdserve.workers.http.client import C, Phase
from sdserve.workers.options import Options

if TYPE_CHECKING:
    from sdserve.access.measured import Records

WILDCARDS = ("0.0.0.0", "::")
Hook = Callable[..., Any]


class Exchange(Generic[C]):
    """`environs` and `heads` are what all requests of a worker are read and answered with; `access` takes a
    record of each, None when nobody reads them."""

    def __init__(
        self, worker: Worker, environs: Environs, heads: HeadWriter, options: Options, access: "Records | None" = None
    ) -> None:
        self._worker = worker
        self.environs = environs
        self.heads = heads
        self._last = options.limits.requests
        self._before = self._hook_named("pre_request")  # None when nobody set it
        self._after = self._hook_named("post_request")
        self.access = access
        self._record = access.record if access is not None else None
        self._reads = access is not None and access.reads  # what is recorded is taken from environ and headers, too
        self._complaints = defaultdict[str, RateLimit](RateLimit)  # by level
        # Requests in the application whose post_request is owed, by the response that goes with them.
        self._owed: dict[Answer, tuple[Request, Environ]] = {}

    def base(self, listener: Listener, sock: socket.SocketType, peer: tuple[str, str]) -> Environ:
        """What the environs of a new connection share."""
        address = listener.address
        if isinstance(address, str):
            return self.environs.of_connection(("localhost", "80"), peer)
        if address[0] in WILDCARDS:
            address = sock.getsockname()
        return self.environs.of_connection((address[0], str(address[1])), peer)

    def over(self, client: C, environ: Environ, response: Answer, began: float) -> None:
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
        client.status = response.status
        client.started = began
        if self._record is not None:
            seconds = time.monotonic() - began
            ended = "X" if response.broken else "-" if client.close_after else "+"
            self._record(environ, response.status, response.sent, seconds, response.headers, ended)
        # Not so if a worker that ends has told the hook already (`interrupted`), in another thread.
        if self._after is not None and self._owed.pop(response, None) is not None:
            self._hook(self._after, self._worker, response.request, environ, response)
        response.let_go()

    def _may_send(self, client: C, request: Request) -> bool:
        """Whether a client may be sending when the answer to its request ends the connection: the rest of the body, or
        the next request where not the client has said that there is none."""
        if client.conn.state is State.BODY or client.conn.requests == self._last:
            return True
        return request.keep_alive or hooked.was_closed(request)

    def _hooked(self, client: C, request: Request) -> None:
        """Gives a request to pre_request, and to post_request later, as they know requests."""
        seen = hooked.hook(request, client, self._worker.cfg, self._environ)
        if self._before is not None:
            self._hook(self._before, self._worker, seen)
            seen.heed()

    def _environ(self, client: C, request: Request) -> Environ:
        return self.environs.of_request(client.base, request, client.standing)

    def note_queue(self, stamp: str) -> None:
        """A trusted peer says when it got the request that is about to be answered (X-Request-Start)."""
        seconds = queue_seconds(stamp, time.time())
        if seconds is not None:
            self._worker.counters.queued(seconds)

    def interrupted(self) -> None:
        """At the end of a worker: post_request for the requests that never came back from the application."""
        while self._after is not None and self._owed:
            response, (request, environ) = self._owed.popitem()
            self._hook(self._after, self._worker, request, environ, response)

    def refuse(self, client: C, error: HTTPError, now: float, began: float | None = None) -> bytes:
        """Sends the answer to a request that cannot be served, and returns it. `began`: when that had come."""
        self.heads.clock(now)
        if began is None:
            came_at_once = client.phase is Phase.HEAD and client.last
            began = now if came_at_once else min(now, client.began)
        client.status, client.started = str(error.status), began
        log = self._worker.log.error if error.ours else self._worker.log.info
        self.complain(log, "%s: %d %s: %s", client.peer or "unix", error.status, error.reason, error)
        head = error.head or client.conn.rest
        client.conn.close()
        request = client.request
        has_body = request.method != "HEAD" if request is not None else not head.startswith(b"HEAD ")
        answer = self.heads.error(error, body=has_body)
        if self._record is not None:
            sent = len(answer) - answer.index(b"\r\n\r\n") - 4
            known = self._known(client, head) if self._reads else {}
            self._record(known, f"{error.status} {error.reason}", sent, now - began, (), "-")
        try:
            client.send(answer)
        except ClientGone as gone:
            self._worker.log.debug("%s: the client went away: %s", client.peer, gone)
            client.forget_unsent()
        return answer

    def left(self, client: C, seconds: float) -> None:
        """Writes the record of a request that its client has given up before the application had it."""
        if self._record is not None:
            self._record(self._known(client, b"") if self._reads else {}, "", 0, seconds, (), "X")

    def refuse_seen(self, client: C, request: Request, error: HTTPError, now: float) -> None:
        """The same for a request that hooks have seen, and the application has not."""
        answer = self.refuse(client, error, now, now)
        client.close_after = True
        client.sent = 0
        if self._after is not None:
            self._hook(self._after, self._worker, request, {}, self._refusal(request, answer, error.status))

    def _refusal(self, request: Request, answer: bytes, status: int) -> Answer:
        """The answer to a request that pre_request has seen and the application has not, as post_request sees it."""
        response = Answer(self.heads, Nowhere(), request, self._worker.log)
        response.keep_alive = False
        response.fail(answer, status)
        return response

    def complain(self, log: Callable[..., None], what: str, *args: Any) -> None:
        """Says by `log` what a client did, or could bring about."""
        self._complaints[log.__name__].say(time.monotonic(), log, what, *args)

    def _known(self, client: C, head: bytes) -> Environ:
        """What the record of a refused request says of it: all, or what can be made out of `head`."""
        from sdserve.access.log import refused

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
