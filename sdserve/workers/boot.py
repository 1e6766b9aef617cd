"""What every worker process does first and last: from fork to its exit code.

The order is the contract with hooks and operators: signals, title, environment, `post_fork` (still with the master's
rights), then user and group, then the application. Exit code 4 says that the application cannot be loaded, 3 that
the worker cannot boot, 1 that it broke while it served. The reason goes to the master in one line, the traceback to
the log.
"""

import atexit
import gc
import logging
import os
import signal
import threading
import time
from functools import partial
from typing import Any, NoReturn

from sdserve import greenlets
from sdserve.errors import AppImportError, BootError, SdserveError, call_hook, in_words
from sdserve.gateway.blame import account
from sdserve.handlers import count_lost
from sdserve.process import forked, identity, output
from sdserve.process.counters import DROPPED
from sdserve.process.ending import leave_within
from sdserve.process.forked import Border
from sdserve.workers.base import Worker
from sdserve.workers.orphan import watch_master
from sdserve.workers.told import LEAVE, OWN_SIGNALS
from sdserve.workers.words import FAILED

SERVED_AND_BROKE = 1


def become(worker: Worker, server: Any) -> NoReturn:
    """Lives a worker's whole life in the forked child, which never returns into the master's code.

    All signals are blocked when this is called; a signal sent before the worker can hear it stays pending until then.
    """
    gc.freeze()  # what came from the master shares its pages until a collection touches them
    gc.enable()
    worker.pid = os.getpid()
    greenlets.refuse()
    count_lost(partial(worker.counters.add, DROPPED))
    forked.watch(worker.close_in_child, OWN_SIGNALS)
    worker.say_goodbye = lambda: _say_goodbye(worker, server)
    code = BootError.exit_code
    try:
        with Border(worker.log.error):
            code = _live(worker, server)
    except SystemExit as leaving:
        code = _code_of(worker, leaving)
    finally:
        _leave(worker, server, code)


def set_title(title: str) -> None:
    """Names this process for ps(1)."""
    from setproctitle import setproctitle

    setproctitle(title)


def _live(worker: Worker, server: Any) -> int:
    log, cfg = worker.log, worker.cfg
    try:
        worker.init_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        set_title(f"sdserve: worker [{cfg.proc_name}]")  # never with `.2`, which would outlive the upgrade
        if cfg.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = cfg.gpus[worker.slot % len(cfg.gpus)]  # a replacement keeps its GPU
        log.info("Booting worker with pid: %s", worker.pid)
        log.trace("worker %s: slot %s, generation %s, booting", worker.pid, worker.slot, worker.generation)
        with Border(log.error):
            call_hook("post_fork", cfg.post_fork, server, worker)
        chosen = {name for name in ("user", "group", "umask") if cfg.settings[name].source != "default"}
        if "umask" in chosen:
            os.umask(cfg.umask)
        uid = cfg.uid if "user" in chosen else os.geteuid()  # as whom a hook may have chosen to run
        gid = cfg.gid if "group" in chosen else os.getegid()
        identity.take(uid, gid, initgroups=cfg.initgroups)
        watch_master(worker.lifeline, lambda: worker.outlive_master())  # by the class that it has then: see auto.py
        worker.init_process()
    except AppImportError as error:
        if told := account(error):
            log.error("Exception while loading the application\n%s", told)
        worker.tell(FAILED + str(error).encode(errors="replace"))
        return error.exit_code
    except SystemExit:
        raise
    except BaseException as error:  # KeyboardInterrupt and its like are failures as any other
        if not isinstance(error, BootError) or error.__cause__ is not None:  # else the reason is all there is to say
            log.exception("Exception in worker process %s", worker.pid)
        if worker.booted:
            return SERVED_AND_BROKE
        reason = str(error) if isinstance(error, SdserveError) else in_words(error)
        worker.tell(FAILED + reason.encode(errors="replace"))
        return BootError.exit_code
    return 0


def _code_of(worker: Worker, leaving: SystemExit) -> int:
    """The exit code of a worker that hooks or the application ended by SystemExit, or a signal while it booted."""
    code = forked.exit_code(leaving, worker.log.error)
    if not worker.booted and worker.alive:
        said = "" if leaving.code is None or isinstance(leaving.code, int) else f" ({leaving.code})"
        worker.tell(FAILED + f"it exited with code {code}{said} before it served".encode(errors="replace"))
        return BootError.exit_code
    return code


def _say_goodbye(worker: Worker, server: Any) -> None:
    try:
        worker.log.info("Worker exiting (pid: %s)", worker.pid)
        with Border(worker.log.error):
            worker.cfg.worker_exit(server, worker)
    except Exception:
        worker.log.exception("Exception in the worker_exit hook")


def _leave(worker: Worker, server: Any, code: int) -> NoReturn:
    """Ends the process as the interpreter would, without unwinding the master's stack, and not later than it may."""
    worker.leaving = True
    try:
        _say_goodbye(worker, server)
        leave_within(_time_left(worker), worker.log.warning, code)
        worker.call_theirs()
        # The first joins the application's threads, as at any exit.
        for last in (threading._shutdown, atexit._run_exitfuncs, logging.shutdown):  # type: ignore[attr-defined]
            try:
                last()
            except Exception:
                worker.log.exception("Exception at the end of worker process %s", worker.pid)
        output.flush_all()
    finally:
        os._exit(code & 0xFF)


def _time_left(worker: Worker) -> float:
    """Seconds for the application's threads to end; the slot of a worker that nobody told to go is not waiting long."""
    if worker.drain_by is None or worker.quick:
        return LEAVE
    return max(LEAVE, worker.drain_by - time.monotonic())
