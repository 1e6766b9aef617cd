"""A connection that changes hands keeps its deadline: reload after reload, an idle client is not kept for ever."""

import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.load import ask
from tests.support.server import Server, connector
from tests.support.waiting import eventually

KEEPALIVE = 3


def test_reloads_do_not_renew_the_keep_alive_time(start: Callable[..., Server], short_path: Path) -> None:
    arguments = ("-b", f"unix:{short_path}/s", "--keep-alive", str(KEEPALIVE), "-w", "1", "plain:application")
    server = start(*arguments).wait_ready()
    with connector(f"{short_path}/s")() as client:
        ask(client)
        client.setblocking(False)
        reloads = 0

        def closed() -> bool:
            """Reloads once more, long before the time would be over anew, and looks."""
            nonlocal reloads
            try:
                if client.recv(1) == b"":
                    return True
            except BlockingIOError:
                pass
            mark = server.mark
            server.kill(signal.SIGHUP)
            server.wait_log("Reloaded: ", since=mark, timeout=KEEPALIVE)
            reloads += 1
            return False

        eventually(closed, "the end of the idle connection", 5 * KEEPALIVE)
    assert reloads > 1
