"""What a master may need long after its start, imported while the disk still has it.

A deploy replaces files under a running service: a package that is being installed, an old release that was pruned. So
may a disk be gone. None of that may keep a master from supervising, or from forking workers: nothing is imported later
than this. Nor earlier than it must be: the first worker is forked before, with what it takes to answer the client that
woke the service. It imports the rest by itself (workers/preimport.py), once the master has heard that it serves.

Each costs memory, of the master's own and of what it shares with its workers and writes to: what only an application's
import can ask for, which needs the disk itself, is not here. tests/scenarios/test_no_disk.py fails for what is missing.
"""

import gc

from sdserve.workers import preimport as workers

MODULES = (
    # the master's rooms that no start needs, and what they lean on
    "sdserve.arbiter.commands", "sdserve.arbiter.control", "sdserve.arbiter.idle", "sdserve.arbiter.new_master",
    "sdserve.arbiter.old_master", "sdserve.arbiter.postmortem", "sdserve.arbiter.reload", "sdserve.arbiter.relief",
    "sdserve.arbiter.shutdown", "sdserve.ops.dialects", "sdserve.process.proc",
    "sdserve.process.control_group", "sdserve.process.handover", "sdserve.process.pidfile",
    # what is rare: back-outs, mistakes in a configuration, orphans of a journal
    "ast", "importlib.util", "shlex", "subprocess",  # traceback asks for ast as well, to show columns
    "sdserve.config.unknown_names",
    # what workers import at boot
    "faulthandler", "grp", "pwd",
    "sdserve.access.log", "sdserve.access.structured", "sdserve.gateway.loader", "sdserve.http.proxy",
    "sdserve.workers.http.warmup", "sdserve.workers.wsgi.worker",
)  # fmt: skip


def preimport() -> None:
    """Imports what is not there yet. Python may have been built without one or the other; else this raises."""
    for _, error in workers.preimport(MODULES):
        if not isinstance(error, ImportError):
            raise error
    if not gc.isenabled():
        gc.freeze()  # a collection would touch, and so copy, the pages that workers share
        gc.enable()
