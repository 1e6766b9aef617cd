"""What a setting is: one declaration from which command line, environment, file, help, docs and man page follow.

`Setting` is plain data and `SettingValue` is what became of it after loading. They are hand-written classes with
slots because `dataclasses` and `typing` cost more at import than the whole rest of this package, and start-up time is
what the first client of an activated service waits for.
"""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, Literal

    from typing_extensions import TypeVar

    Effect = Literal["reload", "upgrade", "start"]
    T = TypeVar("T", default=Any)
else:

    class Generic:
        """What type checkers know from `typing`."""

        __slots__ = ()

        def __class_getitem__(cls, _: object) -> type:
            return cls

    T = None

ENV_PREFIX = "SDSERVE_"
COMMAND_ARGS = "SDSERVE_CMD_ARGS"  # arguments in a variable


class Setting(Generic[T]):
    """The declaration of one setting, as an attribute of its section; immutable.

    As an attribute of a loaded configuration it is the value, of the type that `convert` returns.

    name: attribute of the configuration, variable of the config file and, upper-cased, end of the environment variable.
    section: the name of the class that it is declared in.
    convert: takes a string or a Python object and returns the usable value; raises ValueError with a clause that
        starts with the refused value and says what is wrong with it.
    default: the value when nothing sets it, already converted; None where only the process knows it (load.py).
    doc: sentences for help, docs and man page; the first one is the summary.
    flags: command line flags. A setting without flags is set by environment or file.
    metavar: name of the flag's value; "" for a flag that takes none (then a `--no-...` form exists as well).
    bare: the value a flag has when given without one; only then is its value optional.
    effect: the least event that makes a change count: "reload" (HUP), "upgrade" (USR2), "start" (restart).
    repeatable: flags add up; `split` cuts an environment variable into the items.
    aliases: further environment variables, of the same rank as SDSERVE_<NAME>.
    fallback: (environment variable, function from its text to the raw value), the default when the variable is set.
    default_doc: how docs describe a default that is computed or too long to show.
    in_file: False for what a config file cannot set, because it is needed to find the file.
    """

    __slots__ = (
        "aliases",
        "bare",
        "convert",
        "default",
        "default_doc",
        "doc",
        "effect",
        "fallback",
        "flags",
        "in_file",
        "metavar",
        "name",
        "repeatable",
        "section",
        "split",
    )

    def __init__(
        self,
        convert: Callable[[object], T],
        default: object,
        doc: str,
        *,
        flags: tuple[str, ...] = (),
        metavar: str = "",
        bare: str | None = None,
        effect: Effect = "reload",
        repeatable: bool = False,
        split: Callable[[str], list[str]] | None = None,
        aliases: tuple[str, ...] = (),
        fallback: tuple[str, Callable[[str], object]] | None = None,
        default_doc: str | None = None,
        in_file: bool = True,
    ) -> None:
        self.convert = convert
        self.default: Any = default
        self.doc = " ".join(doc.split())
        self.flags = flags
        self.metavar = metavar
        self.bare = bare
        self.effect = effect
        self.repeatable = repeatable
        self.split = split
        self.aliases = aliases
        self.fallback = fallback
        self.default_doc = default_doc
        self.in_file = in_file

    def __set_name__(self, section: type, name: str) -> None:
        self.name = name
        self.section = section.__name__

    def __get__(self, configuration: object, owner: type) -> T:
        """For type checkers: a loaded configuration has the value in its own dict, which comes before this."""
        raise AttributeError(self.name)

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(f"the declaration of {self.name} is immutable")
        super().__setattr__(name, value)

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
    def summary(self) -> str:
        """The first sentence of the documentation."""
        return self.doc.partition(". ")[0].rstrip(".") + "."


class SettingValue:
    """A setting's value after loading; immutable.

    source: "default", "file <path>", "environment <VARIABLE>" or "command line".
    """

    __slots__ = ("name", "source", "value")

    name: str
    value: Any
    source: str

    def __init__(self, name: str, value: Any, source: str) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "source", source)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"the setting {self.name} is immutable: set it in a source and reload")

    def __repr__(self) -> str:
        return f"<SettingValue {self.name}={self.value!r} from {self.source}>"

    def get(self) -> Any:
        """The value, by the name gunicorn's hooks know."""
        return self.value


class Given:
    """A raw value on its way from a source: `source` names it in the loaded configuration, `where` in problems.

    `where` is the text itself (a flag, a variable), or a function that finds it for the setting's name, since the line
    of a file is worth looking up only when there is a problem.
    """

    __slots__ = ("source", "value", "where")

    def __init__(self, value: object, where: str | Callable[[str], str], source: str) -> None:
        self.value = value
        self.where = where
        self.source = source

    def problem(self, name: str, clause: str) -> str:
        """The line for the operator."""
        return f"{self.where if isinstance(self.where, str) else self.where(name)}: {clause}"
