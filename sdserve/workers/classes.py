"""Which worker class a name means: ours, one of an installed package, or one that somebody wrote."""

from sdserve.config.gunicorn import instead_of_class, worker_class_of
from sdserve.errors import ConfigError
from sdserve.workers.auto import NAMES, AutoWorker, class_of
from sdserve.workers.base import Worker


def resolve(uri: str | type) -> type[Worker]:
    """The worker class of a short name, an entry point of the group `sdserve.workers`, a dotted path, or itself.

    Dotted paths are `package.module.Class` or `package.module:Class`. Raises ConfigError with one line.
    """
    if isinstance(uri, type):
        return _checked(uri.__name__, uri)
    name = worker_class_of(uri)
    if name == "auto":
        return AutoWorker
    if name in NAMES:
        return class_of(name)
    if instead := instead_of_class(uri):
        raise ConfigError(f"worker class {uri!r} has no counterpart in sdserve: {instead}")
    if ":" not in uri and "." not in uri:
        return _of_entry_point(uri)
    module_name, _, class_name = uri.replace(":", ".").rpartition(".")
    import importlib

    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"worker class {uri!r} cannot be imported: {error}") from error
    return _checked(uri, found)


def _of_entry_point(name: str) -> type[Worker]:
    from importlib.metadata import entry_points

    found = entry_points(group="sdserve.workers")
    for entry in found:
        if entry.name == name:
            return _checked(name, entry.load())
    names = ", ".join(sorted({"auto", *NAMES, *(entry.name for entry in found)}))
    raise ConfigError(f"worker class {name!r} is not known: use one of {names}, or package.module:Class")


def _checked(uri: str, found: object) -> type[Worker]:
    if any(base.__name__ == "UvicornWorker" for base in getattr(found, "__mro__", ())):
        raise ConfigError(
            f"worker class {uri!r} derives from uvicorn's: use worker_class = 'asgi', and sdserve's settings for what "
            "its CONFIG_KWARGS says (asgi_loop, asgi_lifespan, root_path, ...)"
        )
    if not (isinstance(found, type) and issubclass(found, Worker)):
        raise ConfigError(
            f"worker class {uri!r} does not derive from sdserve.workers.base.Worker: derive it from that, "
            "the names are gunicorn's, or use worker_class = 'auto'"
        )
    return found
