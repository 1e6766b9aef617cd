"""The control socket: sdservectl's questions and commands, and varlinkctl's, answered by the master's loop.

A Unix socket in RuntimeDirectory=, mode 0600, that hears root and the user of the service, and nobody else. Its two
dialects are in ops/dialects.py, its commands in ops/commands.py. Commands that take a while (reload, upgrade) are
answered when their outcome is known. An upgrade passes the socket on (`OldMaster.pass_on_control`).

An operator is heard whatever others do there: clients that do not ask make room for those that may, and a master that
is out of descriptors has one in reserve.
"""

import os
import socket
import struct
from collections.abc import Callable

from sdserve.arbiter.call import Call
from sdserve.arbiter.control_client import ControlClient
from sdserve.arbiter.loop import NO_DEADLINE, Loop
from sdserve.descriptor import Descriptor
from sdserve.errors import NO_ROOM, BootError, ListenError, in_words
from sdserve.log import Logger
from sdserve.ops.commands import Command
from sdserve.process import listeners
from sdserve.process.listeners import Listener

PAUSE = 1.0  # seconds without accepting after there was no room for a connection
BACKLOG = 128
MOST_SILENT = 32  # clients that have not asked: the oldest makes room for the next
MOST_WAITING = 256  # clients that wait for an answer, or follow: a follower makes room, else one more is refused
Handler = Callable[[Call], None]
_CREDENTIALS = struct.Struct("3i")


class Control:
    """Accepts clients, and hands what each asks for to the handler of that command's name."""

    def __init__(
        self, loop: Loop, log: Logger, handlers: dict[str, Handler], bind: Callable[..., Listener] = listeners.bind
    ) -> None:
        self._loop = loop
        self._log = log
        self._handlers = handlers
        self._bind = bind
        self.listener: Listener | None = None
        self._keeps = False
        self._pausing = NO_DEADLINE
        self._reserve = Descriptor(-1)
        self._clients: dict[ControlClient, float] = {}  # and when each came; the oldest first

    @property
    def reachable(self) -> bool:
        """Whether sdservectl finds the socket at its path."""
        return self.listener is not None and self.listener.found()

    def open(self, path: str) -> None:
        """Listens on `path`, and no longer on any socket of before. Raises ListenError."""
        listener = self._bind(path, backlog=BACKLOG)
        if (before := self.release()) is not None:
            before.close()
        self.adopt(listener)

    def keep_open(self, path: str | None) -> None:
        """Listens on `path`, unless it does already; again if somebody has removed the socket's file."""
        self._keeps = True
        if path and not self.reachable:
            try:
                self.open(path)
            except ListenError as error:  # sdservectl will miss it, clients will not
                self._log.warning("no control socket: %s", error)

    def renew(self, path: str | None) -> None:
        """Makes good for what is missing, unless the socket is another master's."""
        if self._keeps:
            self.keep_open(path)

    def adopt(self, listener: Listener) -> None:
        """Goes on with a socket that an old master passed on."""
        self.listener, self._keeps = listener, True
        self._keep_reserve()
        self._loop.watch(listener, self._accept)

    def release(self) -> Listener | None:
        """Stops accepting and gives the socket away, with the connections that wait in it."""
        listener, self.listener = self.listener, None
        self._keeps = False
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
            client.end()
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
        if not self._may_ask(connection):
            connection.close()
            self._keep_reserve()
            return
        if sum(not client.waits for client in self._clients) >= MOST_SILENT:
            self._drop_a_silent_one(self._loop.now())
        self._clients[ControlClient(connection, self._loop, self._asks, self._forget)] = self._loop.now()

    def _may_ask(self, connection: socket.socket) -> bool:
        """Whether it is root, or the user of the service (SO_PEERCRED, unix(7)): the mode of the socket may change."""
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid in (0, os.geteuid()):
            return True
        self._log.warning("control socket: user %s is not heard, only root and the service's own user are", uid)
        return False

    def _drop_a_silent_one(self, since: float) -> bool:
        """Ends the connection of the oldest client that has not asked, if it came by `since`; false without one."""
        for client, came in self._clients.items():
            if not client.waits and came <= since:
                client.end()
                return True
        return False

    def _accepted(self, sock: socket.socket) -> socket.socket:
        """The next connection. For it, a master that is out of descriptors drops a silent client, or its reserve."""
        while True:
            try:
                fd, _ = sock._accept()  # type: ignore[attr-defined]
            except OSError as error:
                before = self._loop.now() - PAUSE
                if error.errno not in NO_ROOM or not (self._drop_a_silent_one(before) or self._gives_up_reserve()):
                    raise
            else:
                # With all four arguments the constructor asks nothing of the kernel, and so cannot fail.
                return socket.socket(sock.family, sock.type, sock.proto, fd)

    def _gives_up_reserve(self) -> bool:
        if self._reserve.fileno() < 0:
            return False
        self._log.warning("this master is out of file descriptors (LimitNOFILE=): only sdservectl is heard")
        self._reserve.close()
        return True

    def _keep_reserve(self) -> None:
        """Keeps a descriptor in reserve, for an operator who comes when no other is left."""
        if self._reserve.fileno() < 0:
            try:
                self._reserve = Descriptor(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
                self._loop.own(self._reserve)
            except OSError as error:
                self._log.debug("control socket: no reserve: %s", error)

    def _pause(self, error: OSError) -> None:
        """Accepts nobody for a moment: the connection that waits would wake the loop again and again."""
        assert self.listener is not None
        self._log.warning("control socket: %s; the next attempt is in %g s", error.strerror, PAUSE)
        self._loop.unwatch(self.listener)

        def go_on() -> None:
            if self.listener is not None:
                self._keep_reserve()
                self._loop.watch(self.listener, self._accept)

        self._pausing = self._loop.call_at(self._loop.now() + PAUSE, go_on)

    def _asks(self, client: ControlClient, command: Command, call: Call) -> None:
        if sum(other.waits for other in self._clients) > MOST_WAITING and not self._drops_a_follower(client):
            call.fail("TooMany", f"{MOST_WAITING} clients wait for answers: ask again later")
            return
        try:
            self._handlers[command.name](call)
        except BootError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked waits for an answer
            self._log.exception("Error in the command %s of the control socket", command.name)
            call.fail("Failed", f"{command.name} has failed: {in_words(error)}; the log has the traceback")

    def _drops_a_follower(self, newcomer: ControlClient) -> bool:
        """Makes room: whoever has followed for longest has been told something, and the newcomer has not."""
        for client in self._clients:
            if client is not newcomer and client.follows:
                client.refuse("TooMany", "others ask, and whoever has followed for longest has to make room: ask again")
                return True
        return False

    def _forget(self, client: ControlClient) -> None:
        self._clients.pop(client, None)
        self._keep_reserve()
