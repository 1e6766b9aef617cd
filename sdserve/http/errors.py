"""What can be wrong with a request, as exceptions that know their own answer.

A peer's fault is an `HTTPError`: its class says the status, its text what was wrong (for the log, and in one word for
the client). Whoever catches one answers with `status` and `reason`, closes the connection and parses nothing more: what
follows a malformed message cannot be trusted to be a message. An application's fault is an `InvalidResponse`.
"""


class HTTPError(Exception):
    """A request that cannot be served as it was sent. `status` and `reason` are the answer (RFC 9110 section 15).

    `head` is what had arrived of a head that could not be read, for the record.
    """

    status: int = 400
    reason: str = "Bad Request"
    retry_after = 0  # seconds; 0: trying again is not suggested
    head: bytes = b""


class BadRequest(HTTPError):
    """Malformed or ambiguous: 400."""


class MethodNotSupported(HTTPError):
    """A method that this server will not perform (CONNECT), or a transfer coding that it cannot undo: 501."""

    status = 501
    reason = "Not Implemented"


class RequestTimedOut(HTTPError):
    """The head did not arrive in time, or the body is slower than the minimum rate: 408."""

    status = 408
    reason = "Request Timeout"


class BodyTooLarge(HTTPError):
    """The body is, or would be, longer than the limit: 413."""

    status = 413
    reason = "Content Too Large"


class TargetTooLong(HTTPError):
    """The request line is longer than the limit: 414."""

    status = 414
    reason = "URI Too Long"


class ExpectationFailed(HTTPError):
    """An Expect other than 100-continue: 417."""

    status = 417
    reason = "Expectation Failed"


class FieldsTooLarge(HTTPError):
    """Too many header fields, one too large, or all of them together: 431 (RFC 6585)."""

    status = 431
    reason = "Request Header Fields Too Large"


class VersionNotSupported(HTTPError):
    """A major version other than 1: 505."""

    status = 505
    reason = "HTTP Version Not Supported"


class Unavailable(HTTPError):
    """There is no room for the request now, and there may be soon: 503."""

    status = 503
    reason = "Service Unavailable"
    retry_after = 5


class InsufficientStorage(HTTPError):
    """The body cannot be kept: 507 (RFC 4918)."""

    status = 507
    reason = "Insufficient Storage"


class IllegalMove(RuntimeError):
    """The caller asked a connection for something that its state does not allow: a bug of ours, never the peer's."""


class InvalidResponse(ValueError):
    """The application's status or headers cannot be sent as HTTP: nothing of them is."""
