"""A loaded configuration: every setting by its name, and what follows from settings alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sdserve.config import gunicorn, paths
from sdserve.config.address import address
from sdserve.config.schema import SETTINGS, Settings
from sdserve.config.setting import SettingValue
from sdserve.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sdserve.config.address import Address


class Config(Settings):
    """A loaded configuration; immutable. Every setting is an attribute by its name, with the type of its declaration.

    settings: name to SettingValue, with the source of each value.
    address: `bind` parsed: (host, port), a path or "@abstract", or the number of a file descriptor.
    env: `raw_env` as a dict.
    proc_name: falls back to the application's name.
    uid, gid: ids of `user` and `group`, by default those of this process.
    worker_class_uri: name, dotted path or class, as configured; worker_class_str is its name for people.
    directory: the working directory sdserve was started in, by its logical name.
    env_orig: the environment that was loaded from.
    warnings: lines about what was understood, but means something else here than the operator may think.

    Hooks also find settings of gunicorn's that sdserve does not have, with the values that were given or gunicorn's
    defaults, and what `lend` adds.
    """

    settings: Mapping[str, SettingValue]
    address: list[Address]
    env: dict[str, str]
    uid: int
    gid: int
    worker_class_uri: str | type
    worker_class_str: str
    directory: str
    env_orig: dict[str, str]
    warnings: list[str]
    _foreign: Mapping[str, object]
    is_ssl = False
    ssl_options: Mapping[str, object] = {}

    def __init__(
        self,
        values: Mapping[str, SettingValue],
        directory: str,
        environ: Mapping[str, str],
        foreign: Mapping[str, object],
        warnings: Sequence[str],
    ) -> None:
        plain = {name: value.value for name, value in values.items()}
        worker_class = plain["worker_class"]
        app = plain["wsgi_app"]
        plain.update(
            settings=dict(values),
            address=[address(spec) for spec in plain["bind"]],
            env=dict(item.split("=", 1) for item in plain["raw_env"]),
            proc_name=plain["proc_name"] or app or "sdserve",
            uid=plain["user"],
            gid=plain["group"],
            worker_class_uri=gunicorn.worker_class_of(worker_class) if isinstance(worker_class, str) else worker_class,
            worker_class_str=worker_class if isinstance(worker_class, str) else worker_class.__name__,
            directory=directory,
            env_orig=dict(environ),
            warnings=list(warnings),
            _foreign=dict(foreign),
        )
        # Attributes proper, not __getattr__ over a table: workers read some of them for each request.
        self.__dict__.update(plain)

    @property
    def logging(self) -> tuple[str, str | None, str, tuple[int, int]]:
        """What a Logger needs: the error log, the access log, the level, and whose new files are."""
        return self.errorlog, self.accesslog, self.loglevel, (self.uid, self.gid)

    def foreign(self, name: str) -> object:
        """The value of a setting that gunicorn has and sdserve has not."""
        return self._foreign.get(name, gunicorn.default_of(name))

    if not TYPE_CHECKING:  # for whom a name that is no setting is a mistake

        def __getattr__(self, name):
            if gunicorn.is_foreign(name):
                return self.foreign(name)
            raise AttributeError(f"there is no setting {name}{gunicorn.did_you_mean(name, SETTINGS)}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"the configuration is immutable: set {name} in a source and reload")

    def lend(self, **attributes: object) -> None:
        """Adds what only the layers above know, and hooks read here: `worker_class` and `logger_class` as classes."""
        self.__dict__.update(attributes)

    def enter(self) -> None:
        """Takes on `raw_env`, goes to `chdir`, and puts that and `pythonpath` first on sys.path. Raises ConfigError."""
        os.environ.update(self.env)
        try:
            paths.enter(self.chdir, self.pythonpath, self.directory)
        except OSError as exc:
            raise ConfigError(f"chdir: {self.chdir!r} cannot be entered: {exc.strerror}") from exc
