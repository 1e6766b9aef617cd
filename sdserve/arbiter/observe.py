"""Forking the observer of metrics and health, and what it must not keep of the master."""

import os
import signal
import traceback
from collections.abc import Callable

from sdserve.arbiter import signals
from sdserve.arbiter.addresses import Addresses
from sdserve.arbiter.service import Service
from sdserve.handlers import count_lost
from sdserve.ops.observer import Post, observe
from sdserve.ops.view import Watched
from sdserve.process import identity, output
from sdserve.process.listeners import Listener
from sdserve.process.pidfd import Child, PidFd, room
from sdserve.workers.boot import set_title

FAILED = 1


def fork_observer(service: Service, addresses: Addresses, lifeline: int) -> Child:
    """A process that answers on `service.observed` until `lifeline`, the reading end of a pipe, has ended.

    Raises OSError when there is no room for another process.
    """
    master = os.getpid()
    with room() as give_free:
        output.flush_all()
        signals.block_all()
        try:
            pid = os.fork()
            if pid == 0:
                code = FAILED
                try:
                    give_free()
                    code = _become(service, addresses, lifeline, master)
                except BaseException:  # noqa: BLE001 - nothing above this frame may run in the child
                    traceback.print_exc()
                finally:  # whatever happens, the child must not go on as a second master
                    os._exit(code)
        finally:
            signals.unblock_all()
        give_free()
        return Child.forked(pid)


def _become(service: Service, addresses: Addresses, lifeline: int, master: int) -> int:
    """Lives the observer's life. It ignores what is sent to masters: the lifeline says when it has to leave."""
    import gc

    gc.freeze()  # a collection that touched what came from the master would copy its pages
    gc.enable()
    count_lost()  # the cell is the master's
    watched = Watched(service.cell, service.counters, service.children.scoreboard)
    served = tuple(_copy(each) for each in service.observed)  # the loop closes the originals
    application = tuple(each for each in service.listeners if each.fileno() >= 0)
    service.loop.close()
    for listener in addresses.unserved:
        listener.close()
    signal.set_wakeup_fd(-1)
    for signum in (*signals.QUEUED, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_IGN)
    for signum in (signal.SIGCHLD, signal.SIGABRT):
        signal.signal(signum, signal.SIG_DFL)
    signals.unblock_all()
    set_title(f"sdserve: observer [{service.cfg.proc_name}]")
    _drop_rights(service)
    alive = _alive(master)
    observe(Post(watched, served, application, lifeline, service.log), alive)
    output.flush_all()
    return 0


def _copy(listener: Listener) -> Listener:
    return Listener(listener.sock.dup(), listener.name)


def _drop_rights(service: Service) -> None:
    """It reads what strangers send, so it runs as the user that workers run as."""
    cfg = service.cfg
    chosen = {name for name in ("user", "group") if cfg.settings[name].source != "default"}
    uid = cfg.uid if "user" in chosen else os.geteuid()
    gid = cfg.gid if "group" in chosen else os.getegid()
    identity.take(uid, gid, initgroups=cfg.initgroups)


def _alive(master: int) -> Callable[[], bool]:
    try:
        process = PidFd(master)
    except ProcessLookupError:
        return lambda: False
    return lambda: not process.ended()
