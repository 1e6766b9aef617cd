"""Loading: command line over environment over config file over defaults, checked as a whole.

`load` may be called again at any time, with the same arguments, and reads everything afresh: that is what a reload
does. It changes nothing for good: while the config file and dotted paths of hooks are being imported, working directory
and import path are the configuration's, afterwards they are what they were; `Config.enter` makes them stay.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from sdserve import __version__
from sdserve.config import commandline, file, gunicorn, paths
from sdserve.config.configuration import Config
from sdserve.config.convert import show
from sdserve.config.schema import RESERVED_ENVIRONMENT, SETTINGS
from sdserve.config.setting import COMMAND_ARGS, ENV_PREFIX, Given, SettingValue, Source
from sdserve.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    Layer = Mapping[str, Given]

GUNICORN_ARGS = "GUNICORN_CMD_ARGS"
# Variables that Kubernetes and Docker make up for a service that is called sdserve.
_FOREIGN = ("SDSERVE_SERVICE_", "SDSERVE_PORT")


def load(argv: Sequence[str], environ: Mapping[str, str], directory: str | None = None) -> Config:
    """The configuration for these arguments (without the program's name), this environment, and the config file.

    directory: where relative paths start; by default the working directory by its logical name. Pass the first one
        again at each reload. Raises ConfigError with all problems of all sources, and SystemExit after --help and
        --version have been printed.
    """
    arguments = commandline.parse(argv, SETTINGS)
    if arguments.wants == "help":
        from sdserve.config.render import help_text

        answer(help_text())
    elif arguments.wants:
        answer(f"sdserve {__version__}")
    if arguments.wants:
        sys.exit(0)
    start = directory if directory is not None else paths.logical_cwd(environ)
    return _Loading(start).run(arguments, environ)


def answer(text: str) -> None:
    """Prints what was asked for; a reader that has seen enough (`| head -1`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end


class _Loading:
    """One run of `load`: collects problems and values while directory and import path are the configuration's."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self._cause: BaseException | None = None
        self._values: dict[str, SettingValue] = {}

    def run(self, arguments: Source, environ: Mapping[str, str]) -> Config:
        try:
            here, leading = paths.Place(), paths.leading()
        except PermissionError as exc:
            raise ConfigError(f"the working directory {os.getcwd()!r} cannot be entered: {exc.strerror}") from exc
        try:
            try:
                os.chdir(self._directory)
            except OSError as exc:
                raise ConfigError(f"the directory {self._directory!r} cannot be entered: {exc.strerror}") from exc
            paths.lead_imports([*leading, self._directory])
            layers = self._layers(arguments, environ)
            # Where the application is comes first: dotted paths of hooks are imported from there.
            for name in ("chdir", "pythonpath"):
                self._settle(name, layers)
            application = [*self._values["pythonpath"].value, self._values["chdir"].value]
            paths.lead_imports([*application, self._directory, *leading])
            for name in SETTINGS:
                if name not in self._values:
                    self._settle(name, layers)
            self._look_for_unread_file()
            foreign = self._foreign(layers)
            self._stand_in()
            self._leave_out_the_path()
        finally:
            here.enter()
            here.close()
        values = {name: self._values[name] for name in SETTINGS}
        config = Config(values, self._directory, environ, foreign, self._warnings)
        if self._problems:
            error = ConfigError(sorted(self._problems, key=_line))
            error.usable = config
            raise error from self._cause
        return config

    def _layers(self, arguments: Source, environ: Mapping[str, str]) -> list[Layer]:
        """The sources from the least to the most important one."""
        sources = [from_environment(environ), _command_args(environ), arguments]
        location = next((each.given["config"] for each in reversed(sources) if "config" in each.given), None)
        path = file.default_location(self._directory) if location is None else str(location.value).strip()
        contents = file.read(path, self._directory, SETTINGS) if path else Source()
        self._cause = contents.cause
        self._warnings += contents.warnings
        if environ.get(GUNICORN_ARGS, "").strip():
            self._warnings.append(f"{GUNICORN_ARGS} is not read here: {COMMAND_ARGS} is, and takes the same options")
        defaults = _fallbacks(environ)
        if location is None and path:
            defaults["config"] = Given(path, "config", "default")
        sources.insert(0, contents)
        self._problems += [problem for each in sources for problem in each.problems]
        return [defaults, *(each.given for each in sources)]

    def _settle(self, name: str, layers: Sequence[Layer]) -> None:
        """Converts what each layer says, for the mistakes in it, and keeps what the most important one says."""
        setting = SETTINGS[name]
        settled = SettingValue(name, setting.default, "default")
        for layer in layers:
            given = layer.get(name)
            if given is None:
                continue
            try:
                better = SettingValue(name, self._value(name, given.value), given.source)
                if settled.source.startswith("file ") and better.value != settled.value:
                    before, after = show(settled.value), show(better.value)
                    if name == "raw_env":  # where secrets are
                        before, after = "its items", "others"
                    said = f"{name}: {better.source} says {after} and overrides {before} of the config {settled.source}"
                    self._warnings.append(said)
                settled = better
            except ValueError as exc:
                self._problems.append(given.problem(name, " ".join(str(exc).split())))
                self._cause = self._cause or exc.__cause__
        self._values[name] = self._completed(settled)

    def _foreign(self, layers: Sequence[Layer]) -> dict[str, object]:
        """The values of settings that gunicorn has and sdserve has not, of which the lines are taken down."""
        given = {name: one for layer in layers for name, one in layer.items() if gunicorn.is_foreign(name)}
        values = {name: one.value for name, one in given.items()}

        def say(name: str, clause: str) -> str:
            value = values[name]
            shown = name if callable(value) else f"{name} = {show(value)}"
            return given[name].problem(name, f"gunicorn's setting {shown} {clause}")

        problems, warnings = gunicorn.foreign(values, say)
        self._problems += problems
        self._warnings += warnings
        if values.get("control_socket_disable"):
            source = given["control_socket_disable"].source
            self._values["control_socket"] = SettingValue("control_socket", None, source)
        return values

    def _look_for_unread_file(self) -> None:
        """Units start in /, so that a config file which only lies in `chdir` is not found, and easily missed."""
        unread = file.default_location(self._values["chdir"].value)
        if unread and self._values["config"].source == "default" and not self._values["config"].value:
            self._warnings.append(
                f"{unread} is not read: without --config (SDSERVE_CONFIG) a config file is looked for in"
                f" {self._directory}, where sdserve was started"
            )

    def _stand_in(self) -> None:
        """Where gunicorn would serve with greenlets, threads do; where it would serve with uvicorn, we do."""
        chosen, threads = self._values["worker_class"], self._values["threads"]
        name = str(chosen.value).removeprefix("egg:gunicorn#")
        if name in gunicorn.ASGI and name != "asgi":
            self._warnings.append(
                f"worker_class = {chosen.value!r} ({chosen.source}): sdserve's own ASGI worker serves in its place "
                "(worker_class = 'asgi')"
            )
        if name not in gunicorn.GREENLETS:
            return
        if threads.source == "default":
            threads = SettingValue("threads", gunicorn.GREENLET_THREADS, f"worker_class {chosen.value}")
            self._values["threads"] = threads
        self._warnings.append(
            f"worker_class = {chosen.value!r} ({chosen.source}): there are no greenlets here, "
            f"each worker serves with {threads.value} threads (threads = {threads.value})"
        )

    def _leave_out_the_path(self) -> None:
        """gunicorn's default for forwarder_headers names PATH_INFO; here no header is ever the path."""
        chosen = self._values["forwarder_headers"]
        if "PATH_INFO" in chosen.value:
            rest = [name for name in chosen.value if name != "PATH_INFO"]
            self._values["forwarder_headers"] = SettingValue(chosen.name, rest, chosen.source)
            self._warnings.append(
                f"forwarder_headers ({chosen.source}) names PATH_INFO, which is left out: the path is the request "
                "target's, a header could get around the rules of a proxy"
            )

    def _value(self, name: str, raw: object) -> object:
        value = SETTINGS[name].convert(raw)
        if name == "chdir":
            path = os.path.normpath(os.path.join(self._directory, value))
            if not os.path.isdir(path):
                full = "" if value == path else f": {path}"
                raise ValueError(f"{value!r} is not a directory{full}{paths.out_of_sight(path)}")
            return path
        return value

    def _completed(self, settled: SettingValue) -> SettingValue:
        """Defaults that only the process knows, and paths that depend on another setting."""
        value = settled.value
        if settled.name == "chdir" and value is None:
            value = self._directory
        elif settled.name == "pythonpath":
            value = [os.path.normpath(os.path.join(self._values["chdir"].value, path)) for path in value]
        elif settled.name == "user" and value is None:
            value = os.geteuid()
        elif settled.name == "group" and value is None:
            value = os.getegid()
        elif settled.name == "umask" and settled.source == "default":
            value = _inherited_umask()
        elif isinstance(value, list | dict):
            value = value.copy()  # the schema's default is not the caller's to change
        return SettingValue(settled.name, value, settled.source)


def _line(problem: str) -> float:
    """Where a problem is told: those of the config file first, by their lines, the others as they were found."""
    number = problem.partition(": ")[0].rpartition(":")[2]
    return int(number) if number.isdecimal() else float("inf")


def _inherited_umask() -> int:
    """The umask of this process (proc_pid_status(5)); umask(2) tells it only to who changes it."""
    try:
        with open("/proc/self/status", "rb") as file:
            return next((int(line.split()[1], 8) for line in file if line.startswith(b"Umask:")), 0)
    except OSError:  # /proc is not mounted; no worker is forked yet, so nobody else sees the moment
        umask = os.umask(0o077)
        os.umask(umask)
        return umask


def from_environment(environ: Mapping[str, str]) -> Source:
    """What the SDSERVE_... variables and aliases say; empty ones are not set."""
    source = Source()
    for setting in SETTINGS.values():
        for variable in (*reversed(setting.aliases), setting.env):
            text = environ.get(variable, "")
            if text.strip():
                value: object = setting.split(text) if setting.split else text
                source.given[setting.name] = Given(value, variable, f"environment {variable}")
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in RESERVED_ENVIRONMENT or variable.startswith(_FOREIGN):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if gunicorn.is_foreign(name):
            source.given[name] = Given(text, variable, f"environment {variable}")
        elif name not in SETTINGS:
            close = gunicorn.nearest(name, SETTINGS)
            hint = f"; did you mean {SETTINGS[close].env}?" if close else ""
            source.problems.append(f"{variable}={show(text)} is not a setting{hint}")
    return source


def _fallbacks(environ: Mapping[str, str]) -> dict[str, Given]:
    """Defaults that well-known variables (PORT, WEB_CONCURRENCY, ...) give."""
    given: dict[str, Given] = {}
    for setting in SETTINGS.values():
        if setting.fallback is not None:
            variable, raw = setting.fallback
            if text := environ.get(variable, "").strip():
                given[setting.name] = Given(raw(text), variable, f"environment {variable}")
    return given


def _command_args(environ: Mapping[str, str]) -> Source:
    """The arguments in SDSERVE_CMD_ARGS, quoted as in a shell; they rank below the command line, above the rest."""
    source, text = Source(), environ.get(COMMAND_ARGS, "")
    if text.strip():
        import shlex

        try:
            return commandline.parse(shlex.split(text), SETTINGS, f"environment {COMMAND_ARGS}")
        except ValueError as exc:
            source.problems.append(f"{COMMAND_ARGS}: {text!r} is not quoted as in a shell: {exc}")
    return source
