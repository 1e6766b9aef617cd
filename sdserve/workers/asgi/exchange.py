"""One request of an ASGI application: hooks, scope, the task that runs it, and what becomes of its answer.

A call may outlast its answer (background tasks do) and its client. It stays in `running` until its task is over, so
that a worker that retires waits for it.
"""

import asyncio
from asyncio import CancelledError, Task, TimerHandle
from collections.abc import Awaitable, Callable
from functools import cached_property
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sdserve import events
from sdserve.gateway.answer import Nowhere, Sink
from sdserve.gateway.asgi import HTTPCall
from sdserve.gateway.asgi_call import Call
from sdserve.gateway.environ import Environ, Environs
from sdserve.gateway.forwarded import TRUSTED
from sdserve.gateway.scope import Scope, Scopes
from sdserve.http.errors import HTTPError, Unavailable
from sdserve.http.handshake import is_asked
from sdserve.http.request import Request
from sdserve.http.response import HeadWriter
from sdserve.http.writer import ClientGone
from sdserve.workers.asgi.blocked import call_of
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.opening import Opening
from sdserve.workers.asgi.options import AsgiOptions
from sdserve.workers.asgi.tasks import Tasks
from sdserve.workers.base import Worker
from sdserve.workers.http.exchange import Exchange
from sdserve.workers.options import Options

if TYPE_CHECKING:
    from sdserve.access.measured import Records
    from sdserve.gateway.asgi_websocket import WebSocketHost

ASGIApp = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[Any]]
QUEUED_SINCE = b"x-request-start"
NOTHING: dict[str, Any] = {}


class Nobody(Nowhere):
    """Client and host of a warm-up in one: takes everything, says nothing."""

    owed = 0

    def __init__(self) -> None:
        self.conn: Any = SimpleNamespace(state=None)
        self.loop = asyncio.get_running_loop()

    def send_continue(self) -> None: ...

    def received(self, data: bytes, now: float) -> bool:
        return False

    def has_news(self) -> bool:
        return False

    def wants_body(self, call: Call) -> None: ...

    def wants_room(self, call: Call) -> None: ...

    def in_pieces(self, call: Call) -> Sink:
        return self

    def lost(self, call: Call, why: ClientGone) -> None: ...

    def refused(self, call: Call, error: HTTPError) -> None: ...

    def cuts(self, call: Call) -> None: ...

    def completed(self, call: Call) -> None: ...

    def ended(self, call: Call) -> None: ...


class ASGIExchange(Exchange[ASGIClient]):
    """Answers requests by `app`. `host` is set by who has the clients, `asgi` by the worker."""

    host: "WebSocketHost"
    asgi: AsgiOptions
    _told_of_result = False

    def __init__(
        self,
        worker: Worker,
        app: ASGIApp,
        environs: Environs,
        scopes: Scopes,
        heads: HeadWriter,
        tasks: Tasks,
        options: Options,
        access: "Records | None" = None,
    ) -> None:
        super().__init__(worker, environs, heads, options, access)
        self._app = app
        self._scopes = scopes
        self._tasks = tasks
        self._log = worker.log
        self._describes = self._reads or self._after is not None  # answers, by environ and headers
        self.running: dict[Call, Task[None] | None] = {}  # calls whose tasks are not over
        self._beginning: Call | None = None  # the call that takes its first step now
        self._graces: dict[Call, TimerHandle] = {}  # for calls whose clients have gone: when they are cancelled

    def _environ(self, client: ASGIClient, request: Request) -> Environ:
        """For hooks and records. Its path may lack the prefix that the application is mounted at; the scope has it."""
        return self.environs.of_request(client.base, request, client.standing, mounted=False)

    def client_of(self, call: Call) -> ASGIClient:
        """The client of a call that is not over."""
        return call.client  # type: ignore[no-any-return]

    async def answer_nobody(self, base: Environ, request: Request) -> Call:
        """The answer to a warm-up, which nobody reads."""
        self.heads.clock(monotonic())
        scope = self._scopes.of_request(("localhost", None), None, request, 0)
        scope["scheme"], scope["server"] = base["wsgi.url_scheme"], (base["SERVER_NAME"], int(base["SERVER_PORT"]))
        scope["extensions"] = {}
        call = HTTPCall(self.heads, Nobody(), request, self._log, Nobody(), b"")
        try:
            await self._app(scope, call.receive, call.send)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the warm-up has failed
            call.error = error
            call.broken = True
            if not call.head_sent:
                call.fail(self.heads.plain(500, "Internal Server Error"), 500)
        return call

    def answer(self, client: ASGIClient, request: Request, whole: bytes | None, began: float) -> None:
        """Starts the call of the application for one request; `whole` is its body, None if that still arrives.

        Raises HTTPError if it cannot be served.
        """
        heads = self.heads
        if began >= heads.until:
            heads.clock(began)
        if self._before is not None or self._after is not None:
            self._hooked(client, request)
        if self.asgi.concurrency and len(self.running) >= self.asgi.concurrency:
            raise Unavailable(f"{len(self.running)} calls run, which is limit_concurrency")
        scope = self._scopes.of_request(client.server, client.address, request, client.standing)
        if client.standing & TRUSTED and (known := request.by_name) is not None and (stamp := known.get(QUEUED_SINCE)):
            self.note_queue(stamp.decode("latin-1"))
        if request.upgrade and is_asked(request):
            call: HTTPCall = self._opening.call(client, request, scope)
        else:
            call = HTTPCall(heads, client, request, self._log, self.host, whole)
        if self._after is not None:
            self._owed[call] = request, self._environ(client, request)
        client.call = call
        call.began = began
        running = self.running
        running[call] = None
        self._beginning = call
        try:
            task = self._tasks.start(self._run(call, scope))
        except BaseException:  # of a task factory that is the application's
            del running[call]
            raise
        finally:
            self._beginning = None
        if call in running:
            running[call] = task

    @cached_property
    def _opening(self) -> Opening:
        return Opening(self.heads, self.host, self.asgi, self._log)

    def opened(self, client: ASGIClient, call: HTTPCall, now: float) -> None:
        """Writes a record of a WebSocket when it opens. Another one at its end says what went over it."""
        if self._record is not None and self._reads:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in call.headers]
            seconds = now - call.began
            self._record(self._environ(client, call.request), call.status, 0, seconds, headers, "+")

    async def _run(self, call: HTTPCall, scope: Scope) -> None:
        try:
            result = await self._app(scope, call.receive, call.send)
            if result is not None and not self._told_of_result:
                self._told_of_result = True  # it is the same with each request
                self._log.warning("The application returned %r, and should return None", type(result))
            if not call.complete:
                self._incomplete(call, None)
        except BaseException as error:  # noqa: BLE001 - nothing that an application raises may end the worker
            self._failed(call, error)
        finally:
            self._ended(call)

    def _failed(self, call: HTTPCall, error: BaseException) -> None:
        request = call.request
        what = f"{request.method} {request.uri}"
        if isinstance(error, CancelledError) and call.cancelled:
            self._log.debug("%s: cancelled", what)
        elif call.over and _is_about_its_client(error):
            self._log.debug("%s: the client went away: %r", what, error)
        elif call.told:  # what frameworks raise then is their own
            self.complain(self._log.info, "%s: the client went away, and the application raised %r", what, error)
            self._log.debug("%s: what it raised", what, exc_info=error)
        else:
            if not call.forgotten:  # else nobody would let go of it
                call.error = error
            self._log.event(events.REQUEST_FAILED, exc_info=error, REQUEST=what, ERROR=type(error).__qualname__)
        if not call.complete:
            self._incomplete(call, error)

    def _incomplete(self, call: HTTPCall, error: BaseException | None) -> None:
        """The application has ended without ending its answer."""
        try:
            if call.finish(error, monotonic()):
                return
        except ClientGone as gone:
            self.host.lost(call, gone)
            return
        what = f"{call.request.method} {call.request.uri}"
        call.keep_alive = False
        if call.gone:
            return
        if error is None and not call.told:
            self._log.error("%s: the application %s", what, call.shortfall())
        if call.head_sent:
            call.broken = call.complete = True
        else:
            call.fail(self.heads.plain(500, "Internal Server Error", body=call.request.method != "HEAD"), 500)
        self.host.completed(call)

    def refuse_call(self, client: ASGIClient, call: Call, error: HTTPError, now: float) -> None:
        """Answers a request whose body is malformed or late, instead of the application that has it."""
        client.call = None
        answer = self.refuse(client, error, now, call.began)
        if self._after is not None and call in self._owed:
            request, environ = self._owed.pop(call)
            self._hook(self._after, self._worker, request, environ, self._refusal(request, answer, error.status))
        call.refuse()

    def _ended(self, call: Call) -> None:
        """The task is over."""
        lasted = self.running.pop(call) is not None
        if self._graces and (grace := self._graces.pop(call, None)) is not None:
            grace.cancel()
        if call.gone and not call.complete:
            client: ASGIClient = call.client
            self.finished(client, call)
            client.call = None  # a hook's request knows its client
            client.forget()
        if lasted or not self._worker.alive:  # no turn of the loop sees it
            self.host.ended(call)

    def answered(self, client: ASGIClient) -> None:
        """A client has taken all of its answer, or has gone meanwhile."""
        call, client.call = client.call, None
        if call is not None:
            self.finished(client, call)

    def finished(self, client: ASGIClient, call: Call) -> None:
        """A call's answer has left, or its client has gone and it has ended."""
        environ = NOTHING
        if self._describes:
            environ = self._owed[call][1] if call in self._owed else self._environ(client, call.request)
            call.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in call.headers]
        self.over(client, environ, call, call.began)

    def spare(self, call: Call) -> None:
        """The client has gone: cancels the call after disconnect_grace, if it has not ended by itself."""
        seconds = self.asgi.disconnect_grace
        if seconds and call in self.running and call not in self._graces:
            self._graces[call] = self.host.loop.call_later(seconds, self._end, call)

    def _end(self, call: Call) -> None:
        del self._graces[call]
        task = self.running[call]
        if task is not None:
            self._log.debug("%s %s: cancelled, its client has gone", call.request.method, call.request.uri)
            call.cancelled = True
            task.cancel()

    def current(self) -> Call | None:
        """The call that the event loop is in."""
        return self._beginning or call_of(self.host.loop, self.running)

    def cancel(self) -> bool:
        """Cancels what still runs, once; whether anything does."""
        for call, task in list(self.running.items()):
            if task is not None:
                self.running[call] = None
                call.cancelled = True
                task.cancel()
        return bool(self.running)


def _is_about_its_client(error: BaseException | None) -> bool:
    """Whether an exception is what `send` raised for a client that has gone, or came of that."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ClientGone):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
