"""The application that a generation of workers serves: imported once in each process that needs it."""

from collections.abc import Callable
from typing import Any


class Application:
    """An application by its name, `module:callable`; gunicorn's `app` object, as worker classes see it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._callable: Callable[..., Any] | None = None

    def wsgi(self) -> Callable[..., Any]:
        """The callable, imported at the first call. Raises AppImportError."""
        if self._callable is None:
            from sdserve.gateway import loader

            self._callable = loader.load(self.uri)
        return self._callable
