"""The application that a generation of workers serves: imported once in each process that needs it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdserve.config import Config


class Application:
    """An application by its name, `module:callable`; gunicorn's `app` object, as worker classes and hooks see it.

    callable: what was imported, None before. cfg: the configuration that it is served with.
    """

    def __init__(self, uri: str, cfg: "Config | None" = None) -> None:
        self.app_uri = uri
        self.cfg = cfg
        self.callable: Callable[..., Any] | None = None

    def wsgi(self) -> Callable[..., Any]:
        """The callable, imported at the first call. Raises AppImportError, BootError."""
        if self.callable is None:
            self.callable = self.load()
        return self.callable

    def load(self) -> Callable[..., Any]:
        """Imports the callable. Raises AppImportError, BootError."""
        from sdserve.gateway import loader

        return loader.load(self.app_uri)
