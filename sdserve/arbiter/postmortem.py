"""Why a new master ended without a word: its interpreter, or what sdserve needs to be imported, is broken.

Such a process cannot tell, and, being systemd's child, leaves no exit status here. So the import of sdserve is tried
once more by the same interpreter, beside the loop, with its standard error stream kept: the last line is the reason.
"""

import os
import subprocess
from collections.abc import Callable, Mapping

from sdserve.arbiter.loop import Loop
from sdserve.process.pidfd import PidFd
from sdserve.process.program import Program

TIMEOUT = 10.0  # seconds


def examine(
    loop: Loop, program: Program, directory: str, environ: Mapping[str, str], on_reason: Callable[[str], None]
) -> None:
    """Tries to import sdserve as `program` would, in `directory`; `on_reason` gets one line, once."""
    command = program.trial(directory)
    interpreter = command[0]
    try:
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        process = subprocess.Popen(command, cwd=directory, env=dict(environ), stdin=null, stdout=null, stderr=pipe)
    except OSError as error:
        on_reason(f"cannot execute {interpreter}: {error.strerror}")
        return
    try:
        watched = PidFd(process.pid)
    except OSError:  # out of descriptors
        process.kill()
        on_reason(_verdict(interpreter, process))
        return
    assert process.stderr is not None
    loop.own(process.stderr)
    deadline = loop.call_at(loop.now() + TIMEOUT, process.kill)

    def ended() -> None:
        deadline.cancel()
        loop.drop(watched)
        on_reason(_verdict(interpreter, process))

    loop.watch(watched, ended)


def _verdict(interpreter: str, process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    with process.stderr as stream:
        os.set_blocking(stream.fileno(), False)  # a child of its own may hold the other end
        said = stream.read() or b""
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    if process.wait() > 0 and last:
        return f"{interpreter} cannot import sdserve: {last}"
    return "it ended before it served"
