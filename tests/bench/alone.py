"""An application called in a loop, without any server: what of a request's cost is not the server's.

    python alone.py flask_hello:application [calls]     in this directory, by the Python that has the framework

Prints the processor time of a call in microseconds. What a server's line of the same load has beyond that is its own.
"""

import importlib
import io
import sys
import time
from pathlib import Path
from typing import Any

ENVIRON: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "page=1",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "203.0.113.7",
    "HTTP_HOST": "shop.example.org",
    "HTTP_X_FORWARDED_FOR": "203.0.113.7",
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_COOKIE": "session=0123456789abcdef; theme=dark",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "https",
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def main(name: str, calls: int = 20_000) -> float:
    """Seconds of processor time a call."""
    sys.path.insert(0, str(Path(__file__).parent))
    module, _, attribute = name.partition(":")
    application = getattr(importlib.import_module(module), attribute)

    def run(count: int) -> None:
        for number in range(count):
            environ = ENVIRON | {"PATH_INFO": f"/any/{number}", "wsgi.input": io.BytesIO()}
            result = application(environ, lambda status, headers, exc_info=None: None)
            for _ in result:
                pass
            if hasattr(result, "close"):
                result.close()

    run(calls // 10)
    before = time.process_time()
    run(calls)
    return (time.process_time() - before) / calls


if __name__ == "__main__":
    print(f"{main(sys.argv[1], *map(int, sys.argv[2:])) * 1e6:.1f} us a call")
