"""Django imports its urls.py late: with a warm-up, `systemctl reload` hears of what is broken there."""

from pathlib import Path

import pytest

from tests.support.machine import CHECKOUT, Machine
from tests.support.service import deploy
from tests.support.wheels import wheel

pytestmark = pytest.mark.once

SITE = CHECKOUT / "tests" / "apps" / "django_site"
FILES = {str(path.relative_to(SITE)): path.read_text() for path in SITE.rglob("*.py")}
FILES["shop/settings.py"] = FILES["shop/settings.py"].replace('"*"', '"shop.example"')


def test_a_broken_urls_py_fails_the_reload_with_its_reason(machine: Machine, tmp_path: Path) -> None:
    machine.pip_install(wheel(tmp_path, "greeting", "1.0", "TEXT = 'one'\n"))
    warmup = {"WARMUP": "http://shop.example/"}
    service = deploy(machine, FILES, "shop.wsgi", warmup)
    service.wake()
    service.check(workers=2)
    pids = service.worker_pids()

    machine.write("/srv/app/shop/urls.py", FILES["shop/urls.py"].replace("import greeting", "import greetings"))
    done = machine.systemctl("reload", service.unit, check=False)
    assert done.returncode != 0
    reason = "warm-up of http://shop.example/ answered 500 Internal Server Error: ModuleNotFoundError: "
    assert reason + "No module named 'greetings'" in service.status
    assert service.worker_pids() == pids

    machine.write("/srv/app/shop/urls.py", FILES["shop/urls.py"])
    machine.systemctl("reload", service.unit)
    service.check(workers=2)
