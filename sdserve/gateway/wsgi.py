"""WSGI (PEP 3333): the call of the application. The environ of a request is environ.py's.

What the application answers is response.py's. Whatever it raises ends here: before its head was sent it becomes a 500,
afterwards an aborted response, and the log names the request.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sdserve import events
from sdserve.errors import Leave
from sdserve.gateway.environ import Environ
from sdserve.gateway.response import NothingSent, Response
from sdserve.http.errors import HTTPError
from sdserve.http.response import HeadWriter
from sdserve.http.writer import ClientGone, NoRoom
from sdserve.log import Logger
from sdserve.process import forked

WSGIApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Gateway:
    """Calls one application.

    `pulls`: an iterable is asked for more when the client has taken what there was, and not before. `others_wait` says
    whether anybody waits for the thread that asks; `timeout`: seconds for which an iterable may yield nothing, 0: any.
    """

    def __init__(self, app: WSGIApp, writer: HeadWriter, log: Logger) -> None:
        self.app = app
        self.writer = writer
        self.pulls = False
        self.others_wait: Callable[[], bool] = lambda: False
        self.timeout = 0.0
        self.complain: Callable[..., None] = log.info  # of requests whose bodies are at fault
        self.log = log

    def call(self, environ: Environ, response: Response) -> None:
        """Runs the application for one request and answers, whatever happens. Never raises an application's error.

        Where the client has no room for all of it, `response.result` is set, and `go_on` must be called when it has.
        """
        result: Any = None
        whole = True
        environ["wsgi.early_hints"] = response.early_hints
        try:
            result = self.app(environ, response.start_response)
            whole = response.send_result(result)
        except BaseException as error:  # noqa: BLE001 - nothing that an application raises may end the worker
            self._failed(response, error)
        if forked.child:
            forked.leave(self.log.error)
        if not whole:
            response.result = result
        elif type(result) is not list:
            self._close(response, result)

    def go_on(self, response: Response) -> None:
        """Goes on with a response whose `result` is set, as `call` began it."""
        whole = True
        try:
            whole = response.go_on()
        except BaseException as error:  # noqa: BLE001 - as above
            self._failed(response, error)
        if forked.child:
            forked.leave(self.log.error)
        if whole:
            self.drop(response)

    def drop(self, response: Response) -> None:
        """Nothing more is wanted of a response whose `result` is set."""
        result, response.result = response.result, None
        self._close(response, result)

    def _close(self, response: Response, result: Any) -> None:
        try:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        except BaseException as error:  # noqa: BLE001 - as above
            self._failed(response, error)
        if forked.child:
            forked.leave(self.log.error)

    def _failed(self, response: Response, error: BaseException) -> None:
        if isinstance(error, Leave):
            raise error
        request = response.request  # the environ is the application's, to do with as it likes
        what = f"{request.method} {request.uri}"
        if forked.child:  # where its connection is closed: that is no error
            forked.leave(self.log.error, None if isinstance(error, ClientGone) else error, what)
        response.keep_alive = False
        response.error = error
        if response.taken is not None:
            level = self.log.debug if isinstance(error, StopIteration | OSError) else self.log.error
            level("%s: %r ended the call that had taken the connection over", what, error, exc_info=error)
            return
        if isinstance(error, NoRoom):
            self.complain("%s is cut: %s", what, error)
            response.broken = True
            return
        if isinstance(error, ClientGone):
            self.log.debug("%s: the client went away: %s", what, error)
            response.broken = True
            return
        has_body = request.method != "HEAD"
        if isinstance(error, HTTPError):  # the request's body, read by the application, was at fault
            self.complain("%s: %s", what, error)
            answer = self.writer.error(error, body=has_body)
        else:
            if isinstance(error, NothingSent):
                self.log.error("%s %s; it is ended", what, error)
            else:
                self.log.event(events.REQUEST_FAILED, exc_info=error, REQUEST=what, ERROR=type(error).__qualname__)
            answer = self.writer.plain(500, "Internal Server Error", body=has_body)
        if response.head_sent:
            response.broken = not response.complete
            return
        response.fail(answer, error.status if isinstance(error, HTTPError) else 500)
