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
    ours = False  # whose fault it is: the server has no room, and its operator should know
    retry_after = 0  # seconds; 0: trying again is not suggested
    fields: bytes = b""  # whole lines that the answer has besides
    head: bytes = b""

    def __init_subclass__(cls, status: int = 0, reason: str = "") -> None:
        if status:  # else it is its base's
            cls.status, cls.reason = status, reason


class BadRequest(HTTPError):
    """Malformed or ambiguous: 400."""


class MethodNotSupported(HTTPError, status=501, reason="Not Implemented"):
    """A method that this server will not perform (CONNECT), or a transfer coding that it cannot undo."""


class MethodNotAllowed(HTTPError, status=405, reason="Method Not Allowed"):
    """A WebSocket is opened by GET alone (RFC 6455 section 4.1)."""

    fields = b"Allow: GET\r\n"


class RequestTimedOut(HTTPError, status=408, reason="Request Timeout"):
    """The head did not arrive in time, or the body is slower than the minimum rate."""


class BodyTooLarge(HTTPError, status=413, reason="Content Too Large"):
    """The body is, or would be, longer than the limit."""


class TargetTooLong(HTTPError, status=414, reason="URI Too Long"):
    """The request line is longer than the limit."""


class ExpectationFailed(HTTPError, status=417, reason="Expectation Failed"):
    """An Expect other than 100-continue."""


class UpgradeRequired(HTTPError, status=426, reason="Upgrade Required"):
    """A WebSocket of another version than the one there is (RFC 6455 section 4.4)."""

    fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"


class FieldsTooLarge(HTTPError, status=431, reason="Request Header Fields Too Large"):
    """Too many header fields, one too large, or all of them together (RFC 6585)."""


class VersionNotSupported(HTTPError, status=505, reason="HTTP Version Not Supported"):
    """A major version other than 1."""


class Unavailable(HTTPError, status=503, reason="Service Unavailable"):
    """There is no room for the request now, and there may be soon."""

    ours = True
    retry_after = 5


class InsufficientStorage(HTTPError, status=507, reason="Insufficient Storage"):
    """The body cannot be kept (RFC 4918)."""

    ours = True


class IllegalMove(RuntimeError):
    """The caller asked a connection for something that its state does not allow: a bug of ours, never the peer's."""


class InvalidResponse(ValueError):
    """The application's status or headers cannot be sent as HTTP: nothing of them is."""
