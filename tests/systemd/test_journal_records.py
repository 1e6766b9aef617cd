"""What a client sends never begins a record of its own in the journal: not in the access log, not in the error log."""

import re

from tests.support.load import until_closed
from tests.support.machine import Machine
from tests.support.service import Service, deploy
from tests.support.waiting import eventually

FAILING = """
from urllib.parse import unquote_to_bytes

def application(environ, start_response):
    if environ["PATH_INFO"] == "/raise":
        raise ValueError(unquote_to_bytes(environ["QUERY_STRING"]).decode("utf-8", "surrogateescape"))
    if environ["PATH_INFO"] == "/errors":
        environ["wsgi.errors"].write(f"shown: {unquote_to_bytes(environ['QUERY_STRING']).decode()}\\n")
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


def ask(service: Service, target: str, fields: str = "") -> bytes:
    with service.connect() as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n".encode("latin-1"))
        return until_closed(sock)


def records(machine: Machine, service: Service, fence: str) -> list[dict[str, str]]:
    """The unit's records of the transport stdout, once the request for `fence` is among them."""

    def look() -> list[dict[str, str]]:
        found = machine.journal("-a", f"_SYSTEMD_UNIT={service.unit}", "_TRANSPORT=stdout")
        return found if any(f"GET {fence} " in str(each.get("MESSAGE")) for each in found) else []

    return eventually(look, f"a record of {fence}")


def test_each_line_is_its_own_process_s(machine: Machine) -> None:
    """So it need not say a pid. All processes write to the one stream that the first master was given."""
    service = deploy(machine)
    service.wake()
    first, workers = service.main, service.worker_pids()
    service.upgrade()
    workers |= service.worker_pids()
    told = [each for each in machine.journal() if each["_TRANSPORT"] == "stdout"]
    booting, listening = (
        [int(each["_PID"]) for each in told if each["MESSAGE"].startswith(name)] for name in ("Booting", "Listening")
    )
    assert len(booting) == len(workers) and set(booting) == workers
    assert listening == [first, service.main]


def test_each_request_is_one_access_record_whatever_it_brings(machine: Machine) -> None:
    """journald cuts a line at 48 KiB, and reads a priority at the start of what is left."""
    service = deploy(machine, {"app.py": FAILING}, "app:application", settings={"ACCESSLOG": "-", "WORKERS": "1"})
    service.wake()
    hostile = [
        *(f"Referer: {chr(number) * 2000}<0>forged-by-a-client\r\n" for number in (0x22, 0x5C, 0xE2, 0x85)),
        "User-Agent: \xe2\x80\xa8<0>forged-by-a-client \xe2\x80\xae\r\n",
        "Authorization: Basic PDA+Zm9yZ2VkIGJ5IGEgY2xpZW50Cjwwwnc=\r\n",
        "User-Agent: <0>forged-by-a-client\r\n" * 2,
        # A `<0>` where the line would be cut, if each of these were written four times as long as it is.
        *(
            "Referer: "
            + '"' * 8000
            + "\r\nUser-Agent: "
            + '"' * 4230
            + "z" * lead
            + "<0>" * 80
            + "forged-by-a-client\r\n"
            for lead in range(3)
        ),
    ]
    for number, fields in enumerate(hostile):
        assert ask(service, f"/hostile/{number}", fields).startswith(b"HTTP/1.1 200 ")
    ask(service, "/fence")
    found = [each for each in records(machine, service, "/fence") if "/hostile/" in str(each["MESSAGE"])]
    asked = [target for each in found for target in re.findall(r"/hostile/\d+", each["MESSAGE"])]
    assert asked == [f"/hostile/{number}" for number in range(len(hostile))]
    everything = machine.journal("-a", f"_SYSTEMD_UNIT={service.unit}")
    assert not [each for each in everything if int(each["PRIORITY"]) < 5], "a priority of the client's choice"
    assert not [each for each in everything if str(each["MESSAGE"]).startswith("forged")]


def test_what_an_exception_says_of_a_request_stays_within_its_record(machine: Machine) -> None:
    service = deploy(machine, {"app.py": FAILING}, "app:application", settings={"ACCESSLOG": "-", "WORKERS": "1"})
    service.wake()
    forged = "<0>forged-by-a-client"
    hostile = ["%0a", "%00", "%0d", "%e2%80%a8", "%0a%00%0a", "x" * 3000 + "%0a", "%ed%a0%80%ff"]
    for text in hostile:
        assert ask(service, f"/raise?{text}{forged}").startswith(b"HTTP/1.1 500 ")
    for text in hostile[:-1]:
        assert ask(service, f"/errors?{text}{forged}").startswith(b"HTTP/1.1 200 ")
    ask(service, "/fence")
    everything = records(machine, service, "/fence")
    assert not [each for each in everything if int(each["PRIORITY"]) < 3], "a priority of the client's choice"
    told = [str(each["MESSAGE"]) for each in everything if "forged-by" in str(each["MESSAGE"])]
    assert not [each for each in told if each.startswith("forged")]
    assert len([each for each in told if each.startswith("shown: ")]) >= 1
