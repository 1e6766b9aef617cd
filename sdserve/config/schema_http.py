"""Settings of HTTP and of proxies in front: limits, time-outs, and whom to believe about the client.

Part of the schema; see schema.py for how to add one.
"""

from __future__ import annotations

from sdserve.config import convert
from sdserve.config.setting import Setting, count, seconds, size, switch

_LOCAL = ["127.0.0.1", "::1"]
_MAX_FIELDS = 32768
_MAX_HEAD = 1 << 20  # what arrives of a head is looked at as a whole, so it has an end


def _fields(value: object) -> int:
    """A number of header fields; what is beyond the greatest one, and 0, mean the greatest, as in gunicorn."""
    return min(convert.whole()(value) or _MAX_FIELDS, _MAX_FIELDS)


def _head_bytes(value: object) -> int:
    """A size of a head, or of a part of one, with its greatest value as in `_fields`."""
    return min(convert.size(value) or _MAX_HEAD, _MAX_HEAD)


class HTTP:
    keepalive = seconds(
        2,
        "Seconds that a connection may be idle between two requests. 0 closes it after each response.",
        flags=("--keep-alive",),
    )
    keepalive_requests = count(0, "Requests after which a connection is closed. 0 means no limit.")
    limit_request_line = Setting(
        _head_bytes,
        4094,
        "Bytes of a request line (method, target and version), 1 MiB at most. 0 means 1 MiB.",
        metavar="BYTES",
    )
    limit_request_fields = Setting(
        _fields, 100, "Header fields of a request, 32768 at most. 0 means 32768.", metavar="N"
    )
    limit_request_field_size = Setting(
        _head_bytes, 8190, "Bytes of one header field, name and value, 1 MiB at most. 0 means 1 MiB.", metavar="BYTES"
    )
    limit_request_head = Setting(
        _head_bytes,
        65536,
        "Bytes of the request line and all header fields together, 1 MiB at most. 0 means 1 MiB.",
        metavar="BYTES",
    )
    limit_request_body = size(
        1 << 30,
        """Bytes of a request's body. What does not stay in memory takes so much of the disk, or the client's upload is
        refused with 413. 0 means no limit.""",
    )
    header_timeout = seconds(15, "Seconds from the first byte of a request to the end of its header. 0 means no limit.")
    body_min_rate = size(
        240,
        """Bytes a second that a request's body must come in at, on average, to be waited for. It counts after as many
        seconds as a header may take. 0 means no minimum.""",
    )
    request_buffering = Setting(
        convert.choice("on", "auto", "off"),
        "auto",
        """Which bodies are received before the application is called: all (on), all but those of clients that wait to
        be asked (auto), or those of up to 256 KiB (off); chunked ones always are. Clients that wait to be asked
        (Expect: 100-continue) send nothing when the application refuses without reading. A call whose body arrives
        meanwhile has a thread of its own, and others are served while it waits: see docs/explanation/bodies.md.""",
        metavar="MODE",
    )
    response_buffering = switch(
        """Whether an application's iterable is read to its end at once, what its client has not taken yet being kept in
        a temporary file. Otherwise it is asked for more when its client has room: nothing is kept, and its thread
        serves other requests meanwhile. contextvars are kept apart then, what threading.local holds is shared: see
        docs/explanation/bodies.md.""",
    )
    body_timeout = seconds(
        30,
        """Seconds without any byte of a request's body after which it is given up. What came faster than body_min_rate
        counts for that long, and no longer. 0 means no limit.""",
    )
    spool_limit = size(
        2 << 30,
        """Bytes that all temporary files of one worker may take together: bodies of requests that do not stay in
        memory, and what applications wrote faster than their clients read. A request whose body finds no room gets 503
        with Retry-After; a writer that finds none waits for its client. The files are nameless and in the directory
        $TMPDIR, or /tmp. 0 means no limit.""",
    )


class Proxies:
    forwarded_allow_ips = Setting(
        convert.comma_list(convert.network),
        _LOCAL,
        """Addresses and networks of proxies that are believed about the client, separated by commas; * believes
        everybody. The peer of a Unix socket is always believed. Which fields are believed, forwarded_headers says.""",
        metavar="LIST",
        fallback=("FORWARDED_ALLOW_IPS", lambda value: value),
        default_doc="127.0.0.1,::1, or $FORWARDED_ALLOW_IPS where it is set",
    )
    forwarded_headers = Setting(
        convert.choice("x-forwarded", "forwarded", "none", also={None: "none", False: "none"}),
        "x-forwarded",
        """Which fields of a believed proxy tell the client's address and scheme: x-forwarded (X-Forwarded-For, and
        secure_scheme_headers), forwarded (Forwarded, RFC 7239), or none. The proxy must set these on every request:
        what it does not set is its client's word. The other family is passed on and never interpreted.""",
        metavar="FAMILY",
    )
    secure_scheme_headers = Setting(
        convert.header_values,
        {"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"},
        """Header fields by which a believed proxy says that the client came by https, each with the value that says
        so. A request whose fields contradict each other is refused. They count while forwarded_headers is
        x-forwarded.""",
    )
    forwarder_headers = Setting(
        convert.comma_list(convert.header_name),
        [],
        """Header fields with an underscore in their name that a believed proxy may set, and that reach the application
        whatever header_map says. SCRIPT_NAME mounts the application at a path; name it only if the proxy sets it on
        every request, or passes no such field on. PATH_INFO is left out.""",
        metavar="LIST",
    )
    header_map = Setting(
        convert.choice(
            "drop", "refuse", hint="; 'dangerous' is not offered: let the proxy rename the fields the application needs"
        ),
        "drop",
        """What happens to header fields whose name has an underscore, and which an application could not tell from
        those with a dash: drop the field, or refuse the request.""",
        metavar="MODE",
    )
    proxy_protocol = Setting(
        convert.choice(
            "off",
            "v1",
            "v2",
            "auto",
            also={True: "auto", False: "off", "true": "auto", "1": "auto", "false": "off", "0": "off", "none": "off"},
        ),
        "off",
        """Whether connections begin with a PROXY protocol header: off, v1, v2, or auto for either version. The flag
        alone means auto.""",
        metavar="MODE",
        bare="auto",
    )
    proxy_allow_ips = Setting(
        convert.comma_list(convert.network),
        _LOCAL,
        """Addresses and networks that may send a PROXY protocol header, separated by commas; * means everybody. The
        peer of a Unix socket always may.""",
        flags=("--proxy-allow-from",),
        metavar="LIST",
    )
