"""A server for one measurement: started on a port of its own, probed, and ended as a whole."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.bench.apps import ANSWERS, POSTS
from tests.bench.loads import Load
from tests.bench.peers import HOST, Peer
from tests.bench.wrk import WrongAnswer

BENCH = Path(__file__).resolve().parent
CHECKOUT = BENCH.parents[1]
START = 20.0  # seconds that a server may take until it serves
STOP = 5.0  # seconds that it may take to leave; then it is killed


class Server:
    """`peer` as `load` needs it, from `__enter__` to `__exit__`. Raises WrongAnswer when it does not start."""

    def __init__(self, peer: Peer, bin: Path, load: Load) -> None:
        with socket.create_server((HOST, 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._peer = peer
        self._argv = peer.command(bin, self.port, load)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"

    def __enter__(self) -> "Server":
        self._output = tempfile.TemporaryFile()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SDSERVE_", "LISTEN_"))}
        environ.pop("NOTIFY_SOCKET", None)
        environ["PYTHONPATH"] = os.pathsep.join([str(BENCH), str(CHECKOUT)] if not self._peer.package else [str(BENCH)])
        self._popen = subprocess.Popen(
            self._argv,
            cwd=BENCH,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._await_start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def probe(self, path: str) -> None:
        """One request by another client than wrk. Raises WrongAnswer unless the answer is right to the last byte."""
        body = POSTS.get(path)
        conn = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            conn.request("POST" if body else "GET", path, body)
            response = conn.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise WrongAnswer(f"probe of {path}: {error!r}") from error
        finally:
            conn.close()
        if response.status != 200 or content != ANSWERS[path]:
            raise WrongAnswer(f"probe of {path}: {response.status}, {len(content)} bytes")

    def _await_start(self) -> None:
        """Asks until it serves: what these servers have in common is no other sign of readiness."""
        deadline = time.monotonic() + START
        while True:
            try:
                with socket.create_connection((HOST, self.port), timeout=1):
                    return
            except OSError as error:
                if self._popen.poll() is not None or time.monotonic() > deadline:
                    self._output.seek(0)
                    said = self._output.read().decode(errors="replace").strip()
                    print(f"{self._peer.name}: {' '.join(self._argv)}\n{said[-2000:]}", file=sys.stderr)
                    raise WrongAnswer("did not start") from error
            time.sleep(0.02)

    def _stop(self) -> None:
        self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may wait for its clients; the measurement is over
            self._popen.wait(STOP)
        with contextlib.suppress(ProcessLookupError):  # nobody is left of it
            os.killpg(self._popen.pid, signal.SIGKILL)  # a session of its own: what the server left behind, too
        self._popen.wait()
        self._output.close()
