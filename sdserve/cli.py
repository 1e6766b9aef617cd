"""The command `sdserve`: loads the configuration, answers what can be answered without serving, starts the arbiter.

Whatever is wrong ends here as one line on the standard error stream for each problem, as the exit code that the error
knows, and, under systemd, as the unit's status text. Nothing of the arbiter or the workers is imported before the
configuration has turned out to be good, so --help, --version and mistakes are answered at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from sdserve import greenlets
from sdserve.config import Config, answer, load, paths
from sdserve.errors import AppImportError, ConfigError, SdserveError, out_of_room
from sdserve.process.standard import fill
from sdserve.systemd.records import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs sdserve with these arguments, by default those of the process. Leaves by SystemExit."""
    fill()
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["unit"] and is_command(arguments):
        write_units(arguments[1:])
    directory = paths.logical_cwd(os.environ)

    def configuration() -> Config:
        """The configuration afresh; relative paths go on meaning what they meant at the start."""
        return load(arguments, os.environ, directory)

    greenlets.refuse(master=True)
    try:
        found: list[SdserveError] = []
        try:
            cfg = watched(configuration)
        except ConfigError as error:
            if not isinstance(error.usable, Config):
                raise
            cfg, found = error.usable, [error]
        greenlets.demand_none()
        if cfg.print_config and not found:
            from sdserve.config.render import config_text

            answer(printable(config_text(cfg)))
        if cfg.check_config:
            using = check(cfg, found)
            answer(printable(f"sdserve: the configuration and {cfg.wsgi_app} are good{using}"))
        if cfg.check_config or (cfg.print_config and not found):
            sys.exit(0)
        refuse([*found, *refusals(cfg, (demand_application, *HERE))])
        serve(cfg, configuration)
    except SdserveError as error:
        report(error)
        sys.exit(error.exit_code)


def watched(work: Callable[[], Config]) -> Config:
    """Loads the configuration; a signal that ends it is told with the line of the file that it was at.

    Whoever waits for a start that hangs in the operator's file ends it so, systemd after TimeoutStartSec=.
    """
    import signal

    def end(signum: int, frame: FrameType | None) -> None:
        from sdserve.gateway.blame import standing

        where = standing(frame)
        at = f": it was at {where}" if where else ""
        report(SdserveError(f"{signal.Signals(signum).name} while the configuration was loaded{at}"))
        signal.signal(signum, signal.SIG_DFL)
        signal.raise_signal(signum)
        os._exit(128 + signum)  # nothing ends PID 1 of a container by default

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    ours = [each for each, handler in before.items() if handler is not signal.SIG_IGN]  # nohup(1) does that
    for each in ours:
        signal.signal(each, end)
    try:
        return work()
    finally:
        for each in ours:
            signal.signal(each, before[each] or signal.SIG_DFL)


def is_command(arguments: Sequence[str]) -> bool:
    """Whether `unit …` is the command, and not the server's command line for the application in a module `unit`."""
    from sdserve.config import commandline
    from sdserve.config.schema import SETTINGS

    return arguments[1:2] in (["-h"], ["--help"]) or bool(commandline.parse(arguments, SETTINGS).problems)


def write_units(arguments: Sequence[str]) -> NoReturn:
    """`sdserve unit`: leaves by SystemExit."""
    from sdserve.ops.unit_command import run

    try:
        run(arguments)
    except SdserveError as error:
        for line in str(error).splitlines():
            show(f"sdserve unit: error: {line}")
        sys.exit(error.exit_code)
    sys.exit(0)


def show(text: str) -> None:
    """Prints what may be the text of an application, which shall not command the terminal."""
    print(printable(text), file=sys.stderr)


def refusals(cfg: Config, steps: Iterable[Callable[[Config], None]]) -> list[SdserveError]:
    """What the steps raise, each for itself: all of it can be mended at once."""
    found = []
    for step in steps:
        try:
            step(cfg)
        except SdserveError as error:
            found.append(error)
    return found


def refuse(found: Sequence[SdserveError]) -> None:
    """Raises one error for all that were found, if any, each line once; its exit code is the first one's."""
    if found:
        lines = dict.fromkeys(line for error in found for line in str(error).splitlines())
        raise type(found[0])("\n".join(lines)) from found[0].__cause__


def serve(cfg: Config, configuration: Callable[[], Config]) -> NoReturn:
    """Is the master until it ends; from here on, what cannot be written to a standard stream is lost, and no error."""
    import gc

    # Nothing that the start makes is garbage, so looking for it is in vain; on again in preimport.py and boot.py.
    gc.disable()
    from sdserve.arbiter.arbiter import Arbiter
    from sdserve.process import output
    from sdserve.systemd import journal

    output.install(lambda fd, dead: journal.reopen(os.environ, fd, dead))
    try:
        try:
            arbiter = Arbiter(cfg, configuration)
        except OSError as error:
            if (refused := out_of_room("a master", error)) is None:
                raise
            raise refused from error
        arbiter.run()
    finally:
        output.abandon()


def demand_application(cfg: Config) -> None:
    """Raises ConfigError when no application is configured; what was said of `paste` is enough."""
    if cfg.wsgi_app is None and not cfg.foreign("paste"):
        from sdserve.systemd.notify import is_main_process

        unit = is_main_process(os.environ, os.getpid())
        place = "the unit's EnvironmentFile=, for example /etc/sdserve/sdserve.env" if unit else "the environment"
        raise ConfigError(
            "no application: name it as module:callable on the command line, or set wsgi_app"
            f" (SDSERVE_WSGI_APP in {place})"
        )


def demand_foreground(cfg: Config) -> None:
    """Raises ConfigError when a service of systemd would detach: systemd would wait for its READY=1 until the end."""
    from sdserve.systemd.notify import awaited

    if cfg.daemon and awaited(os.environ):
        source = cfg.settings["daemon"].source
        raise ConfigError(f"daemon ({source}): systemd supervises this process: leave it out")


def demand_identity(cfg: Config) -> None:
    """Raises BootError, as workers would, when they may not become who they should be."""
    from sdserve.process import identity

    identity.demand(cfg.uid, cfg.gid)


def demand_pidfile(cfg: Config) -> None:
    """Raises PidfileError when there is no place for the pidfile."""
    if cfg.pidfile is not None:
        from sdserve.process.pidfile import demand_place

        demand_place(os.path.join(cfg.chdir, cfg.pidfile))


HERE = demand_foreground, demand_identity, demand_pidfile  # they depend on who starts, and where


def check(cfg: Config, before: Sequence[SdserveError]) -> str:
    """Does what a start would do up to the first fork, without listening; returns what is known of the worker by then.

    Raises an SdserveError that tells all that is wrong, with what was found `before`; warnings go to standard error.
    """
    here = [f"a start by this user, and from here, is refused: {error}" for error in refusals(cfg, HERE)]
    for warning in [*cfg.warnings, *_what_root_does_not_meet(), *here]:
        show(f"sdserve: warning: {warning}")
    using: list[str] = []
    steps = (demand_application, Config.enter, _check_worker_class, lambda cfg: using.append(_load_application(cfg)))
    refuse([*before, *refusals(cfg, steps)])
    return "".join(using)


def _what_root_does_not_meet() -> Iterator[str]:
    """systemd would say 203/EXEC, and sdserve nothing at all: it never runs."""
    executable = os.path.realpath(sys.executable)
    if os.geteuid() == 0 and (closed := paths.barrier(executable, paths.open_to_all)):
        yield (
            f"a service with a user of its own cannot execute {executable}: other users may not search {closed};"
            " make the virtual environment by /usr/bin/python3 -m venv"
        )


def _check_worker_class(cfg: Config) -> None:
    from sdserve.log import Logger
    from sdserve.workers.classes import resolve

    resolve(cfg.worker_class_uri).check_config(cfg, Logger(level=cfg.loglevel))


def _load_application(cfg: Config) -> str:
    """Also says what serves the application, where the application decides that."""
    from sdserve.gateway import loader
    from sdserve.gateway.blame import account
    from sdserve.log import Logger
    from sdserve.workers.classes import resolve

    if cfg.wsgi_app is None:
        return ""
    greenlets.refuse(master=cfg.preload_app)
    try:
        application = loader.load(cfg.wsgi_app)
    except AppImportError as error:
        if told := account(error):
            show(told)
        raise
    try:
        worker_class = resolve(cfg.worker_class_uri)
    except ConfigError:  # told already
        return ""
    served_by, using = worker_class.decide(application, cfg.wsgi_app)
    served_by.check_app(application, cfg.wsgi_app)
    if not worker_class.undecided:
        return ""
    served_by.check_config(cfg, Logger(level="error"))  # its warnings were told
    return f"; worker: {using}"


def report(error: SdserveError) -> None:
    """Tells the operator, and whoever waits for this process to become ready.

    That is the old master when an upgrade started this process, else systemd if it asks to be notified (sd_notify(3)).
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    for line in lines:
        with suppress(OSError):  # the reader is gone; others still wait to hear of it
            show(f"sdserve: error: {line}")
    reason = "; ".join(lines)
    from sdserve.process.handover import Handover

    handover = Handover.inherited(os.environ)
    if handover is not None:
        handover.send("failed", reason=reason)
    else:
        from sdserve.systemd.notify import Notifier

        Notifier.from_environ(os.environ).failed(reason, error.errno)


if __name__ == "__main__":
    main()
