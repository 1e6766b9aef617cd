"""docs/reference/hooks.md is right: the attributes that it names are there, and its example serves."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import APPS, CHECKOUT, Server, answer

PAGE = (CHECKOUT / "docs" / "reference" / "hooks.md").read_text()
OPTIONS = ("--pythonpath", str(APPS), "plain:application")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def of_server() -> list[str]:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section("What `server` offers"), re.MULTILINE)
    methods = re.findall(r"`(\w+)\(", section("What `server` offers"))
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)] + methods


def of_others() -> Iterator[tuple[str, list[str]]]:
    for name, attributes in re.findall(
        r"^\| `(\w+)` \| (.*) \|$", section("What `worker`, `req` and `resp` offer"), re.MULTILINE
    ):
        yield name, re.findall(r"`([a-z_]+)`", attributes)


def test_the_attributes_are_there(start: Callable[..., Server], short_path: Path) -> None:
    names = {"server": of_server(), **dict(of_others())}
    assert {"server", "worker", "req", "resp"} == set(names)
    assert all(len(each) >= 6 for each in names.values())
    (short_path / "sdserve.conf.py").write_text(
        f"NAMES = {names!r}\n"
        "def lacks(log, **objects):\n"
        "    for kind, thing in objects.items():\n"
        "        missing = [name for name in NAMES[kind] if not hasattr(thing, name)]\n"
        "        log.info('%s lacks %s', kind, missing)\n"
        "def when_ready(server):\n"
        "    lacks(server.log, server=server)\n"
        "def post_request(worker, req, environ, resp):\n"
        "    lacks(worker.log, worker=worker, req=req, resp=resp)\n"
    )
    server = start("-b", f"unix:{short_path}/s", *OPTIONS, cwd=short_path).wait_ready()
    assert answer(f"{short_path}/s").status == 200
    for kind in names:
        assert server.wait_log(rf"{kind} lacks (\[.*\])")[1] == "[]"


@pytest.mark.parametrize("path", ["/", "/boom"])
def test_the_example_serves(start: Callable[..., Server], short_path: Path, path: str) -> None:
    example = re.search(r"```python\n(.*?)```", section("An example"), re.DOTALL)
    assert example
    (short_path / "sdserve.conf.py").write_text(example[1])
    server = start("-b", f"unix:{short_path}/s", *OPTIONS, cwd=short_path).wait_ready()
    server.wait_log("has slot 3 of generation 1")
    status = answer(f"{short_path}/s", path).status
    assert status == (500 if path == "/boom" else 200)
    if status == 500:
        server.wait_log("GET /boom was answered with 500")
    [worker, *_] = server.workers
    worker.kill()
    server.wait_log("answered its last request")
