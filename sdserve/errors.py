"""Typed errors that know how the process ends.

Every error that an operator may meet derives from `SdserveError`, carries one line that says what is wrong, where, and
what to do, and knows its exit code. The exit codes 3 and 4 are gunicorn's `WORKER_BOOT_ERROR` and `APP_LOAD_ERROR`:
unit files and scripts that look for them go on working.
"""

import errno
import os
from collections.abc import Callable, Sequence


class SdserveError(Exception):
    """Base of all errors meant for the operator.

    `exit_code` is the process's exit status.
    """

    exit_code: int = 1
    _errno: int = 0

    @property
    def errno(self) -> int:
        """What systemd is told by ERRNO= (sd_notify(3)): the error of the system call behind it; 0 if there is none."""
        return (isinstance(self.__cause__, OSError) and self.__cause__.errno) or self._errno


class ConfigError(SdserveError):
    """One or more settings are unusable; `problems` has one line for each, so that all can be mended at once.

    `usable` is the configuration with defaults in place of what is not, for who looks for further problems.
    """

    usable: object = None

    _errno = errno.EINVAL

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class ListenError(SdserveError):
    """A listening socket cannot be made, or an inherited one is not usable."""


class AddressInUse(ListenError):
    """Another process listens there; it may be about to leave."""

    _errno = errno.EADDRINUSE


class NoRoomToListen(ListenError):
    """There is no descriptor for a socket now. As with NoRoomError, whoever sees the exit code tries again."""

    exit_code = os.EX_OSERR


class PidfileError(SdserveError):
    """The pidfile names a running process, or cannot be written."""

    _errno = errno.EEXIST


class BootError(SdserveError):
    """A worker cannot boot: a hook or its own set-up failed before it served."""

    exit_code = 3


class NoRoomError(BootError):
    """The system has no room for another process. It may have some soon: whoever sees this exit code tries again."""

    exit_code = os.EX_OSERR  # sysexits(3): "cannot fork"


# What a system call says that finds no room for one more descriptor: in this process, the system, or its memory.
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# What limits processes, and what they need, by the error of a system call (systemd.exec(5), setrlimit(2)).
MEMORY = "MemoryMax= and LimitAS="
_LIMITS = {
    errno.EAGAIN: "TasksMax= and LimitNPROC=",
    errno.ENOMEM: MEMORY,
    errno.EMFILE: "LimitNOFILE=",
    errno.ENFILE: "fs.file-max, by sysctl(8)",
}


def no_room(what: str, error: OSError) -> str:
    """One line that says that there is no room for `what`, why, and where to look."""
    return f"no room for {what}: {refusal(error)}"


def refusal(error: OSError) -> str:
    """What the system has said, and the limit to look at, if one is known."""
    limits = _LIMITS.get(error.errno or 0) if error.strerror == os.strerror(error.errno or 0) else None
    return f"{error.strerror}; see {limits}" if limits else str(error.strerror or error)


def out_of_room(what: str, error: BaseException) -> NoRoomError | None:
    """What to raise for `error`, where that says that there is no room: a limit of the operator's, no fault of ours."""
    if not isinstance(error, OSError) or error.errno not in NO_ROOM:
        return None
    refused = NoRoomError(no_room(what, error))
    refused.__cause__ = error
    return refused


def in_words(error: BaseException) -> str:
    """What an exception is, and says; one that says nothing has no colon. A limit of the unit that refuses is named."""
    if isinstance(error, (WantsToLeave, SdserveError)):
        return str(error)
    kind = type(error).__name__
    said = f"{kind}: {error}" if str(error) else kind
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    return f"{said}; see {_LIMITS[number]}" if number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE) else said


class WantsToLeave(Exception):
    """What foreign code has raised that would end a process (SystemExit, KeyboardInterrupt), in words; the cause."""


class Leave(SystemExit):
    """A worker was told to leave before it served: nothing that catches what applications raise may keep it."""


class Interruption(BaseException):
    """Ends from outside what is under way: whoever catches all that foreign code raises lets this pass."""


class HookError(BootError):
    """A hook of the configuration raised; its exception is the cause."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"the hook {name} raised {in_words(error)}")


def call_hook(name: str, hook: Callable[..., object], *args: object) -> None:
    """Calls the hook `name`. Raises HookError for what it raises, unless that is an SdserveError already."""
    try:
        hook(*args)
    except SdserveError:
        raise
    except Exception as error:
        raise HookError(name, error) from error


class AppImportError(SdserveError):
    """The application's module was imported, and its name cannot be resolved to a callable."""

    exit_code = 4


class AppBootError(AppImportError):
    """What the application's own code raised while it was imported, or while its factory was called; the cause.

    To an operator it is a worker that cannot boot, as in gunicorn.
    """

    exit_code = BootError.exit_code
