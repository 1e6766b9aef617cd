"""The pool at work: decisions become forks, signals and kills, and what becomes of workers becomes verdicts.

What to do is decided in decide.py, what a failed boot means in verdict.py; the processes are in children.py.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from logging import WARNING

from sdserve import events
from sdserve.arbiter import decide
from sdserve.arbiter.addresses import Addresses
from sdserve.arbiter.children import backoff_after
from sdserve.arbiter.decide import Backoff, Kill, Retire, Spawn
from sdserve.arbiter.generation import Generation
from sdserve.arbiter.hooks import Hooks, explain
from sdserve.arbiter.host import Host
from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.loop import NO_DEADLINE
from sdserve.arbiter.service import Service
from sdserve.arbiter.verdict import LAST_BOOTS, Verdict, on_failed_boot, on_no_room
from sdserve.arbiter.worker_handle import WorkerHandle, cause_of_end, describe
from sdserve.errors import AppImportError, BootError, NoRoomError, SdserveError, call_hook, in_words, no_room
from sdserve.process import foreign
from sdserve.process.counters import CAUSES, EXITS
from sdserve.process.pidfd import UNKNOWN
from sdserve.systemd import fdstore
from sdserve.systemd.notify import Notifier
from sdserve.workers.base import NO_CELL, Worker
from sdserve.workers.preimport import preimport
from sdserve.workers.words import DRAIN, PREIMPORT, RETIRE, SHARE

STORE_AGAIN = 0.5  # seconds until systemd is told again of what it did not hear; then twice as many
STORE_AGAIN_MOST = 20.0  # seconds
SHARE_AGAIN = (0.5, 2.0, 8.0)  # seconds until workers share again what was in use, or was taken by who came first


class Pool:
    """The workers of one master, and how long it bears with them.

    `roll_back` and `halt` are called where a failed boot ends the reload under way, or the service.
    """

    def __init__(
        self,
        service: Service,
        host: Host,
        addresses: Addresses,
        hooks: Hooks,
        roll_back: Callable[[str], None],
        halt: Callable[[str, SdserveError], None],
    ) -> None:
        self._service = service
        self._host = host
        self._addresses = addresses
        self._hooks = hooks
        self._roll_back = roll_back
        self._halt = halt
        self._children = service.children
        self._children.events = self
        self._in_gap = False  # an exclusive pool: one has left as told, and the next decision forks its successor
        self._boot_kills = 0
        self._lacking = ""  # why fewer workers serve than are wanted
        self._counted = -1  # workers, when the log was told last
        self._settled = False  # and the workers know
        self._shares_again = NO_DEADLINE
        self._wake = NO_DEADLINE
        self._using = ""  # what the log was told that workers serve by

    def healthy(self) -> bool:
        """Whether the watchdog may be told that all is well: a worker can answer, or none is wanted."""
        service = self._service
        if service.goal.size == 0 or service.state is Master.STARTING or self._can_answer():
            return True
        self._children.listen()  # one may have said that it serves, and the loop has not come to hear it
        return self._can_answer()

    def _can_answer(self) -> bool:
        members = self._children.members()
        return decide.some_serve(members) or decide.gap_ends(members, self._service.goal) or self._in_gap

    def all_serve(self) -> bool:
        """Whether the wanted number of the current generation serves."""
        return decide.all_serve(self._children.members(), self._service.goal)

    def resize(self, size: int) -> None:
        """Sets the wanted number of workers."""
        service = self._service
        before, service.goal = service.goal.size, service.goal.replace(size=size)
        service.log.event(events.RESIZED, WORKERS=size, BEFORE=before)
        self._hooks.tell("nworkers_changed", size, before)

    def manage(self) -> None:
        """Decides what the pool needs, and does it."""
        service, children = self._service, self._children
        self._in_gap = False
        now = service.loop.now()
        if any(member.deadline is not None and member.deadline <= now for member in children.members()):
            children.listen()  # the master may have been busy itself, and not have heard that one serves
        decision = decide.decide(children.members(), service.goal, self._generation.backoff, now)
        retry_at: float | None = None
        for action in decision.actions:
            if isinstance(action, Spawn):
                if not self.spawn(action.slot):  # the goal, or the time of the next attempt, is another one now
                    retry_at = now
                    break
            elif isinstance(action, Retire):
                handle = children.of_age(action.age)
                self._allow(handle)
                children.retire(handle)
            elif isinstance(action, Kill):
                children.overdue(children.of_age(action.age), action.phase)
        self._answer()
        self._count()
        self._forgive()
        self._share()
        # The actions set deadlines of their own: the next decision is due at the earliest of all.
        due = [member.deadline for member in children.members()] + [decision.wake_at, retry_at]
        self._wake_at(min((when for when in due if when is not None), default=None))

    def _count(self) -> None:
        if len(self._children) != self._counted:
            self._counted = count = len(self._children)
            metric = {"metric": "gunicorn.workers", "value": count, "mtype": "gauge"}
            self._service.log.debug("%d workers", count, extra=metric)

    def _forgive(self) -> None:
        """What kept workers away is over once as many serve as are wanted."""
        if self._lacking and self.all_serve():
            if self._service.trouble == self._lacking:
                self._service.trouble = ""
            self._lacking = ""

    def _share(self) -> None:
        """When all serve who are wanted, and nobody leaves any more, each worker hears that it may have too much."""
        settled = len(self._children) == self._service.goal.size and self.all_serve()
        if settled and not self._settled:
            self.share()
        self._settled = settled

    def share(self, again: Sequence[float] = SHARE_AGAIN) -> None:
        """Has workers with more connections than others give some away, and after a while once more."""
        for handle in self._children:
            handle.tell(SHARE)
        self._shares_again.cancel()
        if again:
            loop = self._service.loop
            self._shares_again = loop.call_at(loop.now() + again[0], lambda: self.share(again[1:]))

    def _wake_at(self, when: float | None) -> None:
        if self._wake.when != when or self._wake.cancelled:
            self._wake.cancel()
            self._wake = NO_DEADLINE if when is None else self._service.loop.call_at(when, lambda: None)

    def store_queue(self, notifier: Notifier, wait: float = STORE_AGAIN) -> None:
        """Has systemd keep the adoption queue beyond this master, and believes so until it hears otherwise.

        Where systemd does not hear of it, it is told again, first after `wait` seconds.
        """
        proof = self._service.adoption.store(notifier)
        if proof is None:
            return

        def not_kept() -> None:
            self._service.loop.drop(proof)
            self._service.adoption.refused()
            self.tell_successors()
            self._service.log.event(events.NOT_KEPT)

        def again() -> None:
            self.store_queue(notifier, min(2 * wait, STORE_AGAIN_MOST))
            self.tell_successors()

        if not proof.heard:
            proof.close()
            self._service.loop.call_at(self._service.loop.now() + wait, again)
            return
        self._service.loop.watch(proof, not_kept)
        if (counters := self._service.counters).shared is not None:
            fdstore.keep_counters(notifier, counters.shared.fileno(), fresh=counters.fresh)

    def tell_successors(self) -> None:
        """Tells all workers, also those that are leaving already, whether somebody follows."""
        for handle in self._children:
            self._allow(handle)

    def _answer(self) -> None:
        """Answers workers that leave because of somebody else's signal; the loop has handled all signals by now."""
        for handle in self._children:
            if handle.asks:
                handle.asks = False
                self._allow(handle)
                handle.tell(RETIRE)

    def _allow(self, handle: WorkerHandle) -> None:
        """Tells a worker whether somebody will serve its connections if it is told to leave now."""
        goal = self._service.goal
        follows = self._service.successor_serves or (goal.size > 0 and not goal.stopping)
        self._service.adoption.allow(handle.cell, successors=follows)

    def spawn(self, slot: int) -> int:
        """Forks a worker into `slot` and returns its pid, or 0 if that failed and was dealt with.

        What the hook or the worker class raises is a boot that failed.
        """
        service = self._service
        try:
            worker = foreign.call(service.log.error, lambda: self._new_worker(slot))
            call_hook("pre_fork", self._hooks.call, "pre_fork", worker)
        except Exception as error:  # noqa: BLE001 - logged, and judged like any boot that fails
            self._not_forked(outside=False)
            failed = BootError(f"Worker failed to boot: {explain(service.log, error)}")
            self._judge(failed, newest=True, kills=0)
            return 0
        worker.counters = NO_CELL
        try:
            worker.counters = service.counters.take()
            scoreboard = self._children.scoreboard
            process, channel = self._host.fork_worker(worker, self._hooks.server, scoreboard, self._close_in_child)
        except OSError as error:
            self._give_back(worker)
            backoff = self._not_forked(outside=True)
            verdict = on_no_room(service.state, backoff.rounds)
            self._execute(verdict, NoRoomError(no_room("a worker process", error)))
            return 0
        handle = WorkerHandle(worker, process, channel, worker.cell, service.loop.now)
        service.adoption.allow(handle.cell, successors=True)
        handle.show()
        self._children.add(handle)
        return handle.pid

    def _give_back(self, worker: Worker) -> None:
        """Another worker may count where this one did."""
        if worker.counters is not NO_CELL:
            self._service.counters.give_back(worker.counters)

    def _new_worker(self, slot: int) -> Worker:
        service, generation = self._service, self._generation
        service.worker_age += 1
        worker = generation.worker_class(
            *(service.worker_age, service.pid, generation.listeners, generation.app),
            *(float(service.cfg.timeout), service.cfg, service.log),
        )
        worker.slot = slot
        worker.generation = generation.number
        worker.adoption = service.adoption.queue
        return worker

    def _close_in_child(self) -> None:
        """In a forked worker: closes what is the master's alone, or an earlier generation's."""
        self._service.loop.close()
        for listener in self._addresses.unserved:
            listener.close()
        if self._service.previous is not None:
            self._service.previous.close()

    def _not_forked(self, *, outside: bool) -> Backoff:
        now = self._service.loop.now()
        self._generation.backoff = self._generation.backoff.after_death(now, None, now, outside=outside)
        return self._generation.backoff

    def worker_ready(self, handle: WorkerHandle) -> None:
        """A worker serves. What later ones shall find in memory is imported when all that workers said was heard."""
        handle.tell(PREIMPORT)
        if self._service.ends_connections:
            handle.tell(DRAIN)
        self._boot_kills = 0
        loop, later = self._service.loop, handle.worker.later(handle.worker.cfg)
        loop.call_at(loop.now(), lambda: self._preimport(later))

    def _preimport(self, later: Iterable[str]) -> None:
        """Those of foreign packages may be missing, which who needs them will say, or broken."""
        log = self._service.log
        for name, error in preimport(later):
            say = log.debug if isinstance(error, ImportError) else log.warning
            say("cannot import %s: %s", name, in_words(error))

    def worker_decided(self, handle: WorkerHandle, using: str) -> None:
        """A worker knows by what it serves; later ones find that in memory."""
        try:
            handle.worker.become(using)
        except Exception as error:  # noqa: BLE001 - of an import, from whatever is on the disk: this copy stays as it is
            self._service.log.debug("worker %s serves by %s, which is not to be had here: %r", handle.pid, using, error)
        if using != self._using:
            self._using = using
            self._service.log.info("Using worker: %s", using)

    def worker_gone(self, handle: WorkerHandle, status: int) -> None:
        """A worker has ended: what that means depends on how far it had come, and on what the master is doing."""
        service = self._service
        service.cell.add(EXITS + CAUSES.index(cause_of_end(handle, status)))
        self._give_back(handle.worker)
        self._in_gap = handle.retired and service.goal.exclusive
        for generation in filter(None, (service.generation, service.previous)):
            if generation.number == handle.generation:
                generation.backoff = backoff_after(generation.backoff, handle, service.loop.now())
        if handle.serving_since is None and not handle.retired:
            self._boot_failed(handle, status)
        elif (
            not handle.retired and handle.generation == self._generation.number and self._generation.backoff.rounds > 1
        ):
            self._backs_off("Workers keep dying", WARNING)
            if service.state is Master.RELOADING and self._generation.backoff.rounds >= LAST_BOOTS:
                self._roll_back("workers of the new generation die as soon as they serve")
        self._hooks.tell("child_exit", handle.worker)

    def _boot_failed(self, handle: WorkerHandle, status: int) -> None:
        code = BootError.exit_code if status == UNKNOWN else os.waitstatus_to_exitcode(status)
        killed = code < 0 and not handle.worker.aborted
        self._boot_kills += killed
        app = code == AppImportError.exit_code
        what = "App failed to load" if app else "Worker failed to boot"
        reason = f"{what}: {handle.reason or f'it {describe(status, ordered=handle.worker.aborted)}'}"
        self._children.listen()
        newest = handle.generation == self._service.goal.generation
        error = AppImportError(reason) if app else BootError(reason)
        self._judge(error, newest=newest, kills=self._boot_kills if killed else 0)

    def _judge(self, error: SdserveError, *, newest: bool, kills: int) -> None:
        some_serve = decide.some_serve(self._children.members())
        rounds = self._generation.backoff.rounds
        state = self._service.state
        self._execute(on_failed_boot(state, newest=newest, kills=kills, rounds=rounds, some_serve=some_serve), error)

    def _execute(self, verdict: Verdict, error: SdserveError) -> None:
        service, reason = self._service, str(error)
        service.log.trace("a failed boot while %s: %s", service.state.value, verdict.value)
        if verdict is Verdict.HALT:
            self._halt(reason, error)
        elif verdict is Verdict.ROLL_BACK:
            self._roll_back(reason)
        elif verdict is Verdict.RETRY:
            self._backs_off(reason)
            if service.state is Master.RUNNING:
                service.trouble = self._lacking = reason

    def _backs_off(self, reason: str, level: int | None = None) -> None:
        backoff = self._generation.backoff
        seconds = max(0.0, backoff.not_before - self._service.loop.now())
        self._service.log.event(events.BACKING_OFF, level=level, REASON=reason, DEATHS=backoff.rounds, SECONDS=seconds)
        self._service.happens("back-off", f"{reason} ({backoff.rounds} in a row, the next boots in {seconds:.1f} s)")

    @property
    def _generation(self) -> Generation:
        """The generation in force."""
        assert self._service.generation is not None
        return self._service.generation
