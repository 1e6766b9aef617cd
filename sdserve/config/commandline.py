"""The command line: `sdserve [OPTIONS] [module:callable[()]]`, parsed from the schema.

The grammar is argparse's, as gunicorn's users know it: `--flag value`, `--flag=value`, unambiguous prefixes of long
flags, `-w4`, `-w 4`, bundled short flags (`-Dw4`), options and the application in any order, `--` ends the options. Two
things are different: all problems are found in one pass, and flags without a value have a `--no-` form that overrides a
less important source. argparse itself cannot do the first, and costs start-up time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdserve.config import gunicorn
from sdserve.config.setting import Given, Setting, Source

QUESTIONS = {"-h": "help", "--help": "help", "-v": "version", "--version": "version"}


def parse(argv: Sequence[str], settings: Mapping[str, Setting], source: str = "command line") -> Source:
    """Reads arguments without the program's name. Raises nothing: problems are collected."""
    return _Parser(settings, source).parse(argv)


class _Parser:
    def __init__(self, settings: Mapping[str, Setting], source: str) -> None:
        self._source = source
        self._result = Source()
        self._rest: list[str] = []
        self._values: dict[str, Setting] = {}  # flags that set something by a value, or to True
        self._negations: dict[str, Setting] = {}  # --no-... flags
        for setting in settings.values():
            for flag in setting.flags:
                self._values[flag] = setting
                if not setting.takes_value and flag.startswith("--"):
                    self._negations[f"--no-{flag[2:]}"] = setting

    def parse(self, argv: Sequence[str]) -> Source:
        self._rest = list(reversed(argv))  # a stack: the next argument is the last item
        while self._rest:
            argument = self._rest.pop()
            if argument == "--":
                for positional in reversed(self._rest):
                    self._application(positional)
                break
            if argument.startswith("--"):
                self._long(argument)
            elif argument.startswith("-") and argument != "-":
                self._short(argument)
            else:
                self._application(argument)
        return self._result

    def _application(self, argument: str) -> None:
        before = self._result.given.get("wsgi_app")
        if before is not None:
            self._trouble(f"{argument!r} is one argument too many: the application is {before.value!r}")
            return
        self._result.given["wsgi_app"] = Given(argument, self._where("application"), self._source)

    def _long(self, argument: str) -> None:
        written, equals, value = argument.partition("=")
        flag = self._full(written.replace("_", "-"), written)
        if flag is None:
            return
        if flag in QUESTIONS:
            self._result.wants = self._result.wants or QUESTIONS[flag]
        elif foreign := gunicorn.foreign_flag(flag):
            self._foreign(flag, *foreign, value if equals else None)
        elif flag in self._negations:
            if equals:
                self._trouble(f"{flag} takes no value, {value!r} was given")
            else:
                self._give(self._negations[flag], flag, False)
        elif not self._values[flag].takes_value and equals:
            self._trouble(f"{flag} takes no value, {value!r} was given")
        else:
            self._take(flag, value if equals else None)

    def _full(self, flag: str, written: str) -> str | None:
        """The flag that is meant, prefixes completed; None, and a problem, when nothing or several are meant."""
        known = [*self._values, *self._negations, "--help", "--version"]
        if flag in known or gunicorn.foreign_flag(flag):
            return flag
        from sdserve.config.uvicorn import instead_of

        if instead := instead_of(flag):
            self._trouble(f"{written} is an option of uvicorn's; here: {instead}")
            self._skip_value()
            return None
        meant = [each for each in known if each.startswith(flag)]
        if len(meant) == 1:
            return meant[0]
        if meant:
            self._trouble(f"{written} is ambiguous: it could be {' or '.join(meant)}")
        else:
            self._trouble(f"{written} is not an option{gunicorn.did_you_mean(flag, known)}")
        self._skip_value()
        return None

    def _short(self, argument: str) -> None:
        letters = argument[1:]
        while letters:
            flag, letters = f"-{letters[0]}", letters[1:]
            if flag in QUESTIONS:
                self._result.wants = self._result.wants or QUESTIONS[flag]
            elif flag not in self._values:
                foreign = gunicorn.foreign_flag(flag)
                if foreign is None:
                    self._trouble(f"{flag} is not an option")
                    return
                self._foreign(flag, *foreign, None)
            elif self._values[flag].takes_value:
                self._take(flag, letters.removeprefix("=") if letters else None)
                return
            else:
                self._take(flag, None)

    def _take(self, flag: str, attached: str | None) -> None:
        """Sets a flag's setting from the attached value, the next argument, or neither."""
        setting = self._values[flag]
        if attached is not None:
            self._give(setting, flag, attached)
        elif not setting.takes_value:
            self._give(setting, flag, True)
        elif setting.bare is not None:
            self._give(setting, flag, self._rest.pop() if self._fits(setting) else setting.bare)
        elif (value := self._next()) is not None:
            self._give(setting, flag, value)
        else:
            self._trouble(f"{flag} needs a value: {flag} {setting.metavar}")

    def _next(self) -> str | None:
        """Takes the next argument, unless it is an option; `-` and negative numbers are none."""
        following = self._rest[-1] if self._rest else "--"
        is_option = following.startswith("-") and following != "-" and not following[1:2].isdigit()
        return None if is_option else self._rest.pop()

    def _foreign(self, flag: str, name: str, value: object, attached: str | None) -> None:
        """Notes a setting of gunicorn's that sdserve does not have."""
        if value is None:
            value = self._next() if attached is None else attached
        if value is None:
            self._trouble(f"{flag} needs a value")
        self._result.given[name] = Given(value, self._where(flag), self._source)

    def _fits(self, setting: Setting) -> bool:
        """Whether the next argument is a value of a setting whose value is optional, not the application."""
        try:
            setting.convert(self._rest[-1] if self._rest else "")
        except ValueError:
            return False
        return True

    def _give(self, setting: Setting, flag: str, value: object) -> None:
        before = self._result.given.get(setting.name)
        if setting.repeatable:
            value = [*(before.value if before is not None and isinstance(before.value, list) else []), value]
        self._result.given[setting.name] = Given(value, self._where(flag), self._source)

    def _skip_value(self) -> None:
        """Drops what looks like the value of an unknown option: it must not be taken for the application."""
        if len(self._rest) > 1:
            self._next()

    def _where(self, text: str) -> str:
        return text if self._source == "command line" else f"{self._source.removeprefix('environment ')}: {text}"

    def _trouble(self, clause: str) -> None:
        self._result.problems.append(self._where(clause))
