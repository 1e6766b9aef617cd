"""How this program was executed, to execute it again: by the path that was given, not by what that stood for then.

A release is often a directory behind a link, `/srv/current/venv/bin/sdserve`. Once the link has been turned, the same
path must mean the new release, with its interpreter and packages. `sys.orig_argv` does not tell that path: for a script
the kernel puts the interpreter of the first line there, which is the old release's. AT_EXECFN (getauxval(3)) does.

A script whose interpreter has too long a path for the kernel, or one with blanks, is executed by sh(1) in pip's and
uv's way; it is recognised by its second line.
"""

import functools
import os
import re
import struct
import sys
from collections.abc import Sequence

from sdserve.immutable import Immutable

AT_EXECFN = 31
PATH_MAX = 4096
_TRAMPOLINE = rb"#!\s*/bin/sh\s*\n'''exec' .*\"\$0\" \"\$@\""
_PYTHON = rb"#!\s*(\S*python[\w.]*)"


class Program(Immutable):
    """A path as execve(2) takes it, relative to the directory of the start, and the arguments, itself the first."""

    path: str
    argv: tuple[str, ...]

    @classmethod
    @functools.cache
    def started(cls) -> "Program":
        """What this process was started as."""
        return cls.of(sys.orig_argv, _executed())

    @classmethod
    def of(cls, argv: Sequence[str], executed: str | None) -> "Program":
        """What was started: an interpreter got `argv`, the kernel was told to execute `executed` (None: unknown)."""
        if executed is not None and executed in argv[1:3]:  # behind the interpreter and an option of the first line
            return cls(executed, tuple(argv[argv.index(executed, 1) :]))
        if len(argv) > 1 and re.match(_TRAMPOLINE, _beginning(argv[1])):
            return cls(argv[1], tuple(argv[1:]))
        return cls(executed or argv[0], tuple(argv))

    def trial(self, directory: str) -> list[str]:
        """The command, for `directory`, by which what this program is now shows whether it can be imported."""
        code = ["-c", "import sdserve.cli, sdserve.arbiter.arbiter"]
        beginning = _beginning(os.path.join(directory, self.path))
        if not beginning.startswith(b"#!"):
            return [self.path, *code]
        python = re.match(_PYTHON, beginning)
        return [os.fsdecode(python[1]), *code] if python else [self.path, "--version"]


def _executed() -> str | None:
    """The path that execve(2) was called with; None where the kernel does not tell."""
    try:
        with open("/proc/self/auxv", "rb") as file:
            vector = dict(struct.iter_unpack("@NN", file.read()))
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(vector[AT_EXECFN])
            path = os.fsdecode(memory.read(PATH_MAX).partition(b"\0")[0])
    except (OSError, KeyError, OverflowError):
        return None
    return None if path.startswith(("/dev/fd/", "/proc/")) else path  # fexecve(3): the number means nothing any more


def _beginning(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(2 * PATH_MAX)
    except OSError:
        return b""
