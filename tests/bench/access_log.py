"""What a record of the access log costs, apart from writing it: `python -m tests.bench.access_log [--format json]`.

Requests as a proxy sends them, each with a path and an X-Request-ID of its own, recorded and made into lines in batches
of 64 as under load, or in turns of a few. The best of many loops, since other work on the machine only adds. With
--format and --records it is quiet and does just that, for valgrind to count its instructions.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

from sdserve.access.formats import DEFAULT_FORMAT
from sdserve.access.log import BATCH, AccessLog, form_of

FORMATS = {"gunicorn's": DEFAULT_FORMAT, "json": "json", "logfmt": "logfmt"}
TURNS = (BATCH, 8, 1)  # requests answered between two looks at the sockets
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "QUERY_STRING": "",
    "REMOTE_ADDR": "203.0.113.77",
    "HTTP_HOST": "shop.example",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
    "HTTP_REFERER": "https://shop.example/basket?from=home",
    "HTTP_ACCEPT": "text/html,application/json;q=0.9",
    "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
}
HEADERS = [("Content-Type", "text/html"), ("Content-Length", "1234")]


def environs(count: int) -> list[dict[str, Any]]:
    return [
        ENVIRON | {"RAW_URI": f"/item/{n}?page=2", "PATH_INFO": f"/item/{n}", "HTTP_X_REQUEST_ID": f"{n:032x}"}
        for n in range(count)
    ]


def nothing(lines: Sequence[str]) -> None:
    """Where the lines go."""


def loop(access_log: AccessLog, asked: list[dict[str, Any]], turn: int) -> float:
    """Seconds for a record of each."""
    record, flush = access_log.record, access_log.flush
    began = time.perf_counter()
    for first in range(0, len(asked), turn):
        for environ in asked[first : first + turn]:
            record(environ, "200 OK", 1234, 0.000123, HEADERS, "+")
        flush()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", type=int, default=300, help="of 1,024 requests each (default: 300)")
    parser.add_argument("--format", choices=FORMATS)
    parser.add_argument("--records", type=int, default=0)
    args = parser.parse_args()
    made = {name: AccessLog(form_of(text), nothing, print) for name, text in FORMATS.items()}
    if args.records:
        loop(made[args.format or "json"], environs(args.records), BATCH)
        return
    asked = environs(1024)
    for name, access_log in made.items():
        if args.format in (None, name):
            best = [min(loop(access_log, asked, turn) for _ in range(args.loops)) / len(asked) * 1e6 for turn in TURNS]
            told = ", ".join(f"{each:.2f} us in turns of {turn}" for each, turn in zip(best, TURNS, strict=True))
            print(f"{name:10} {told}", flush=True)


if __name__ == "__main__":
    main()
