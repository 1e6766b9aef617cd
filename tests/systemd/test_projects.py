"""A Flask and a Django project: served, reloaded after a code change, upgraded after a change of a dependency."""

from pathlib import Path

import pytest

from tests.support.machine import CHECKOUT, Machine
from tests.support.service import deploy
from tests.support.wheels import wheel

pytestmark = pytest.mark.once

APPS = CHECKOUT / "tests" / "apps"
PROJECTS = {
    "flask": ("flask_site", "site_app:app", "site_app.py"),
    "django": ("django_site", "shop.wsgi", "shop/urls.py"),
}


def files(directory: str) -> dict[str, str]:
    base = APPS / directory
    return {str(path.relative_to(base)): path.read_text() for path in base.rglob("*.py")}


@pytest.mark.parametrize("preload", ["false", "true"], ids=["plain", "preloaded"])
@pytest.mark.parametrize("project", PROJECTS)
def test_served_reloaded_and_upgraded(machine: Machine, tmp_path: Path, project: str, preload: str) -> None:
    directory, app, changed = PROJECTS[project]
    machine.pip_install(wheel(tmp_path, "greeting", "1.0", "TEXT = 'one'\n"))
    service = deploy(machine, files(directory), app, {"PRELOAD_APP": preload})

    assert service.ask().body == b"first one"
    service.check(workers=2)
    main = service.main

    code = (APPS / directory / changed).read_text()
    machine.write(f"/srv/app/{changed}", code.replace('"first"', '"second"'))
    machine.systemctl("reload", service.unit)
    service.check(workers=2, main=main)
    if preload == "false":
        assert service.ask().body == b"second one"

    machine.pip_install(wheel(tmp_path, "greeting", "2.0", "TEXT = 'two'\n"))
    new = service.upgrade()
    service.check(workers=2, main=new)
    assert service.ask().body == b"second two"
