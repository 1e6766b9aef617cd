"""What a setting is: one declaration from which command line, environment, file, help, docs and man page follow.

`Setting` is plain data and `SettingValue` is what became of it after loading. Both derive from `Immutable`, since
`dataclasses` and `typing` cost more at import than the rest of this package.
"""

from __future__ import annotations

from collections.abc import Callable

from sdserve.config import convert
from sdserve.immutable import Immutable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Generic, Literal

    from typing_extensions import TypeVar

    Effect = Literal["reload", "upgrade", "start"]
    T = TypeVar("T", default=Any)
else:

    class Generic:
        """What type checkers know from `typing`."""

        def __class_getitem__(cls, _: object) -> type:
            return cls

    T = None

ENV_PREFIX = "SDSERVE_"
COMMAND_ARGS = "SDSERVE_CMD_ARGS"  # arguments in a variable


class Setting(Immutable, Generic[T]):
    """The declaration of one setting, as an attribute of its section.

    As an attribute of a loaded configuration it is the value, of the type that `convert` returns. Its name is that of
    the variable in the config file, in capitals the end of its environment variable, and with dashes its flag.

    convert: takes a string or a Python object and returns the usable value; raises ValueError with a clause that
        starts with the refused value and says what is wrong with it.
    default: the value when nothing sets it, already converted; None where only the process knows it (load.py).
    text: sentences for help, docs and man page; the first one is the summary.
    metavar: name of the flag's value; "" for a flag that takes none (then a `--no-...` form exists as well), None for a
        setting without flags, which is set by environment or file.
    short: a further flag of one letter.
    flags: the long flags where they are not the name with dashes; of a declared setting, all of them.
    bare: the value a flag has when given without one; only then is its value optional.
    effect: the least event that makes a change count: "reload" (HUP), "upgrade" (USR2), "start" (restart).
    repeatable: flags add up; `split` cuts an environment variable into the items.
    aliases: further environment variables, of the same rank as SDSERVE_<NAME>.
    fallback: (environment variable, function from its text to the raw value), the default when the variable is set.
    default_doc: how docs describe a default that is computed or too long to show.
    in_file: False for what a config file cannot set, because it is needed to find the file.
    """

    convert: Callable[[object], T]
    default: Any
    text: str
    metavar: str | None = None
    short: str | None = None
    flags: tuple[str, ...] = ()
    bare: str | None = None
    effect: Effect = "reload"
    repeatable: bool = False
    split: Callable[[str], list[str]] | None = None
    aliases: tuple[str, ...] = ()
    fallback: tuple[str, Callable[[str], object]] | None = None
    default_doc: str | None = None
    in_file: bool = True

    if TYPE_CHECKING:
        name: ClassVar[str]
        section: ClassVar[str]

    def __set_name__(self, section: type, name: str) -> None:
        flags = self.flags
        if self.metavar is not None and not flags:
            flags = (f"--{name.replace('_', '-')}",)
        if self.short is not None:
            flags = (self.short, *flags)
        self.__dict__.update(name=name, section=section.__name__, flags=flags)

    def __get__(self, configuration: object, owner: type) -> T:
        """For type checkers: a loaded configuration has the value in its own dict, which comes before this."""
        raise AttributeError(self.name)

    def __repr__(self) -> str:
        return f"<Setting {self.name}>"

    @property
    def env(self) -> str:
        """The environment variable, "SDSERVE_" and the name in capitals."""
        return ENV_PREFIX + self.name.upper()

    @property
    def takes_value(self) -> bool:
        """Whether the flags are followed by a value."""
        return bool(self.metavar)

    @property
    def doc(self) -> str:
        return " ".join(self.text.split())

    @property
    def summary(self) -> str:
        """The first sentence of the documentation."""
        return self.doc.partition(". ")[0].rstrip(".") + "."

    @property
    def zero(self) -> str:
        """The sentence of the documentation that says what 0 means, if there is one."""
        before, means, rest = self.doc.rpartition("0 means ")
        return means + rest.partition(". ")[0].rstrip(".") + "." if before else ""


# Declarations of the usual kinds.


def switch(text: str, **more: Any) -> Setting[bool]:
    """Off unless it is set."""
    return Setting(convert.boolean, False, text, "", **more)


def seconds(default: float, text: str, **more: Any) -> Setting[float]:
    return Setting(convert.seconds, default, text, "SECONDS", **more)


def size(default: int, text: str, **more: Any) -> Setting[int]:
    """Bytes."""
    return Setting(convert.size, default, text, "BYTES", **more)


def count(
    default: int, text: str, metavar: str = "N", minimum: int = 0, maximum: int | None = None, **more: Any
) -> Setting[int]:
    return Setting(convert.whole(minimum, maximum), default, text, metavar, **more)


class SettingValue(Immutable):
    """A setting's value after loading; `source`: "default", "file <path>", "environment <VARIABLE>" or "command line".

    `get` is for gunicorn's hooks.
    """

    name: str
    value: Any
    source: str

    def get(self) -> Any:
        return self.value


class Given(Immutable):
    """A raw value on its way from a source: `source` names it in the loaded configuration, `where` in problems.

    `where` is the text itself (a flag, a variable), or a function that finds it for the setting's name, since the line
    of a file is worth looking up only when there is a problem.
    """

    value: object
    where: str | Callable[[str], str]
    source: str

    def problem(self, name: str, clause: str) -> str:
        """The line for the operator."""
        return f"{self.where if isinstance(self.where, str) else self.where(name)}: {clause}"


class Source:
    """What a command line, an environment or a file says: raw values by setting name, lines of problems and warnings,
    the exception behind the problems, and "help" or "version" if it asks for that."""

    def __init__(self) -> None:
        self.given: dict[str, Given] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.cause: BaseException | None = None
        self.wants = ""
