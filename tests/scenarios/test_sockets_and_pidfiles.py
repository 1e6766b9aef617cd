"""What a master claims in the file system: Unix sockets and pidfiles, stale ones taken over, live ones left alone."""

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.server import Server, answer, listener

Start = Callable[..., Server]


def test_a_stale_socket_is_replaced_and_removed_at_the_end(start: Start, short_path: Path) -> None:
    path = short_path / "s"
    listener(str(path)).close()
    server = start("-b", f"unix:{path}", "plain:application").wait_ready()
    assert answer(str(path)).status == 200
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert not path.exists()


def test_the_mode_is_a_setting(start: Start, short_path: Path) -> None:
    path = short_path / "s"
    start("-b", f"unix:{path}", "--socket-mode", "0666", "plain:application").wait_ready()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_a_live_socket_is_refused(start: Start, short_path: Path) -> None:
    path = short_path / "s"
    start("-b", f"unix:{path}", "plain:application").wait_ready()
    second = start("-b", f"unix:{path}", "plain:application")
    assert second.wait() == 1
    assert str(path) in second.log
    assert "Traceback" not in second.log
    assert answer(str(path)).status == 200


def test_a_port_in_use_is_waited_for(start: Start) -> None:
    """Its last user may be about to leave."""
    other = listener()
    address = other.getsockname()
    server = start("-b", f"127.0.0.1:{address[1]}", "plain:application")
    server.wait_log("the address is in use by another process; trying again for 5 s")
    other.close()
    server.wait_ready()
    assert answer(address).status == 200


def test_a_stop_is_heard_while_a_port_is_waited_for(start: Start, short_path: Path) -> None:
    with listener() as other:
        pidfile = short_path / "pid"
        server = start("-b", f"127.0.0.1:{other.getsockname()[1]}", "-p", str(pidfile), "plain:application")
        server.wait_log("trying again for 5 s")
        server.kill(signal.SIGTERM)
        assert server.wait() == 0
    assert not pidfile.exists()
    assert server.log.count("trying again") == 1


def test_a_port_in_use_is_given_up_in_the_end(start: Start) -> None:
    with listener() as other:
        server = start("-b", f"127.0.0.1:{other.getsockname()[1]}", "plain:application")
        assert server.wait() == 1
    assert server.log.count("in use by another process") == 2  # at first, and at last
    assert "in use by another process" in server.status()


def test_a_reload_does_not_wait_for_a_port(start: Start, short_path: Path) -> None:
    conf = short_path / "conf.py"
    conf.write_text(f"bind = 'unix:{short_path}/s'\n")
    server = start("-c", str(conf), "plain:application").wait_ready()
    with listener() as other:
        conf.write_text(f"bind = '127.0.0.1:{other.getsockname()[1]}'\n")
        server.kill(signal.SIGHUP)
        server.wait_log("Reload failed, the old workers serve on: cannot listen on .* in use by another process")
    assert "trying again" not in server.log
    assert answer(f"{short_path}/s").status == 200


def test_what_is_no_socket_is_left_alone(start: Start, short_path: Path) -> None:
    path = short_path / "s"
    path.write_text("precious")
    server = start("-b", f"unix:{path}", "plain:application")
    assert server.wait() == 1
    assert path.read_text() == "precious"


def test_a_stale_pidfile_is_taken_over_and_removed_at_the_end(start: Start, short_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    pidfile = short_path / "pid"
    pidfile.write_text(f"{ended.pid}\n")
    server = start("-b", f"unix:{short_path}/s", "-p", str(pidfile), "plain:application").wait_ready()
    assert int(pidfile.read_text()) == server.pid
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert not pidfile.exists()


def test_a_pidfile_of_a_living_process_is_refused(start: Start, short_path: Path) -> None:
    pidfile = short_path / "pid"
    pidfile.write_text(f"{os.getpid()}\n")
    server = start("-b", f"unix:{short_path}/s", "-p", str(pidfile), "plain:application")
    assert server.wait() == 1
    assert str(os.getpid()) in server.log
    assert int(pidfile.read_text()) == os.getpid()


def test_inherited_sockets_by_name(start: Start, short_path: Path) -> None:
    tcp, unix = listener(), listener(str(short_path / "s"))
    server = start("-b", "127.0.0.1:1", "plain:application", sockets=[(unix, "proxy"), (tcp, "public")]).wait_ready()
    assert answer(tcp.getsockname()).status == 200
    assert answer(str(short_path / "s")).status == 200
    server.kill(signal.SIGTERM)
    assert server.wait() == 0
    assert (short_path / "s").exists(), "a passed socket belongs to who passed it"
    tcp.close()
    unix.close()


def test_an_inherited_descriptor_that_does_not_listen_is_refused_by_name(start: Start, short_path: Path) -> None:
    good = listener()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        server = start("plain:application", sockets=[(good, "good"), (datagram, "odd")])
        assert server.wait() == 1
        assert "odd" in server.log
    good.close()
