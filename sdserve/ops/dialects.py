"""The two dialects of the control socket: bytes become requests, answers become bytes. No I/O.

In sdservectl's dialect a message ends in a newline. There is one request and one answer, both JSON on one line:
{"command": …, …} and {"ok": …, "text": …, …}. In Varlink (https://varlink.org) a message ends in NUL. Calls follow one
another: {"method", "parameters", "more"}, answered by {"parameters", "continues"} or {"error", "parameters"}. The end
of the first message decides for the whole connection: a newline within later Varlink messages is white space.
"""

import json
from typing import Any

from sdserve.immutable import Immutable
from sdserve.ops import interface
from sdserve.ops.commands import BY_NAME, Command

LONGEST = 4096  # bytes of a request
NEWLINE, NUL = b"\n", b"\0"
SERVICE = "org.varlink.service."


class TooLongError(Exception):
    """A message is longer than it may be."""


class Framer:
    """Cuts what was received into messages. `dialect` is the byte that ends them, b"" until one has ended."""

    def __init__(self) -> None:
        self.dialect = b""
        self._received = b""

    def feed(self, data: bytes) -> None:
        """Takes more bytes. Raises TooLongError if the next message, or all that waits, is too long."""
        self._received += data
        if not self.dialect:
            first = [place for end in (NEWLINE, NUL) if (place := self._received.find(end)) >= 0]
            if first:
                self.dialect = self._received[min(first) :][:1]
        length = self._received.find(self.dialect) if self.dialect else len(self._received)
        if length > LONGEST or (length < 0 and len(self._received) > LONGEST) or len(self._received) > 16 * LONGEST:
            raise TooLongError

    @property
    def has_next(self) -> bool:
        """Whether a message is whole."""
        return bool(self.dialect) and self.dialect in self._received

    def next(self) -> bytes | None:
        """The next message, without its end; None if it is not complete yet. Raises TooLongError."""
        if not self.dialect:
            return None
        message, end, rest = self._received.partition(self.dialect)
        if not end:
            return None
        self._received = rest
        if len(message) > LONGEST:  # it came behind another
            raise TooLongError
        return message


class Request(Immutable):
    """What was asked for: a command, or why it cannot be one (`failure`, with its fields).

    answered: the answer to what a Varlink client asks of every service
    """

    command: Command | None = None
    parameters: dict[str, Any] = {}  # noqa: RUF012 - never changed
    more: bool = False
    oneway: bool = False
    failure: str = ""
    text: str = ""
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed
    answered: dict[str, Any] | None = None


def read(dialect: bytes, message: bytes) -> Request | None:
    """The request of a message; None if it is not a Varlink call at all, which ends the connection."""
    try:
        data = json.loads(message)
    except (ValueError, RecursionError):  # the latter: nested too deep
        data = None
    if dialect == NUL:
        return _varlink(data) if isinstance(data, dict) and isinstance(data.get("method"), str) else None
    return _line(data if isinstance(data, dict) else {})


def _line(data: dict[str, Any]) -> Request:
    name = data.pop("command", None)
    command = BY_NAME.get(name) if isinstance(name, str) else None
    if command is None:
        known = ", ".join(sorted(name for name, command in BY_NAME.items() if not command.hidden))
        return Request(failure="NotUnderstood", text=f"not understood; the commands are {known}")
    return _checked(command, data, more=data.pop("more", False) is True)


def _varlink(data: dict[str, Any]) -> Request:
    parameters = data.get("parameters") or {}
    more, oneway = data.get("more") is True, data.get("oneway") is True
    where, _, method = data["method"].rpartition(".")
    if not isinstance(parameters, dict):
        return Request(failure=f"{SERVICE}InvalidParameter", fields={"parameter": "parameters"}, oneway=oneway)
    if f"{where}." == SERVICE:
        return _introspection(method, parameters).replace(oneway=oneway)
    if where != interface.NAME:
        return Request(failure=f"{SERVICE}InterfaceNotFound", fields={"interface": where}, oneway=oneway)
    command = interface.METHODS.get(method)
    if command is None:
        return Request(failure=f"{SERVICE}MethodNotFound", fields={"method": method}, oneway=oneway)
    return _checked(command, parameters, more=more).replace(oneway=oneway)


def _checked(command: Command, parameters: dict[str, Any], more: bool) -> Request:
    wrong, text = command.misfit(parameters)
    if text:
        return Request(failure=f"{SERVICE}InvalidParameter", text=text, fields={"parameter": wrong})
    if command.streams == "always" and not more:
        return Request(failure=f"{SERVICE}ExpectedMore", text=f"{command.name} goes on and on: ask with `more`")
    return Request(command=command, parameters=parameters, more=more and bool(command.streams))


def _introspection(method: str, parameters: dict[str, Any]) -> Request:
    """The calls that each Varlink service answers (https://varlink.org/Service)."""
    if method == "GetInfo":
        return Request(answered=interface.information())
    if method != "GetInterfaceDescription":
        return Request(failure=f"{SERVICE}MethodNotFound", fields={"method": method})
    wanted = parameters.get("interface")
    if wanted == interface.NAME:
        return Request(answered={"description": interface.description()})
    if wanted == interface.SERVICE_NAME:
        return Request(answered={"description": interface.SERVICE_DESCRIPTION})
    if not isinstance(wanted, str):
        return Request(failure=f"{SERVICE}InvalidParameter", fields={"parameter": "interface"})
    return Request(failure=f"{SERVICE}InterfaceNotFound", fields={"interface": wanted})


def answer(dialect: bytes, text: str, fields: dict[str, Any], *, continues: bool = False) -> bytes:
    """An answer, as bytes; `continues`: another follows."""
    more = {"continues": True} if continues else {}
    if dialect == NUL:
        return json.dumps({"parameters": {"text": text, **fields}, **more}).encode() + NUL
    return json.dumps({"ok": True, "text": text, **fields, **more}).encode() + NEWLINE


def introspected(fields: dict[str, Any]) -> bytes:
    """The answer to a call that each Varlink service answers, as bytes."""
    return json.dumps({"parameters": fields}).encode() + NUL


def refusal(dialect: bytes, failure: str, text: str, fields: dict[str, Any]) -> bytes:
    """An error, as bytes. `failure` is a name of the table of commands, or one of Varlink's own in full."""
    if dialect == NUL:
        own = {} if failure.startswith(SERVICE) else {"text": text}
        name = failure if "." in failure else f"{interface.NAME}.{failure}"
        return json.dumps({"error": name, "parameters": {**own, **fields}}).encode() + NUL
    again = {"again": True} if failure == "TakenOver" else {}
    name = failure.rpartition(".")[2]
    return json.dumps({"ok": False, "text": text, "error": name, **again, **fields}).encode() + NEWLINE
