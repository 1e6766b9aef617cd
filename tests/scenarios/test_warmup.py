"""A new worker answers its warm-up requests before it serves; one that cannot does not replace anybody."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.server import Server, answer
from tests.support.waiting import eventually

# Imports its views at the first request, as frameworks do, and writes down what it is asked.
APP = """
import time

def application(environ, start_response):
    import views
    path = environ["PATH_INFO"]
    with open("asked", "a") as file:
        names = ("HTTP_HOST", "wsgi.url_scheme", "QUERY_STRING", "REMOTE_ADDR", "HTTP_USER_AGENT", "SERVER_PORT")
        print(path, *(environ.get(name, "-") for name in names), file=file)
    return views.view(path, start_response)
"""
VIEWS = """
import logging, time

class Stream:
    def __init__(self, end):
        self.end = end
    def __iter__(self):
        yield b"one"
        if self.end == "raises":
            raise OSError("the disk is gone")
        yield b"two"
        open("read", "w").close()
    def close(self):
        open("closed", "w").close()

def view(path, start_response):
    if path == "/hangs":
        time.sleep(60)
    if path == "/logs":
        try:
            import absent
        except ImportError:
            logging.getLogger("site").exception("Internal Server Error")
        start_response("500 Internal Server Error", [])
        return [b"sorry"]
    start_response({"/gone": "404 Not Found", "/moved": "302 Found"}.get(path, "200 OK"), [])
    return Stream(path[1:]) if path in ("/stream", "/raises") else [b"hello"]
"""


@pytest.fixture
def place(short_path: Path) -> Path:
    (short_path / "app.py").write_text(APP)
    (short_path / "views.py").write_text(VIEWS)
    return short_path


def serve(start: Callable[..., Server], place: Path, *targets: str, hooks: str = "", **settings: object) -> Server:
    lines = [f"warmup = {list(targets)!r}", *(f"{name} = {value!r}" for name, value in settings.items()), hooks]
    (place / "conf.py").write_text("\n".join(lines) + "\n")
    return start("-c", f"{place}/conf.py", "-b", f"unix:{place}/s", "app", cwd=place)


def asked(place: Path) -> list[str]:
    return (place / "asked").read_text().splitlines()


def test_each_worker_is_asked_before_it_serves_and_nobody_counts_it(start: Callable[..., Server], place: Path) -> None:
    hooks = "def pre_request(worker, req): worker.log.info('hook: %s', req.uri)\n"
    targets = ("/health?full=1", "https://shop.example:8443/login")
    server = serve(start, place, *targets, hooks=hooks, workers=2, accesslog="-").wait_ready()

    agent = "sdserve/"
    lines = asked(place)
    assert len(lines) == 4
    assert sum(line.startswith(f"/health localhost http full=1 127.0.0.1 {agent}") for line in lines) == 2
    assert sum(line.startswith("/login shop.example:8443 https ") for line in lines) == 2
    assert all(" (warm-up) " in line for line in lines)
    assert {line.rpartition(" ")[2] for line in lines} == {"80", "8443"}
    server.wait_log(r"Warm-up of /health\?full=1: answered 200 OK in 0\.\d+ s")

    assert answer(f"{place}/s", "/served").status == 200
    server.wait_log("GET /served HTTP/1.1")
    server.wait_log("hook: /served")
    assert '"GET /health' not in server.log
    assert "hook: /health" not in server.log


def test_what_is_below_500_is_good_and_streams_are_read_to_their_end(start: Callable[..., Server], place: Path) -> None:
    server = serve(start, place, "/gone", "/moved", "/stream").wait_ready()
    server.wait_log(r"\[WARNING\] Warm-up of /gone: answered 404 Not Found")
    server.wait_log(r"\[INFO\] Warm-up of /moved: answered 302 Found")
    assert (place / "read").exists()
    assert (place / "closed").exists()


WHY = {
    "/raises": "broke off its answer: OSError: the disk is gone",
    "/logs": "answered 500 Internal Server Error: ModuleNotFoundError: No module named 'absent'",
    "/hangs": "was not answered",
}


@pytest.mark.parametrize("target", WHY)
def test_a_start_fails_with_what_it_answered(start: Callable[..., Server], place: Path, target: str) -> None:
    server = serve(start, place, "/health", target, boot_timeout=3 if target == "/hangs" else 30)
    assert server.wait() == 3
    assert f"warm-up of {target} {WHY[target]}" in server.status()
    assert "Worker failed to boot: " in server.status()
    if target == "/logs":  # the application may show it nowhere
        assert "Traceback" in server.log


@pytest.mark.parametrize("threads", [1, 4])
def test_a_reload_of_code_that_is_imported_late_is_rolled_back(
    start: Callable[..., Server], place: Path, threads: int
) -> None:
    server = serve(start, place, "/health", workers=2, threads=threads).wait_ready()
    before = [worker.pid for worker in server.workers]
    (place / "views.py").write_text("import absent\n")
    server.kill(signal.SIGHUP)
    server.wait_log(
        "warm-up of /health answered 500 Internal Server Error: ModuleNotFoundError: No module named 'absent'"
    )
    server.wait_workers(2)
    assert [worker.pid for worker in server.workers] == before
    assert answer(f"{place}/s").status == 200
    eventually(lambda: "reload failed" in server.status(), "systemd is told")

    (place / "views.py").write_text(VIEWS.replace("hello", "hello again"))
    mark = server.mark
    server.kill(signal.SIGHUP)
    server.wait_log("Reloaded", since=mark)
    assert answer(f"{place}/s").body == b"hello again"


def test_a_worn_worker_serves_on_while_its_replacement_cannot_answer(start: Callable[..., Server], place: Path) -> None:
    server = serve(start, place, "/health", max_requests=3).wait_ready()
    (worn,) = server.workers
    (place / "views.py").write_text("import absent\n")
    for _ in range(3):
        assert answer(f"{place}/s").body == b"hello"
    server.wait_log(
        "warm-up of /health answered 500 Internal Server Error: ModuleNotFoundError: No module named 'absent'"
    )
    assert answer(f"{place}/s").body == b"hello"
    assert worn.alive
    (place / "views.py").write_text(VIEWS)
    server.wait_workers(1, besides=[worn.pid])
    assert answer(f"{place}/s").body == b"hello"


def test_an_upgrade_is_backed_out(start: Callable[..., Server], place: Path) -> None:
    server = serve(start, place, "/health").wait_ready()
    (place / "views.py").write_text("import absent\n")
    server.kill(signal.SIGUSR2)
    server.wait_log("Upgrade backed out, this master serves on: .*warm-up of /health answered 500")
    assert answer(f"{place}/s").status == 200


def test_a_stop_does_not_wait_for_a_warm_up(start: Callable[..., Server], place: Path) -> None:
    server = serve(start, place, "/hangs")
    eventually((place / "asked").exists, "the warm-up has begun")
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_the_hook_comes_last_and_may_refuse(start: Callable[..., Server], place: Path) -> None:
    refusal = "def post_worker_warmup(worker):\n    raise RuntimeError(f'{len(open(\"asked\").readlines())} asked')\n"
    server = serve(start, place, "/health", hooks=refusal)
    assert server.wait() == 3
    assert "the hook post_worker_warmup raised RuntimeError: 1 asked" in server.status()


def test_a_worker_class_without_a_warm_up_says_so(start: Callable[..., Server], place: Path) -> None:
    (place / "still.py").write_text(
        "from sdserve.workers.base import Worker\n"
        "import select\n\n"
        "class Still(Worker):\n"
        "    def run(self):\n"
        "        while self.alive:\n"
        "            for fd in select.select(self.control_fds(), [], [])[0]:\n"
        "                self.handle_control(fd)\n"
    )
    server = serve(start, place, "/health", worker_class="still.Still").wait_ready()
    server.wait_log("worker class Still has no warm-up: /health is not requested")
