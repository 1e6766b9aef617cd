"""sdservectl: asks a running sdserve what it does, and tells it to reload or upgrade, waiting for the outcome.

The exit code is the outcome, which makes `ExecReload=sdservectl reload` a synchronous `systemctl reload` that fails
when the reload failed. 0: done; 1: the master says no, with its reason; 2: nobody answers, or bad usage.
"""

import argparse
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from sdserve import __version__

NOBODY = 2
ORPHANS = 60.0  # seconds to wait for workers whose master has died; TimeoutStartSec= of the unit is longer
MASTERS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGABRT)
"""Signals that are meant for the master, and reach an ExecReload= as well: from `systemctl kill`, from the watchdog."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    try:
        try:
            return _run(parser().parse_args(argv))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # a reader that has seen enough is no error, and none for the interpreter at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(options: argparse.Namespace) -> int:
    try:
        if options.command == "reload" and "INVOCATION_ID" in os.environ:
            for number in MASTERS:
                signal.signal(number, signal.SIG_IGN)
            _compare_environment(options)
        answer = ask(options.socket, options.command, options.timeout)
        while answer.get("again"):  # a new master has taken over meanwhile, and the socket with it
            answer = ask(options.socket, options.command, options.timeout)
    except OSError as error:
        if isinstance(error, ConnectionError) and options.command == "reload" and "INVOCATION_ID" in os.environ:
            _outlive_the_master()
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        print(f"sdservectl: {options.socket}: {reason}. {_advice(error, options.socket)}", file=sys.stderr)
        return NOBODY
    if not answer.get("ok"):
        print(f"sdservectl: {answer.get('text', 'no reason given')}", file=sys.stderr)
        return 1
    print(_shown(answer, options))
    return 0


def _outlive_the_master() -> None:
    """As the ExecReload= of the unit, whose master has died: waits for its workers, and ends the reload in its place.

    Once we have ended, systemd kills the workers: with KillMode=mixed it does not wait for requests. They end by
    themselves after SDSERVE_ORPHAN_TIMEOUT. Since 253 it would wait for the READY=1 of this reload until
    TimeoutStartSec= is over, and restart the service only then.
    """
    from sdserve.process import control_group
    from sdserve.systemd.notify import Notifier

    try:
        control_group.await_others(ORPHANS)
    except OSError as error:
        print(f"sdservectl: cannot wait for the workers of the master that died: {error}", file=sys.stderr)
    notifier = Notifier.from_environ(os.environ)
    notifier.ready("The master died during a reload")
    if notifier.trouble is not None:
        print(f"sdservectl: cannot tell systemd that the reload is over: {notifier.trouble}", file=sys.stderr)


def _compare_environment(options: argparse.Namespace) -> None:
    """As the ExecReload= of the unit: says what of its environment the service has not been started with."""
    from sdserve.systemd.environment import changed, digests

    started = ask(options.socket, "environment", options.timeout).get("environment", {})
    names = changed(started, digests(os.environ))
    if names:
        changes = f"the environment of the unit has changed ({', '.join(names)})"
        print(f"sdservectl: {changes}: a reload does not read it, systemctl restart does", file=sys.stderr)


def _advice(error: OSError, path: str) -> str:
    if isinstance(error, PermissionError):
        return "Run it as root, or as the user of the service"
    import glob

    # Instances of the template have their runtime directories beside that of `path`.
    directory, name = os.path.split(path)
    others = sorted(glob.glob(os.path.join(glob.escape(directory) + "-*", glob.escape(name))))
    named = f" With -s it finds {', '.join(others)}." if others else ""
    return f"Is sdserve running, with this control socket?{named}"


def ask(path: str, command: str, timeout: float | None) -> dict[str, Any]:
    """Sends one command to the control socket at `path` and waits `timeout` seconds (None: for ever) for the answer.

    Raises OSError when nobody listens there, or the master ends before it answers.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(json.dumps({"command": command}).encode() + b"\n")
        received = b""
        while not received.endswith(b"\n"):
            data = connection.recv(65536)
            if not data:
                raise ConnectionResetError("the master ended before it answered")
            received += data
    answer: dict[str, Any] = json.loads(received)
    return answer


def _shown(answer: dict[str, Any], options: argparse.Namespace) -> str:
    status = answer.get("status")
    if status is None:
        return str(answer["text"])
    if options.json:
        return json.dumps(status, indent=2)
    lines = [f"{answer['text']}", f"{status['master']} pid {status['pid']}, sdserve {status['version']}"]
    lines += [f"listening at {each}" for each in status["listeners"]]
    for worker in status["workers"]:
        busy = "idle" if worker["busy"] is None else f"busy for {worker['busy']:.1f} s"
        place = f"slot {worker['slot']}, generation {worker['generation']}, {worker['phase']}"
        lines.append(f"worker {worker['pid']}: {place}, {worker['requests']} requests, {busy}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="sdservectl", description="Ask and command a running sdserve.")
    directory = os.environ.get("RUNTIME_DIRECTORY", "/run/sdserve").split(":")[0]
    parser.add_argument("--version", action="version", version=f"sdservectl {__version__}")
    found, about = os.path.join(directory, "control"), "the control socket (default: %(default)s)"
    parser.add_argument("-s", "--socket", default=found, metavar="PATH", help=about)
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait (default: for ever)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="what the service is doing")
    status.add_argument("--json", action="store_true", help="all of it, as JSON")
    commands.add_parser("reload", help="new configuration and code; returns when it serves, or was rolled back")
    commands.add_parser("upgrade", help="new master; returns when it took over, or was backed out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
