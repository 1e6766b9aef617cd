"""The pool at work: decisions become forks, signals and kills, and what becomes of workers becomes verdicts.

What to do is decided in decide.py, what a failed boot means in verdict.py; the processes are in children.py. This is
where they meet the arbiter's state and goal.
"""

import os
from typing import TYPE_CHECKING

from sdserve.arbiter import decide
from sdserve.arbiter.children import Children, backoff_after
from sdserve.arbiter.decide import Backoff, Kill, Retire, Spawn
from sdserve.arbiter.generation import Generation
from sdserve.arbiter.lifecycle import Master
from sdserve.arbiter.loop import Deadline
from sdserve.arbiter.reload import explain
from sdserve.arbiter.verdict import LAST_BOOTS, Verdict, on_failed_boot, on_no_room
from sdserve.arbiter.worker_handle import WorkerHandle, describe
from sdserve.errors import AppImportError, BootError, SdserveError, call_hook
from sdserve.workers.base import RETIRE, Worker

if TYPE_CHECKING:
    from sdserve.arbiter.arbiter import Arbiter


class Pool:
    """The workers of one master, and the patience it has with them."""

    def __init__(self, arbiter: "Arbiter") -> None:
        self._arbiter = arbiter
        self.children = Children(arbiter.loop, arbiter.log, self)
        self._boot_kills = 0
        self._counted = -1  # workers, when the log was told last
        self._wake: Deadline | None = None

    def healthy(self) -> bool:
        """Whether the watchdog may be told that all is well: a worker can answer, or none is wanted."""
        arbiter = self._arbiter
        if arbiter.goal.size == 0 or arbiter.state is Master.STARTING or self._can_answer():
            return True
        self.children.listen()  # one may have said that it serves, and the loop has not come to hear it
        return self._can_answer()

    def _can_answer(self) -> bool:
        members = self.children.members()
        return decide.some_serve(members) or decide.gap_ends(members, self._arbiter.goal)

    def manage(self) -> None:
        """Decides what the pool needs, and does it."""
        arbiter = self._arbiter
        now = arbiter.loop.now()
        if any(member.deadline is not None and member.deadline <= now for member in self.children.members()):
            self.children.listen()  # the master may have been busy itself, and not have heard that one serves
        decision = decide.decide(self.children.members(), arbiter.goal, self._generation.backoff, now)
        retry_at: float | None = None
        for action in decision.actions:
            if isinstance(action, Spawn):
                if not self.spawn(action.slot):  # the goal, or the time of the next attempt, is another one now
                    retry_at = now
                    break
            elif isinstance(action, Retire):
                handle = self.children.of_age(action.age)
                arbiter.adoption.allow(handle.cell, successors=self._has_successors())
                self.children.retire(handle)
            elif isinstance(action, Kill):
                self.children.overdue(self.children.of_age(action.age), action.phase)
        self._answer()
        if len(self.children) != self._counted:
            self._counted = count = len(self.children)
            arbiter.log.debug(
                "%d workers", count, extra={"metric": "gunicorn.workers", "value": count, "mtype": "gauge"}
            )
        # The actions set deadlines of their own: the next decision is due at the earliest of all.
        due = [member.deadline for member in self.children.members()] + [decision.wake_at, retry_at]
        self._wake_at(min((when for when in due if when is not None), default=None))

    def _wake_at(self, when: float | None) -> None:
        if self._wake is not None:
            if self._wake.when == when and not self._wake.cancelled:
                return
            self._wake.cancel()
        self._wake = None if when is None else self._arbiter.loop.call_at(when, lambda: None)

    def tell_successors(self) -> None:
        """Tells all workers, also those that are leaving already, whether somebody follows."""
        for handle in self.children:
            self._arbiter.adoption.allow(handle.cell, successors=self._has_successors())

    def _answer(self) -> None:
        """Tells workers whom somebody else's signal told to leave what follows; all signals have been heard by now."""
        for handle in self.children:
            if handle.asks:
                handle.asks = False
                self._arbiter.adoption.allow(handle.cell, successors=self._has_successors())
                handle.tell(RETIRE)

    def _has_successors(self) -> bool:
        """Whether somebody will serve the connections of a worker that is told to leave now."""
        goal = self._arbiter.goal
        return self._arbiter.upgrade.child_serves or (goal.size > 0 and not goal.stopping)

    # --- forking ----------------------------------------------------------------------------------------------------

    def spawn(self, slot: int) -> int:
        """Forks a worker into `slot` and returns its pid, or 0 if that failed and was dealt with.

        What the hook or the worker class raises is a boot that failed.
        """
        arbiter = self._arbiter
        try:
            worker = self._new_worker(slot)
            call_hook("pre_fork", arbiter.hook, "pre_fork", worker)
        except Exception as error:  # noqa: BLE001 - logged, and judged like any boot that fails
            self._hook_failed(explain(arbiter, error))
            return 0
        try:
            title = f"sdserve: worker [{arbiter.cfg.proc_name}]"  # without `.2`, which would outlive the upgrade
            handle = arbiter.host.fork_worker(worker, arbiter, self.children.scoreboard, title, self._forget)
        except OSError as error:
            self._no_room(error)
            return 0
        arbiter.adoption.allow(handle.cell, successors=True)
        self.children.add(handle)
        return handle.pid

    def _new_worker(self, slot: int) -> Worker:
        arbiter, generation = self._arbiter, self._generation
        arbiter.worker_age += 1
        worker = generation.worker_class(
            *(arbiter.worker_age, arbiter.pid, generation.listeners, generation.app),
            *(arbiter.timeout, arbiter.cfg, arbiter.log),
        )
        worker.slot = slot
        worker.generation = generation.number
        worker.adoption = arbiter.adoption.queue
        return worker

    def _forget(self) -> None:
        """In a forked worker: lets go of what is the master's alone, or an earlier generation's."""
        self._arbiter.loop.close()
        for listener in self._arbiter.reloading.outgoing():
            listener.close()

    def _no_room(self, error: OSError) -> None:
        backoff = self._not_forked(outside=True)
        reason = f"no room for a worker process: {error.strerror}"
        self._execute(on_no_room(self._arbiter.state, backoff.rounds), BootError(reason))

    def _hook_failed(self, reason: str) -> None:
        """What the worker class or pre_fork raised is a boot that failed."""
        backoff = self._not_forked(outside=False)
        some_serve = decide.some_serve(self.children.members())
        state = self._arbiter.state
        verdict = on_failed_boot(state, newest=True, kills=0, rounds=backoff.rounds, some_serve=some_serve)
        self._execute(verdict, BootError(f"Worker failed to boot: {reason}"))

    def _not_forked(self, *, outside: bool) -> Backoff:
        now = self._arbiter.loop.now()
        self._generation.backoff = self._generation.backoff.after_death(now, None, now, outside=outside)
        return self._generation.backoff

    # --- what becomes of workers ------------------------------------------------------------------------------------

    def worker_ready(self, handle: WorkerHandle) -> None:
        """A worker serves."""
        self._boot_kills = 0

    def worker_gone(self, handle: WorkerHandle, status: int) -> None:
        """A worker has ended: what that means depends on how far it had come, and on what the master is doing."""
        arbiter = self._arbiter
        for generation in filter(None, (arbiter.generation, arbiter.reloading.previous)):
            if generation.number == handle.generation:
                generation.backoff = backoff_after(generation.backoff, handle, arbiter.loop.now())
        if handle.serving_since is None and not handle.retired:
            self._boot_failed(handle, status)
        elif handle.generation == self._generation.number and self._generation.backoff.rounds > 1:
            arbiter.log.warning("Workers keep dying, %d in a row: the next boots in %.1f s", *self._patience())
            if arbiter.state is Master.RELOADING and self._generation.backoff.rounds >= LAST_BOOTS:
                arbiter.reloading.roll_back("workers of the new generation die as soon as they serve")
        arbiter.tolerant_hook("child_exit", handle.worker)

    def _boot_failed(self, handle: WorkerHandle, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        killed = code < 0 and not handle.worker.aborted
        self._boot_kills += killed
        app = code == AppImportError.exit_code
        what = "App failed to load" if app else "Worker failed to boot"
        reason = f"{what}: {handle.reason or f'it {describe(status)}'}"
        self.children.listen()
        verdict = on_failed_boot(
            self._arbiter.state,
            newest=handle.generation == self._arbiter.goal.generation,
            kills=self._boot_kills if killed else 0,
            rounds=self._generation.backoff.rounds,
            some_serve=decide.some_serve(self.children.members()),
        )
        self._execute(verdict, AppImportError(reason) if app else BootError(reason))

    def _execute(self, verdict: Verdict, error: SdserveError) -> None:
        arbiter, reason = self._arbiter, str(error)
        arbiter.log.trace("a failed boot while %s: %s", arbiter.state.value, verdict.value)
        if verdict is Verdict.HALT:
            arbiter.halt(reason, error)
        elif verdict is Verdict.ROLL_BACK:
            arbiter.reloading.roll_back(reason)
        elif verdict is Verdict.RETRY:
            arbiter.log.error("%s (%d in a row, the next boots in %.1f s)", reason, *self._patience())
            arbiter.trouble = reason if arbiter.state is Master.RUNNING else arbiter.trouble

    def _patience(self) -> tuple[int, float]:
        backoff = self._generation.backoff
        return backoff.rounds, max(0.0, backoff.not_before - self._arbiter.loop.now())

    @property
    def _generation(self) -> Generation:
        """The generation in force."""
        assert self._arbiter.generation is not None
        return self._arbiter.generation
