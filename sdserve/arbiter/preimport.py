"""What a master may need long after its start, imported while the disk still has it.

A deploy replaces files under a running service: a package that is being installed, an old release that was pruned. So
may a disk be gone. None of that may keep a master from supervising, or from forking workers: nothing is imported later
than this, and nothing earlier than it must, for the first workers boot meanwhile and no client waits.

Each costs memory, of the master's own and of what it shares with its workers and writes to: what only an application's
import can ask for, which needs the disk itself, is not here. tests/scenarios/test_no_disk.py fails for what is missing.
"""

import gc
import importlib
from contextlib import suppress

MODULES = (
    # the master's own, for what is rare: back-outs, mistakes in a configuration, orphans of a journal
    "ast", "difflib", "ipaddress", "random", "shlex", "socket", "subprocess", "tokenize",
    "importlib.util",
    "sdserve.arbiter.postmortem", "sdserve.config.unknown_names",
    # what workers import at boot or later: those forked from here on find it in memory
    "faulthandler", "grp", "pwd", "traceback",
    "sdserve.access", "sdserve.gateway.loader", "sdserve.http.proxy", "sdserve.workers.wsgi",
)  # fmt: skip


def preimport() -> None:
    """Imports what is not there yet."""
    for name in MODULES:
        with suppress(ImportError):  # whatever needs it will say so
            importlib.import_module(name)
    if not gc.isenabled():
        gc.freeze()  # a collection would touch, and so copy, the pages that workers share
        gc.enable()
