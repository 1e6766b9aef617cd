"""How long the first scrape of a service takes: `python -m tests.bench.first_scrape [--services 20] [--stopped]`.

Nobody answers scrapes before the first one comes; the master forks who does. Each service is a fresh one. Told are the
time from the connection to the end of the answer, and how much of it the answering process ran: on a machine that has
other work the first is mostly the wait for a processor. The second scrape is told for comparison.
"""

import argparse
import os
import signal
import socket
import statistics
import time
from pathlib import Path

from tests.support.load import until_closed
from tests.support.server import Server

REQUEST = "GET {} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


def ask(address: tuple[str, int], path: str) -> float:
    """Milliseconds until the whole answer was here."""
    began = time.perf_counter()
    with socket.create_connection(address, timeout=60) as sock:
        sock.sendall(REQUEST.format(path).encode())
        answer = until_closed(sock)
    assert answer.startswith(b"HTTP/1.1 "), answer
    return (time.perf_counter() - began) * 1000


def measured(workers: int, stopped: bool) -> tuple[float, float, float]:
    """Of a fresh service, in milliseconds: its first scrape, what of that its observer ran, its second scrape."""
    with socket.create_server(("127.0.0.1", 0)) as metrics, socket.create_server(("127.0.0.1", 0)) as application:
        address = metrics.getsockname()
        sockets = [(application, "http"), (metrics, "metrics")]
        with Server("-w", str(workers), "plain:application", sockets=sockets) as server:
            server.wait_ready()
            known = {worker.pid for worker in server.wait_workers(workers)}
            for pid in known if stopped else ():
                os.kill(pid, signal.SIGSTOP)
            first = ask(address, "/metrics")
            [observer] = [child.pid for child in server.workers if child.pid not in known]
            ran = int(Path(f"/proc/{observer}/schedstat").read_text().split()[0]) / 1e6
            return first, ran, ask(address, "/metrics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--stopped", action="store_true", help="all workers are stopped (SIGSTOP)")
    args = parser.parse_args()
    found = [measured(args.workers, args.stopped) for _ in range(args.services)]
    print(f"{args.services} services, {args.workers} workers each, load average {os.getloadavg()[0]:.1f}")
    for name, values in zip(
        ("first scrape", "  the observer ran", "second scrape"), zip(*found, strict=True), strict=True
    ):
        print(f"{name:20} median {statistics.median(values):7.1f} ms, worst {max(values):7.1f} ms")


if __name__ == "__main__":
    main()
