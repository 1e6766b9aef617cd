"""The control socket: sdservectl's questions and commands, answered by the master's loop.

A Unix socket in RuntimeDirectory=, mode 0600: whoever may open it may command the service, and nobody else can. One
request is one line of JSON, {"command": …}; so is the answer, {"ok": …, …}. Commands that take a while (reload,
upgrade) are answered when their outcome is known. An upgrade passes the socket on (`OldMaster.pass_on_control`).
"""

import errno
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from sdserve.arbiter.loop import NO_DEADLINE, Loop
from sdserve.descriptor import Descriptor
from sdserve.errors import ListenError
from sdserve.log import Logger
from sdserve.process import listeners
from sdserve.process.listeners import Listener

LONGEST_REQUEST = 4096
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ASK_WITHIN = 10.0  # seconds from the connection to the end of the request
PAUSE = 1.0  # seconds in which nobody is accepted when there is no room for a connection
Answer = Callable[[dict[str, Any]], None]
Command = Callable[[Answer], None]


class Control:
    """Accepts, reads one request, and hands it with a way to answer to the command of that name."""

    def __init__(
        self, loop: Loop, log: Logger, commands: dict[str, Command], bind: Callable[..., Listener] = listeners.bind
    ) -> None:
        self._loop = loop
        self._log = log
        self._commands = commands
        self._bind = bind
        self.listener: Listener | None = None
        self._pausing = NO_DEADLINE
        self._reserve = Descriptor(-1)
        self._clients: set[_Client] = set()

    @property
    def reachable(self) -> bool:
        """Whether sdservectl finds the socket."""
        return self.listener is not None and self.listener.found()

    def open(self, path: str) -> None:
        """Listens on `path`, in the place of what was listened on before. Raises ListenError."""
        listener = self._bind(path, backlog=16)
        if (before := self.release()) is not None:
            before.close()
        self.adopt(listener)

    def keep_open(self, path: str | None) -> None:
        """Listens on `path`, unless it listens already; again where somebody took the socket's file away."""
        if path and not self.reachable:
            try:
                self.open(path)
            except ListenError as error:  # sdservectl will miss it, clients will not
                self._log.warning("no control socket: %s", error)

    def adopt(self, listener: Listener) -> None:
        """Goes on with a socket that an old master passed on."""
        self.listener = listener
        self._keep_reserve()
        self._loop.watch(listener, self._accept)

    def release(self) -> Listener | None:
        """Stops accepting and gives the socket away, with the connections that wait in it."""
        listener, self.listener = self.listener, None
        if listener is not None:
            self._loop.unwatch(listener)
        self._pausing.cancel()
        return listener

    def close(self) -> None:
        listener = self.release()
        if listener is not None:
            listener.unlink()
            listener.close()
        for client in list(self._clients):
            self._forget(client)
        self._reserve.close()

    def _accept(self) -> None:
        assert self.listener is not None
        try:
            connection = self._accepted(self.listener.sock)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._pause(error)
            else:  # it went away again
                self._log.debug("control socket: %s", error)
            return
        # All is said, so that nothing need be asked of the kernel, which could fail.
        client = _Client(connection.family, connection.type, connection.proto, connection.detach())
        client.setblocking(False)
        self._clients.add(client)
        self._loop.watch(client, lambda: self._read(client))
        client.to_ask = self._loop.call_at(self._loop.now() + ASK_WITHIN, lambda: self._forget(client))

    def _accepted(self, sock: socket.socket) -> socket.socket:
        """The next connection; a master that is out of descriptors gives up its reserve for it."""
        try:
            return sock.accept()[0]
        except OSError as error:
            if error.errno not in NO_ROOM or self._reserve.fileno() < 0:
                raise
        self._log.warning("this master is out of file descriptors (LimitNOFILE=): only sdservectl is heard")
        self._reserve.close()
        return sock.accept()[0]

    def _keep_reserve(self) -> None:
        """Keeps a descriptor in reserve for an operator, for when there is none left."""
        if self._reserve.fileno() < 0:
            try:
                self._reserve = Descriptor(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                self._loop.own(self._reserve)
            except OSError as error:
                self._log.debug("control socket: no reserve: %s", error)

    def _pause(self, error: OSError) -> None:
        """Accepts nobody for a moment: the connection stays queued, and would wake the loop again and again."""
        assert self.listener is not None
        self._log.warning("control socket: %s; the next attempt is in %g s", error.strerror, PAUSE)
        self._loop.unwatch(self.listener)

        def go_on() -> None:
            if self.listener is not None:
                self._keep_reserve()
                self._loop.watch(self.listener, self._accept)

        self._pausing = self._loop.call_at(self._loop.now() + PAUSE, go_on)

    def _read(self, client: "_Client") -> None:
        try:
            data = client.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        client.received += data
        if not data and client.asked:  # it closed its half, and may wait for the answer all the same
            self._loop.unwatch(client)
            return
        if not data or len(client.received) > LONGEST_REQUEST:
            self._forget(client)
            return
        if b"\n" not in client.received or client.asked:
            return
        client.asked = True
        client.to_ask.cancel()
        if (command := self._parse(client.received)) is not None:
            command(lambda answer: self._answer(client, answer))
        else:
            known = ", ".join(sorted(self._commands))
            self._answer(client, {"ok": False, "text": f"not understood; the commands are {known}"})

    def _parse(self, line: bytes) -> Command | None:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):  # the latter: nested too deep
            return None
        return self._commands.get(str(request.get("command"))) if isinstance(request, dict) else None

    def _answer(self, client: "_Client", answer: dict[str, Any]) -> None:
        if client not in self._clients:
            return  # it did not wait
        try:
            client.sendall(json.dumps(answer).encode() + b"\n")
        except OSError as error:
            self._log.debug("control socket: an answer could not be sent: %s", error)
        self._forget(client)

    def _forget(self, client: "_Client") -> None:
        self._clients.discard(client)
        client.to_ask.cancel()
        self._loop.unwatch(client)
        client.close()
        self._keep_reserve()


class _Client(socket.socket):
    """One connection, and what it has sent so far."""

    received = b""
    asked = False
    to_ask = NO_DEADLINE  # when it is forgotten if it has not asked
