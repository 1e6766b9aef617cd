"""sdservectl's command line, made of the table of commands."""

import argparse
from functools import partial
from typing import Any

from sdserve import __version__
from sdserve.ops.commands import COMMANDS, Command, Field

SOCKET = "the control socket (default: $RUNTIME_DIRECTORY/control, or /run/sdserve/control)"
UNIT = "the service of this unit (sdserve@shop, say): its control socket is in its RuntimeDirectory="
USER = (
    "the unit is one of your own service manager, as with systemctl --user (socket: $XDG_RUNTIME_DIR/sdserve/control)"
)
TIMEOUT = Field("timeout", float, "how long to wait (default: for ever)", "--timeout", "SECONDS")


def parser() -> argparse.ArgumentParser:
    """The command line. Options that all commands have may stand before the command, or after it."""
    parser = argparse.ArgumentParser(prog="sdservectl", description="Ask and command a running sdserve.")
    parser.add_argument("--version", action="version", version=f"sdservectl {__version__}")
    _common(parser, default=None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        if not command.hidden:
            _add(commands, command)
    return parser


def _common(parser: argparse.ArgumentParser, default: Any) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-s", "--socket", default=default, metavar="PATH", help=SOCKET)
    where.add_argument("-u", "--unit", default=default, metavar="UNIT", help=UNIT)
    parser.add_argument("--user", action="store_true", default=False if default is None else default, help=USER)
    read = partial(_value, TIMEOUT, float)
    parser.add_argument(TIMEOUT.flag, type=read, default=default, metavar=TIMEOUT.metavar, help=TIMEOUT.about)


def _add(commands: Any, command: Command) -> None:
    parser = commands.add_parser(command.name, help=command.about, description=command.about, epilog=command.details)
    _common(parser, default=argparse.SUPPRESS)
    for field in (*command.takes, *command.shows):
        if field.flag == TIMEOUT.flag:
            continue
        [kind] = [each for each in getattr(field.kind, "__args__", (field.kind,)) if each is not type(None)]
        read = partial(_value, field, kind)
        if kind is bool:
            parser.add_argument(field.flag, dest=field.name, action="store_true", help=field.about)
        elif field.flag:
            parser.add_argument(
                field.flag, dest=field.name, type=read, metavar=field.metavar, help=field.about, required=needed(field)
            )
        else:
            optional = {} if needed(field) else {"nargs": "?"}
            parser.add_argument(field.name, type=read, metavar=field.metavar, help=field.about, **optional)


def _value(field: Field, kind: type, text: str) -> Any:
    """An argument's value. Raises ArgumentTypeError, which says what it has to be."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or field.wrong(value):
        raise argparse.ArgumentTypeError(f"{text!r}: it has to be {field.expected}")
    return value


def needed(field: Field) -> bool:
    """Whether a command cannot do without it."""
    return not field.optional and field.kind is not bool


def parameters(command: Command, options: argparse.Namespace) -> dict[str, Any]:
    """What of the command line is for the master, by the names of the command's fields."""
    return {
        field.name: options.timeout if field.flag == TIMEOUT.flag else getattr(options, field.name)
        for field in command.takes
    }
