"""The application that a generation of workers serves: imported once in each process that needs it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdserve.config import Config


RARELY = 50_000  # objects that are made, and live, between two collections


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

        with rare_collections():
            return loader.load(self.app_uri)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Has the garbage collector look seldom: next to nothing that an import makes is garbage.

    It would look a hundred times while Flask or Django is imported, which is a tenth of the time that takes. What the
    application says itself of collections, in gc, is left as it is.
    """
    before = gc.get_threshold()
    rare = (max(before[0], RARELY), *before[1:]) if before[0] else before  # 0: never
    gc.set_threshold(*rare)
    try:
        yield
    finally:
        gc.freeze()  # else the next collection, of all that has been made, is what the first request waits for
        if gc.get_threshold() == rare:
            gc.set_threshold(*before)
