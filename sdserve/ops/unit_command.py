"""The command `sdserve unit APP`: writes an application's units, and prints the two commands that install and start it.

It looks (project.py), decides (unit_plan.py), and writes below one directory. Installing is up to the operator. It does
not overwrite what it did not write, or somebody has changed since, unless told to.
"""

import argparse
import functools
import os
import pwd
import shlex
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sdserve.config import address, file, paths
from sdserve.errors import ConfigError
from sdserve.ops import project, unit_plan, units
from sdserve.ops.places import Place, Project
from sdserve.ops.unit_plan import Plan
from sdserve.systemd.records import one_line, printable

UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
CATALOGUE = Path(__file__).parents[1] / "sdserve.catalog"
DESCRIPTION = """Writes a socket unit and a service unit for an application, after looking at it: WSGI or ASGI, its
virtual environment, whose files it writes to, what Django's settings say. The application is imported for that, in a
process of its own. Then it prints the two commands, for root, that install the units and start them."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="sdserve unit", description=" ".join(DESCRIPTION.split()))
    parser.add_argument("app", metavar="APP", help="the application, module:callable")
    parser.add_argument("--chdir", default=".", metavar="DIR", help="where it is imported from (default: here)")
    parser.add_argument("--name", help="of the units (default: the project's, NAME.socket and NAME.service)")
    listen = "address, :port or unix:/path (default: 127.0.0.1:8000); may be given again"
    parser.add_argument("--listen", action="append", metavar="ADDRESS", help=listen)
    parser.add_argument(
        "--user", default="", help="serve as this user (default: a dynamic one, or the owner of its files)"
    )
    parser.add_argument("--venv", metavar="DIR", help="virtual environment (default: the project's, or this command's)")
    about = "another place that it writes to; may be given again"
    parser.add_argument("--writable", action="append", default=[], metavar="PATH", help=about)
    drop_ins = [name for name in units.drop_ins() if name != "user"]  # --user does more than that one
    about = f"adds a ready-made drop-in ({', '.join(drop_ins)}); may be given again"
    parser.add_argument(
        "--with", action="append", default=[], dest="with_", metavar="DROPIN", choices=drop_ins, help=about
    )
    parser.add_argument("--output", metavar="DIR", help="where to write (default: NAME-units)")
    parser.add_argument("--force", action="store_true", help="overwrite what this command did not write")
    parser.add_argument("--transient", action="store_true", help="print a systemd-run line instead, and write nothing")
    return parser


def run(argv: Sequence[str]) -> None:
    """Does what the arguments (those after `unit`) say. Raises ConfigError, which says in one line what is wrong."""
    options = parser().parse_args(argv)
    try:
        plan = _plan(options)
        if options.transient:
            line = _demand_printable(plan.transient())
            _tell(plan, transient=True)
            print(line)
            return
        output, shared = _output(plan, options.output)
        files = plan.files()
        install = _demand_printable(f"sh {shlex.quote(str(output / 'install.sh'))}")
        if not options.force:
            _demand_ours(plan, output, files)
        _write(output, files)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{error.filename or options.chdir}: {error.strerror}") from error
    _tell(plan)
    if shared:
        _say(shared)
    if os.geteuid() != 0:
        _say("the two commands are for root:")
    print(install)
    print(f"systemctl enable --now {plan.name}.socket")


def _plan(options: argparse.Namespace) -> Plan:
    """What the arguments mean here. Raises ValueError, ConfigError, OSError."""
    start = paths.logical_cwd(os.environ)
    directory = os.path.normpath(os.path.join(start, options.chdir))
    if not os.path.isdir(directory):
        raise ConfigError(f"--chdir: {directory!r} is not a directory")
    name = options.name or unit_plan.name_of(options.app, directory)
    if not unit_plan.NAME.fullmatch(name):
        raise ConfigError(f"--name: {name!r} has to be 23 of a-z, 0-9, _ and - at most, a letter or _ first")
    prefix = os.path.join(start, options.venv) if options.venv else project.environment(directory, sys.prefix)
    if not os.access(os.path.join(prefix, "bin", "sdserve"), os.X_OK):
        raise ConfigError(f"{prefix}/bin/sdserve is missing: install sdserve there, or name another --venv")
    found = project.look(options.app, directory, prefix)
    if options.user:
        _demand_user(options.user)
    more = list(_places((os.path.normpath(os.path.join(start, path)), False) for path in options.writable))
    for place in more:
        _demand_nobody_elses(place)
    of = Project(os.path.realpath(directory), _owner(directory), options.user)
    said = list(_places([*((each, True) for each in found.files), *((each, False) for each in found.directories)]))
    return Plan(
        app=options.app,
        name=name,
        directory=directory,
        prefix=prefix,
        python=os.path.realpath(os.path.join(prefix, "bin", "python")),
        found=found,
        listen=tuple(_listen(each) for each in options.listen or ["127.0.0.1:8000"]),
        user=options.user,
        writes=(*filter(of.may_have, said), *more),
        denied=tuple(each for each in said if not of.may_have(each)),
        config=file.default_location(directory),
        with_=tuple(sorted(set(options.with_))),
        catalogue=CATALOGUE.read_text() if CATALOGUE.exists() else "",
    )


def _demand_user(name: str) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user: there is no user {name!r}") from None


def _listen(spec: str) -> str:
    """An address of ours as ListenStream= takes it. Raises ValueError."""
    where = address.address(spec if not spec.isdecimal() else f"127.0.0.1:{spec}")
    if isinstance(where, int):
        raise ValueError(f"--listen: {spec!r} is a descriptor, and systemd listens itself")
    if isinstance(where, str):
        return where
    host, port = where
    if host == "0.0.0.0":  # ListenStream=PORT would mean IPv6 as well, where there is any
        return f"0.0.0.0:{port}"
    if not host.replace(".", "").isdecimal() and ":" not in host:
        if host != "localhost":
            raise ValueError(f"--listen: {spec!r} has the name of a host: systemd takes addresses only")
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _places(named: Iterable[tuple[str, bool]]) -> Iterator[Place]:
    """What (path, is it a file) stand for outside of the directories that the unit gives it, and whose that is."""
    for path, is_file in named:
        if not f"{path}/".startswith(project.STATE + "/"):
            directory = os.path.dirname(path)
            new = not os.path.exists(directory if is_file else path)
            yield Place(path, _owner(path), is_file, _owner(directory), os.path.realpath(path), new)


def _demand_nobody_elses(place: Place) -> None:
    """Raises ConfigError for a directory that is everybody's, as /tmp is: it is nobody's to have."""
    if place.directory == "/" or (not place.new and os.stat(place.directory).st_mode & stat.S_ISVTX):
        raise ConfigError(f"--writable: {place.directory} is everybody's: name a directory in it")


def _owner(path: str) -> str:
    """The owner of a path, or of the directory that it would be made in; "" for root. Raises OSError, ConfigError."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name if uid else ""
    except KeyError:
        raise ConfigError(f"{path} belongs to uid {uid}, who is no user here: name one by --user") from None


def _output(plan: Plan, wanted: str | None) -> tuple[Path, str]:
    """Where to write, and what is to be said of that. What root is to run, nobody else may change before it does."""
    output = Path(wanted or f"{plan.name}-units").absolute()
    places = (str(output), os.path.realpath(output))
    shared = next(filter(None, (project.shared(0, each) or plan.writes_above(each) for each in places)), "")
    if not shared or os.geteuid() != 0:
        return output, ""
    if wanted:
        return output, f"others than root may write to {shared}: look at install.sh before root runs it"
    home = Path(pwd.getpwuid(0).pw_dir)
    return home / output.name, f"the files are in {home}, since others than root may write to {shared}"


def _demand_ours(plan: Plan, output: Path, files: Iterable[str]) -> None:
    """Raises ConfigError if something would be lost: a file in the way, or a unit of another program."""
    found = [str(output / name) for name in files if (output / name).is_symlink() or _is_foreign(output / name)]
    for directory in UNIT_DIRECTORIES:
        installed = [Path(directory, f"{plan.name}.{kind}") for kind in ("socket", "service")]
        found += [str(path) for path in installed if _is_foreign(path)]
    if found:
        raise ConfigError(
            f"{', '.join(dict.fromkeys(found))}: not written by this command, or changed since: choose another --name"
            " or --output, or overwrite by --force"
        )


def _is_foreign(path: Path) -> bool:
    if not path.is_file():  # a FIFO would be read for ever
        return os.path.lexists(path)
    return not unit_plan.is_ours(path.read_text(errors="replace"))


def _write(output: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with target.open("x") as file:  # root may be writing where others may, too: no symbolic link is followed
            file.write(text)


def _searched_by(plan: Plan) -> Callable[[str], bool]:
    """Whether the service's user may search a directory. One that does not exist yet is in no group."""
    if not plan.owner or plan.new_user:
        return paths.open_to_all
    user = pwd.getpwnam(plan.owner)
    return functools.partial(project.may_search, user.pw_uid, os.getgrouplist(user.pw_name, user.pw_gid))


def _tell(plan: Plan, transient: bool = False) -> None:
    """Prints what was found to standard error: standard output has only the commands."""
    lines = [f"{plan.app} is {plan.kind}, served by {plan.prefix}/bin/sdserve", *plan.hints(transient)]
    other = project.without_sdserve(plan.directory)
    if other and plan.found.error and other != plan.prefix:
        lines.append(f"{other} has no sdserve: install it there, or name another environment by --venv")
    release = os.path.realpath(plan.directory)
    there = [each for each in plan.writable if f"{each}/".startswith(f"{release}/")]
    if there and release != plan.directory:
        lines.append(f"{release} is {plan.directory} until the next release: what it writes there belongs elsewhere")
    if closed := plan.closed(_searched_by(plan)):
        mended = f"chmod o+x {shlex.quote(closed)}"
        with suppress(KeyError):
            if owner := os.stat(closed).st_uid:
                mended += f", or serve as its owner: --user {pwd.getpwuid(owner).pw_name}"
        lines.append(f"{closed}: the service's user may not search it: {mended}")
    for line in lines:
        _say(line)


def _say(text: str) -> None:
    """Prints what may have texts of the application: they neither command the terminal nor look like a command."""
    print(f"sdserve unit: {printable(one_line(text))}", file=sys.stderr)


def _demand_printable(command: str) -> str:
    """A command that the operator is to copy. Raises ValueError for what a terminal would not show as it is."""
    if not command.isprintable():
        raise ValueError(f"{command!a} has characters that a terminal does not show: rename what has them")
    return command
