"""Clients of a worker in which something fails: one of each kind, and each says what it got and from which port."""

import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.apps.kinds import BIG, PIECE
from tests.support.load import Connect

PATIENCE = 20.0  # seconds; whoever waits for so long is wedged


@dataclass(frozen=True)
class Outcome:
    """What one client got: `status` of its answer, 0 without a complete one, and then why."""

    kind: str
    port: int
    status: int
    why: str = ""

    @property
    def answered(self) -> bool:
        return self.status != 0


class Client:
    """One connection. `ask` raises what goes wrong, also when a body is not what it has to be."""

    def __init__(self, connect: Connect) -> None:
        self.sock = connect()
        self.sock.settimeout(PATIENCE)
        self.port: int = self.sock.getsockname()[1]
        self.status = 0

    def ask(
        self,
        path: str = "/",
        body: bytes = b"",
        want: bytes = b"hello",
        chunk: int = 0,
        slow: bool = False,
        expect: bool = False,
    ) -> None:
        self.status = 0
        method = "POST" if body else "GET"
        framing = "Transfer-Encoding: chunked\r\n" if chunk else f"Content-Length: {len(body)}\r\n"
        framing += "Expect: 100-continue\r\n" if expect else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n{framing if body else ''}\r\n".encode()
        try:
            if expect:
                self.sock.sendall(head)
                if self.sock.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL) == b"HTTP/1.1 100":
                    self.sock.sendall(body)
            elif chunk:
                self.sock.sendall(head)
                for at in range(0, len(body), chunk):
                    piece = body[at : at + chunk]
                    self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.sock.sendall(b"0\r\n\r\n")
            else:
                self.sock.sendall(head + body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused in the middle of the body: the answer says why
        response = http.client.HTTPResponse(self.sock, method=method)
        response.begin()
        got = b"".join(iter(lambda: response.read(4096 if slow else 65536), b""))
        if response.length:
            raise EOFError(f"{response.length} bytes are missing")
        if response.status == 200 and got != want:
            raise ValueError(f"{len(got)} bytes that are not the right ones")
        self.status = response.status


POST = b"0123456789" * 40_000  # beyond what is kept in memory


def kept(client: Client) -> None:
    for _ in range(3):
        client.ask()


def small_post(client: Client) -> None:
    client.ask("/echo", b"small", want=b"small")


def big_post(client: Client) -> None:
    client.ask("/echo", POST, want=POST)


def chunked_post(client: Client) -> None:
    client.ask("/echo", POST, want=POST, chunk=50_000)


def expecting_post(client: Client) -> None:
    client.ask("/echo", POST, want=POST, expect=True)


def pipelined(client: Client) -> None:
    client.sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 3)
    got = b""
    while got.count(b"hello") < 3:
        data = client.sock.recv(4096)
        if not data:
            raise EOFError(f"{got.count(b'hello')} of 3 answers: {got!r}")
        got += data
    client.status = 200


def download(path: str) -> Callable[[Client], None]:
    def story(client: Client) -> None:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.ask(path, want=PIECE * (BIG // len(PIECE)), slow=True)

    return story


KINDS: dict[str, Callable[[Client], None]] = {
    "new": Client.ask,
    "kept": kept,
    "small post": small_post,
    "big post": big_post,
    "chunked post": chunked_post,
    "expecting post": expecting_post,
    "pipelined": pipelined,
    "whole": download("/whole"),
    "made": download("/made"),
    "pushed": download("/pushed"),
    "file": download("/file"),
}


def meet(
    connect: Connect, idle: list[Client], kinds: dict[str, Callable[[Client], None]] | None = None
) -> list[Outcome]:
    """One client of each kind at once, and those that were `idle` until now; all outcomes."""
    outcomes: list[Outcome] = []

    def live(kind: str, client: Client | None, story: Callable[[Client], None]) -> None:
        try:
            client = client or Client(connect)
            story(client)
            outcomes.append(Outcome(kind, client.port, client.status))
        except (OSError, EOFError, ValueError, http.client.HTTPException) as error:
            outcomes.append(Outcome(kind, client.port if client else 0, 0, f"{type(error).__name__}: {error}"))
        finally:
            if client is not None:
                client.sock.close()

    chosen = [(kind, None, story) for kind, story in (kinds or KINDS).items()]
    threads = [
        threading.Thread(target=live, args=each)
        for each in [*chosen, *(("idle", client, Client.ask) for client in idle)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes
