"""Signals: merged or counted while they wait, never lost, and forgotten before an exec."""

import os
import select
import signal

from sdserve.arbiter import signals
from sdserve.arbiter.loop import Pipe
from sdserve.arbiter.signals import COUNTED, IGNORED_ACROSS_EXEC, QUEUED, SignalQueue
from sdserve.ctl import as_reload
from sdserve.workers.words import ASKED_CALLS, ASKED_STACKS, STACKS
from tests.support.children import in_a_child


def test_do_it_signals_are_merged_and_one_more_signals_are_counted() -> None:
    queue = SignalQueue()
    for signum in (signal.SIGHUP, signal.SIGTTIN, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTIN):
        queue.put(signum)
    ttin, ttou = signal.SIGTTIN, signal.SIGTTOU
    assert queue.take() == [signal.SIGHUP, ttin, ttin, ttou, ttin]
    assert queue.take() == []
    queue.put(signal.SIGHUP)
    assert queue.take() == [signal.SIGHUP]
    queue.pipe.close()


def test_a_master_catches_them_all_and_the_loop_hears() -> None:
    def life() -> None:
        queue = SignalQueue()
        signals.catch(lambda signum, frame: queue.put(signum), queue.pipe.write_fd)
        for signum in QUEUED:
            signal.raise_signal(signum)
        assert select.select([queue.pipe], [], [], 0)[0]
        assert set(queue.take()) == set(QUEUED)

    assert in_a_child(life) == 0


def test_signals_of_workers_end_no_master_and_no_new_one() -> None:
    def life() -> None:
        signals.catch(lambda signum, frame: None, Pipe().write_fd)
        for signum in (STACKS, ASKED_STACKS, ASKED_CALLS):
            signal.raise_signal(signum)
        signals.ready_for_exec()
        for signum in (STACKS, ASKED_STACKS, ASKED_CALLS):
            signal.raise_signal(signum)

    assert in_a_child(life) == 0


def test_who_waits_for_a_reload_knows_them_by_number() -> None:
    assert as_reload.WORKERS == (STACKS, ASKED_STACKS, ASKED_CALLS)


def test_what_arrives_while_blocked_is_heard_afterwards() -> None:
    def life() -> None:
        queue = SignalQueue()
        signals.catch(lambda signum, frame: queue.put(signum), queue.pipe.write_fd)
        signals.block_all()
        os.kill(os.getpid(), signal.SIGTERM)
        assert queue.take() == []
        signals.unblock_all()
        assert queue.take() == [signal.SIGTERM]

    assert in_a_child(life) == 0


def test_before_an_exec_handlers_are_forgotten_and_nothing_is_blocked() -> None:
    def life() -> None:
        signals.catch(lambda signum, frame: None, Pipe().write_fd)
        signals.block_all()
        signals.ready_for_exec()
        for signum in QUEUED:
            wanted = signal.SIG_IGN if signum in IGNORED_ACROSS_EXEC else signal.SIG_DFL
            assert signal.getsignal(signum) == wanted
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
        os.kill(os.getpid(), signal.SIGUSR2)  # systemctl kill meets this moment too

    assert in_a_child(life) == 0


def test_a_signal_that_came_while_blocked_before_an_exec_is_dropped_not_kept() -> None:
    """Kept pending, it would start an upgrade in the new master."""

    def life() -> None:
        signals.catch(lambda signum, frame: None, Pipe().write_fd)
        signals.block_all()
        os.kill(os.getpid(), signal.SIGUSR2)
        signals.ready_for_exec()
        assert not signal.sigpending()

    assert in_a_child(life) == 0


def test_the_stop_signals_still_end_a_program_about_to_exec() -> None:
    def life() -> None:
        signals.catch(lambda signum, frame: None, Pipe().write_fd)
        signals.ready_for_exec()
        signal.raise_signal(signal.SIGTERM)

    assert os.WTERMSIG(in_a_child(life)) == signal.SIGTERM


def test_only_what_adds_up_is_counted() -> None:
    assert set(COUNTED) == {signal.SIGTTIN, signal.SIGTTOU}
