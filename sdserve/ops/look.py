"""Looks at an application from inside: `python -m sdserve.ops.look APP DIRECTORY FD` imports it as a worker would.

That runs the application's code, so `sdserve unit` (project.py) starts a separate process for it, with the interpreter
of the application's virtual environment and a limit of time. It writes its findings to the descriptor FD as JSON; the
application may print what it likes.
"""

import json
import os
import sys
from typing import Any

from sdserve import greenlets
from sdserve.config import paths
from sdserve.errors import AppBootError, AppImportError, SdserveError
from sdserve.gateway import loader
from sdserve.gateway.protocol import demand_asgi, demand_wsgi, spoken_by


def look(uri: str) -> dict[str, Any]:
    """What an application is; see project.Found for the names.

    `{"error": why it cannot be loaded}` where it cannot; `nothing` is true there if its name stands for no application.
    """
    try:
        application: Any = loader.load(uri)
    except SdserveError as error:
        return {"error": str(error), "nothing": not isinstance(error, AppBootError) or _is_absent(uri, error.__cause__)}
    spoken = spoken_by(application)
    framework = (type(application).__module__ or "").partition(".")[0]
    found: dict[str, Any] = {"protocol": spoken.protocol, "framework": framework}
    try:  # what workers demand
        (demand_asgi if spoken.protocol == "asgi" else demand_wsgi)(application, uri)
    except AppImportError as error:
        return {"error": str(error), "nothing": True}
    if framework == "django" or "django.core.handlers" in sys.modules:
        found.update(framework="django", **_django())
    elif framework == "flask":
        found["files"] = _of_url(application.config.get("SQLALCHEMY_DATABASE_URI"), application.instance_path)
    return found


def _is_absent(uri: str, cause: BaseException | None) -> bool:
    """Whether the module itself is not there, and not one that it imports."""
    module = uri.partition(":")[0]
    return isinstance(cause, ModuleNotFoundError) and f"{module}.".startswith(f"{cause.name}.")


def _django() -> dict[str, Any]:
    """What a unit file has to take over from Django's settings."""
    from django.conf import settings  # type: ignore[import-untyped]

    databases = [each for each in settings.DATABASES.values() if str(each.get("ENGINE", "")).endswith("sqlite3")]
    files = [str(each["NAME"]) for each in databases if each.get("NAME")]
    return {
        "settings": os.environ.get("DJANGO_SETTINGS_MODULE", ""),
        "files": [os.path.abspath(name) for name in files if not name.startswith((":memory:", "file:"))],
        "directories": [os.path.abspath(settings.MEDIA_ROOT)] if settings.MEDIA_ROOT else [],
        "static": os.path.abspath(settings.STATIC_ROOT) if settings.STATIC_ROOT else "",
        "has_static": "django.contrib.staticfiles" in settings.INSTALLED_APPS,
        "hosts": list(map(str, settings.ALLOWED_HOSTS)),
        "debug": bool(settings.DEBUG),
    }


def _of_url(url: object, directory: str) -> list[str]:
    """The file of an SQLite database, from a URL of SQLAlchemy's; relative ones lie in Flask's instance directory."""
    scheme, slashes, name = str(url).partition(":///")
    if not slashes or not scheme.startswith("sqlite") or name in ("", ":memory:"):
        return []
    return [os.path.join(directory, name.partition("?")[0])]


def main() -> None:
    """Looks at the application that the arguments name."""
    uri, directory, fd = sys.argv[1:]
    paths.enter(directory, [])
    greenlets.refuse()
    report = json.dumps(look(uri))
    with os.fdopen(int(fd), "w") as out:
        out.write(report)


if __name__ == "__main__":
    main()
