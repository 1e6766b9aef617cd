"""Warm-up: requests that a new worker answers to itself before it counts as serving.

Frameworks import late: Django reads its urls.py, and Flask what a view imports, when the first request needs it. An
application that imports well may still answer every request with 500, and the first client of each worker waits for
what was left undone. The setting `warmup` names requests that find both out while the old workers still serve.

They run as the worker class runs any other, one after the other, in its main thread, and answers are made to their end.
They are nobody's requests: no hook sees them, no record counts them, and nothing but boot_timeout bounds them.
"""

import logging
from collections.abc import Callable
from time import monotonic

from sdserve import SERVER_SOFTWARE
from sdserve.errors import BootError
from sdserve.gateway.answer import Answer
from sdserve.gateway.environ import Environ, Environs
from sdserve.http.errors import HTTPError
from sdserve.http.limits import Limits
from sdserve.http.request import Request, RequestReader
from sdserve.log import Logger

USER_AGENT = f"{SERVER_SOFTWARE} (warm-up)"
CLIENT = ("127.0.0.1", "")  # address and port, which nobody has
PORTS = {"http": "80", "https": "443"}
Call = Callable[[Environ, Request], Answer]


class Overheard(logging.Handler):
    """The last exception that the application logged: a framework turns it into a 500, and the server never sees it."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.error = record.exc_info[1]


def warm_up(environs: Environs, target: str, limits: Limits, call: Call, log: Logger) -> None:
    """Has `call` answer a GET of `target`, a path or an http(s) URL.

    Raises BootError unless the answer is complete and its status below 500.
    """
    began = monotonic()
    overheard = Overheard()
    logging.getLogger().addHandler(overheard)
    try:
        response = call(*_request(environs, target, limits))
    finally:
        logging.getLogger().removeHandler(overheard)
    if response.status_code >= 500 or response.broken or not response.complete:
        if response.error is None and overheard.error is not None:  # not every application shows what it logs
            log.error("The application logged, at the warm-up of %s:", target, exc_info=overheard.error)
        raise BootError(f"warm-up of {target} {_failure(response, response.error or overheard.error)}")
    say: Callable[..., None] = log.warning if response.status_code >= 400 else log.info
    say("Warm-up of %s: answered %s in %.3f s", target, response.status, monotonic() - began)


def _request(environs: Environs, target: str, limits: Limits) -> tuple[Environ, Request]:
    """What a connection from this machine shares, and the request."""
    from urllib.parse import urlsplit  # at a boot, which imports the application as well

    url = urlsplit(target if "://" in target else f"http://localhost{target}")
    uri = (url.path or "/") + (f"?{url.query}" if url.query else "")
    head = f"GET {uri} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n\r\n"
    base = environs.of_connection((url.hostname or "", str(url.port or PORTS[url.scheme])), CLIENT)
    base["wsgi.url_scheme"] = url.scheme
    try:
        request = RequestReader(limits).read(head.encode("ascii"))
        environs.of_request(base, request, 0)
    except HTTPError as error:
        raise BootError(f"warm-up of {target} is refused with {error.status} {error.reason}: {error}") from error
    return base, request


def _failure(response: Answer, error: BaseException | None) -> str:
    what = f"answered {response.status}" if response.status_code >= 500 else "broke off its answer"
    if error is None:
        return what
    text = (str(error).splitlines() or [""])[0]
    return f"{what}: {type(error).__name__}: {text}" if text else f"{what}: {type(error).__name__}"
