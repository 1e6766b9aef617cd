"""The ASGI worker's loop: an epoll of our own inside of the application's event loop.

The event loop polls one descriptor of ours, the epoll's. A turn takes its events, and starts calls; `_settle` then sees
what is due, and whether it is time to leave. Between turns the loop is the application's. Whoever asks for `_settle`:
it is called once between two polls, so no more is done for those who have sent much before others are looked at.

The process is marked busy while a call runs, and a timer renews the mark: it grows old only when the event loop does
not turn, however long a call lasts. Without calls there is no timer, and nobody is woken.
"""

import select
from asyncio import AbstractEventLoop, TimerHandle
from time import monotonic

from sdserve.process import forked
from sdserve.process.counters import BUSY
from sdserve.workers.asgi.client import ASGIClient
from sdserve.workers.asgi.clients import ASGIClients
from sdserve.workers.asgi.exchange import ASGIExchange
from sdserve.workers.base import Worker
from sdserve.workers.http.client import Phase, Running
from sdserve.workers.http.deadlines import NEVER
from sdserve.workers.http.loop import BATCH, EVENTS, Loop
from sdserve.workers.lasting import Lasting
from sdserve.workers.options import Options

RESCUE = 0.02  # seconds between two offers of connections, by a worker whose event loop is blocked
LAST_WORDS = 1.0  # seconds, at most, between the end of streams and that of calls
RENEWED = 4  # times the busy mark is renewed within `timeout`


class ASGILoop(Loop[ASGIClient]):
    """Serves inside of `loop`, which does not run yet."""

    _clients: ASGIClients
    _exchange: ASGIExchange

    def __init__(
        self,
        worker: Worker,
        options: Options,
        exchange: ASGIExchange,
        loop: AbstractEventLoop,
        stream_grace: float,
    ) -> None:
        epoll = select.epoll()
        clients = ASGIClients(worker, options, epoll, exchange, loop, self._settle_soon)
        exchange.host = clients
        super().__init__(worker, options, epoll, clients, exchange)
        clients.before_cut = self.name_what_is_cut
        self._loop = loop
        self._shown = 0  # calls, as others see it
        self._soon = False  # `_settle` follows without being asked for, or runs
        self._asked = False  # the event loop is about to call `_settle`
        self._over = False
        self._rests = False  # after a failure, for a moment
        self._stream_grace = stream_grace
        self._streams_until = NEVER  # when a worker that leaves ends them
        self._timer: TimerHandle | None = None
        self._timer_at = NEVER
        self._renew_at = NEVER  # when the busy mark must be renewed
        self._renewal = (options.timeout or NEVER) / RENEWED

    def get_ready(self) -> None:
        super().get_ready()
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def give_up(self) -> None:
        """Said when `run` is not to follow, or has failed: nothing is polled while the event loop turns on."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())

    def _serve(self) -> None:
        loop = self._loop
        self._settle_soon()
        try:
            while not self._over:  # whoever else stops the loop has no say
                loop.run_forever()
        finally:
            loop.remove_reader(self._epoll.fileno())
            if self._timer is not None:
                self._timer.cancel()

    def _stop(self) -> None:
        if not self._over:
            self._over = True
            self._loop.stop()

    def _pauses(self, seconds: float) -> bool:
        """The event loop turns on meanwhile: the application has it, too."""
        self._rests = self._soon = True
        self._loop.remove_reader(self._epoll.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._resume)
        return False

    def _resume(self) -> None:
        self._rests = False
        self._loop.add_reader(self._epoll.fileno(), self._turn)
        self._due()

    def _close_all(self) -> None:
        self._clients.cut()
        super()._close_all()

    def name_what_is_cut(self) -> None:
        """Before calls are cancelled: names them once, not again if they ignore that."""
        if not (self._over or self._worker.quick):
            super().name_what_is_cut()

    def end_calls(self) -> None:
        """Nothing is served any more: cancels what still runs, and names it where `run` has not ended in order. An
        exception of the application's has left the event loop then, sys.exit() in a task of its own for one."""
        if not (self._over or self._worker.quick):
            self._name_cut("the application has ended its worker")
        self._exchange.cancel()

    def calls(self) -> list[Running]:
        """As in any loop. The call that the event loop is in comes first: the others wait for it."""
        now, current = monotonic(), self._exchange.current()
        named = []
        for call in sorted(self._exchange.running, key=lambda call: call is not current):
            request, seconds = f"{call.request.method} {call.request.uri}", now - call.began
            what = f"{request} has run for {seconds:.1f} s"
            sent = f" and sent {call.sent} bytes" if call.head_sent else ""
            what += ", and its answer is complete" if call.complete else sent
            what += ", and blocks the event loop" if call is current else ""
            client = self._exchange.client_of(call)
            named.append(Running(what, request, client.peer or "unix", seconds, call is current))
        return named

    def lasting(self) -> list[Lasting]:
        return [
            Lasting(bool(call.head_sent), call.began, f"{call.request.method} {call.request.path}")
            for call in list(self._exchange.running)
        ]

    def run_without(self) -> None:
        """Ends the service of a worker whose event loop is blocked, in another thread.

        Requests that the application has are lost: their connections are reset. All others go to other workers.
        """
        clients = self._clients
        for client in clients:
            if client.phase not in (Phase.PREFACE, Phase.HEAD):
                client.reset_at_close()
                client.call = None
                clients.close(client)
        while not self._retirement.is_over(monotonic(), 0):
            ready, _, _ = select.select(self._worker.control_fds(), [], [], RESCUE)
            for fd in ready:
                self._worker.handle_control(fd)
        self._close_all()

    def _turn(self) -> None:
        """Takes the events of epoll, and what waits for its turn."""
        client: ASGIClient | None = None
        self._soon = True
        clients, pending = self._clients, self._pending
        find, event = clients.open.get, clients.event
        try:
            pending.extend(self._epoll.poll(0, EVENTS))
            self._polled = now = monotonic()
            clients.turn(now)
        except BaseException as error:  # noqa: BLE001 - whatever it is, other clients are served
            if not self._survives(None, error):
                return
        while pending:
            try:
                fd, mask = pending.popleft()
                client = find(fd)
                if client is None:
                    self._other(fd)
                else:
                    event(client, mask)
            except BaseException as error:  # noqa: BLE001 - as above
                if not self._survives(client, error):
                    return
        if not self._asked:
            self._settle()

    def _settle_soon(self) -> None:
        """Something has changed outside of a turn."""
        if not (self._soon or self._asked or self._over):
            self._loop.call_soon(self._settle)
            self._asked = True

    def _settle(self) -> None:
        """Does what is due, and what waits for its turn; leaves if it is time to; sets when to look again."""
        self._asked = False
        if forked.child:
            forked.leave(self._worker.log.error)
        if self._over or self._rests:  # it was asked for before that
            return
        self._soon = True
        clients, client, failed = self._clients, None, False
        ready = clients.ready
        try:
            now = monotonic()
            if self._polled >= clients.sweep_at or (now >= clients.sweep_at and not self._has_events()):
                clients.sweep(now)
                self._reopen()
            if ready:
                for client in clients.in_turn(BATCH):
                    clients.advance(client, now)
                client = None
            clients.bursts.release()
            self._rest(now)
            if not self._worker.alive and self._is_over(now):
                self._stop()
        except BaseException as error:  # noqa: BLE001 - as above
            if not self._survives(client, error):
                return
            failed = True  # and the rest was skipped
        self._soon = False
        if ready or failed:
            self._settle_soon()
        if clients.sweep_at < self._timer_at or self._renew_at < self._timer_at or not self._worker.alive:
            self._set_timer()

    def _has_events(self) -> bool:
        """Whether epoll has events that were not polled yet: they come before deadlines."""
        poll = select.poll()
        poll.register(self._epoll, select.POLLIN)
        return bool(poll.poll(0))

    def _rest(self, now: float) -> None:
        """Counts, writes records, and says whether this process is busy."""
        clients, worker, acceptor, access = self._clients, self._worker, self._acceptor, self._exchange.access
        if clients.count:
            self._count()
        if access is not None and access.pending:
            access.flush()
        if (calls := len(self._exchange.running)) != self._shown:
            self._shown = calls
            worker.counters.set(BUSY, calls)
        if calls:
            if now >= self._renew_at or not clients.marked or self._renew_at == NEVER:
                self._renew_at = now + self._renewal
                worker.not_polling(now)
            clients.marked = True
        else:
            self._renew_at = NEVER
            if clients.marked:
                clients.rest()
        if not acceptor.open:
            self._reopen()
        if len(clients.open) != acceptor.shown:
            acceptor.tell_others()

    def _is_over(self, now: float) -> bool:
        """Goes on retiring; true when it is time to leave: first clients go, then calls that outlast their answers."""
        worker, clients, retirement = self._worker, self._clients, self._retirement
        if self._streams_until == NEVER and worker.drain_by is not None:
            left = worker.drain_by - now
            self._streams_until = min(now + self._stream_grace, worker.drain_by - min(LAST_WORDS, left / 4))
        if now >= self._streams_until:
            clients.end_streams()
        return retirement.is_over(now, 0) and (retirement.cutting or not self._exchange.running)

    def _set_timer(self) -> None:
        """Has `_turn` called when something is due."""
        at = min(self._clients.sweep_at, self._renew_at)
        if not (self._worker.alive or self._retirement.cutting):
            streams_until = self._streams_until if self._streams_until > self._polled else NEVER
            at = min(at, streams_until, self._worker.drain_by or NEVER)
        timer = self._timer
        if timer is not None and (at >= self._timer_at or at == NEVER):
            return  # it comes early, and sets the next one
        if timer is not None:
            timer.cancel()
            self._timer = None
        if at < NEVER:
            self._timer_at = at
            self._timer = self._loop.call_later(max(0.0, at - monotonic()), self._due)

    def _due(self) -> None:
        self._timer = None
        self._timer_at = NEVER
        self._turn()
