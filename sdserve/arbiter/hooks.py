"""Server hooks, as the master calls them: with the object that they know as `server`, in bounded time."""

from collections.abc import Callable

from sdserve.arbiter.service import Service
from sdserve.arbiter.steps import Steps
from sdserve.errors import AppImportError, HookError, SdserveError, in_words
from sdserve.gateway.blame import account
from sdserve.immutable import Immutable
from sdserve.log import Logger


class Hooks(Immutable):
    """The hooks of the configuration in force. `server` is what hooks get."""

    service: Service
    steps: Steps
    server: object

    def call(self, name: str, *args: object) -> None:
        """Calls a hook, bounded by `boot_timeout`. What it raises is the caller's."""
        cfg = self.service.cfg
        self.steps.hook(name, getattr(cfg, name), cfg.boot_timeout, self.server, *args)

    def tell(self, name: str, *args: object) -> None:
        """Calls a hook that only hears of something: what it raises is logged."""
        try:
            self.call(name, *args)
        except Exception:
            self.service.log.exception("Exception in the %s hook", name)

    def pre_exec(self) -> Callable[[], object]:
        """The hook of that name; the process that is about to become a new master calls it."""
        hook, server = self.service.cfg.pre_exec, self.server
        return lambda: hook(server)


def explain(log: Logger, error: BaseException) -> str:
    """One line for what a configuration or a hook raised; the log gets the traceback when the error is not ours."""
    try:
        return _explained(log, error)
    except Exception as second:
        log.error("Exception while explaining another one", exc_info=second)
        return type(error).__name__


def _explained(log: Logger, error: BaseException) -> str:
    if isinstance(error, SdserveError) and not isinstance(error, HookError):
        if isinstance(error, AppImportError) and (told := account(error)):
            log.error("Exception while loading the application\n%s", told)
        log.debug("the reload failed", exc_info=error)
        return "; ".join(str(error).splitlines())
    log.error("Exception in the configuration or a hook", exc_info=error.__cause__ or error)
    if isinstance(error, HookError):
        return str(error)
    return in_words(error)
