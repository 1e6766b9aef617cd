"""sdservectl: asks a running sdserve what it does, and commands it, waiting for the outcome.

The exit code is the outcome, which makes `ExecReload=sdservectl reload` a synchronous `systemctl reload` that fails
when the reload failed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from sdserve.ctl.client import START_AGAIN, Answer, ask, follow
from sdserve.ctl.parser import parameters, parser
from sdserve.ops.commands import named

DONE, REFUSED, NOBODY, LATE, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = {
    DONE: "done",
    REFUSED: "the master says no, with its reason; what was to be reloaded or upgraded serves on as it was",
    NOBODY: "nobody answers, or bad usage",
    LATE: "the time that --timeout gives is over",
    INTERRUPTED: "interrupted (Ctrl-C)",
}

__all__ = ["ask", "follow", "main", "parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    try:
        try:
            return _run(parser().parse_args(argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # a reader that has seen enough is not an error, nor for the interpreter at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    guessed = not (options.unit or options.user or options.socket)
    if options.user and options.socket:
        parser().error("argument --user: not allowed with argument -s/--socket")
    if options.unit:
        from sdserve.ctl.unit import NoSocketError, socket_of

        try:
            options.socket = socket_of(options.unit, options.user)
        except NoSocketError as error:
            say(f"sdservectl: {error}", sys.stderr)
            return NOBODY
    elif options.user:
        from sdserve.ctl.unit import runtime_directory

        options.socket = os.path.join(runtime_directory(user=True), "sdserve", "control")
    elif guessed:
        directory = os.environ.get("RUNTIME_DIRECTORY", "/run/sdserve").split(":")[0]
        options.socket = os.path.join(directory, "control")
    try:
        return WAYS.get(options.command, _once)(options)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        say(f"sdservectl: {options.socket}: {reason}. {_advice(error, options.socket, guessed)}", sys.stderr)
        return LATE if isinstance(error, TimeoutError) else NOBODY


def say(text: str, where: TextIO | None = None) -> None:
    """Prints what a master says. It may be the text of an application, which shall not command the terminal."""
    from sdserve.systemd.records import printable

    print(printable(text), file=where)


def _once(options: argparse.Namespace) -> int:
    """One question, one answer."""
    return _shown(ask(options.socket, options.command, options.timeout, **_asked(options)), options)


def _asked(options: argparse.Namespace) -> dict[str, object]:
    return parameters(named(options.command), options)


def _status(options: argparse.Namespace) -> int:
    if not options.watch:
        return _once(options)
    for answer in follow(options.socket, "status", options.timeout, more=True, **_asked(options)):
        if code := _shown(answer, options):
            return code
        print(flush=True)
    return DONE


def _top(options: argparse.Namespace) -> int:
    if trouble := _no_screen():
        print(f"sdservectl: top {trouble}; see status --watch, and status --json for scripts", file=sys.stderr)
        return NOBODY
    from sdserve.ctl import top

    last = top.follow(options)
    return DONE if last is None else _shown(last, options)


def _no_screen() -> str:
    """Why there is nowhere to draw, or ""."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "needs a terminal"
    try:
        import curses

        curses.setupterm()
    except ImportError:
        return "needs curses, which this Python was built without"
    except curses.error:
        term = ascii(os.environ.get("TERM", ""))[1:-1]
        return (
            f"does not know this terminal, TERM={term}: try TERM=xterm, or install its terminfo (ncurses-term has many)"
        )
    return ""


def _reload(options: argparse.Namespace) -> int:
    if "INVOCATION_ID" not in os.environ:
        return _once(options)
    from sdserve.ctl import as_reload

    try:
        as_reload.begin(options.socket, lambda command: ask(options.socket, command, options.timeout))
        return _once(options)
    except ConnectionError:
        as_reload.outlive_the_master()
        raise


def _upgrade(options: argparse.Namespace) -> int:
    """Also says what it waits for; a master of an earlier version does not tell."""
    code = NOBODY
    for answer in follow(options.socket, "upgrade", options.timeout, more=True):
        if answer.get("continues"):
            say(f"sdservectl: {answer['text']}", sys.stderr)
        else:
            code = _shown(answer, options)
    return code


def _wait(options: argparse.Namespace) -> int:
    """Waits for a service that has not been started, or is started again, as well."""
    until = None if options.timeout is None else time.monotonic() + options.timeout
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        options.timeout = left
        try:
            # The master itself says when the time is over. It has a second more for that.
            within = None if left is None else left + 1.0
            return _shown(ask(options.socket, "wait", within, **_asked(options)), options)
        except (FileNotFoundError, ConnectionError):
            if options.state == "stopped" and not _listens(options.socket):
                print("nobody answers")
                return DONE
            if left == 0.0:
                raise TimeoutError from None
            time.sleep(START_AGAIN if left is None else min(START_AGAIN, left))


def _listens(path: str) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _shown(answer: Answer, options: argparse.Namespace) -> int:
    """Prints an answer; returns the exit code."""
    if not answer.get("ok"):
        say(f"sdservectl: {answer.get('text', 'no reason given')}", sys.stderr)
        return LATE if answer.get("error") == "TooLate" else REFUSED
    from sdserve.ctl import show

    if getattr(options, "json", False):
        import json

        print(json.dumps(answer.get("status") or answer["workers"], indent=2))
    elif options.command == "status":
        say(show.state(answer))
    elif options.command == "stacks":
        say(show.stacks(answer))
    else:
        say(answer["text"])
        if "INVOCATION_ID" not in os.environ:  # where systemd reloads, the journal has them from the master
            for warning in answer.get("warnings") or ():  # a master of an earlier version has none
                say(f"sdservectl: {warning}", sys.stderr)
    return DONE


def _events(options: argparse.Namespace) -> int:
    for answer in follow(options.socket, "events", options.timeout, more=True):
        if not answer.get("ok"):
            return _shown(answer, options)
        if options.json:
            import json

            told = {name: answer[name] for name in ("event", "text", "pid", "slot", "at")}
            print(json.dumps({"time": time.time(), **told}), flush=True)
        else:
            text = answer["text"].replace("\n", " ")
            say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {answer['event']}: {text}")
            sys.stdout.flush()
    return DONE


WAYS: dict[str, Callable[[argparse.Namespace], int]] = {
    "status": _status,
    "top": _top,
    "reload": _reload,
    "upgrade": _upgrade,
    "wait": _wait,
    "events": _events,
}


def _advice(error: OSError, path: str, guessed: bool) -> str:
    if isinstance(error, PermissionError):
        return "Run it as root, or as the user of the service"
    if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()) and "RUNTIME_DIRECTORY" not in os.environ:
        return "This unit has no RuntimeDirectory=, where its control socket would be: give it one"
    import glob

    # Instances of the template have their runtime directories beside that of `path`.
    directory, name = os.path.split(path)
    others = sorted(glob.glob(os.path.join(glob.escape(directory) + "-*", glob.escape(name))))
    named = f" With -s it finds {', '.join(others)}." if others else ""
    elsewhere = " -u UNIT finds that of a unit, in its RuntimeDirectory=." if guessed else ""
    return f"Is sdserve running, with this control socket?{named}{elsewhere}"
