"""What a client may send to forge a line, a field or a figure: one table for all that write down what clients say.

Each is bytes, as they come in a header field, a user name or a path (`percent` makes a path of them). What an HTTP
parser refuses in a field reaches records all the same: in a user name, a path, or a request that is refused.
"""

from urllib.parse import quote_from_bytes

HOSTILE: dict[str, bytes] = {
    "quote": b'a" 200 5 "-" "forged',
    "backslash": b'a\\" 200 "forged\\',
    "CR": b"a\r10.0.0.1 forged",
    "LF": b"a\n10.0.0.1 - - forged",
    "CRLF": b"a\r\nX-Forged: 1",
    "NUL": b"a\0<0>forged",
    "only NUL": b"\0",
    "ESC": b"\x1b[31mforged\x1b]0;forged\x07",
    "DEL": b"\x7f\x7f",
    "NEL": b"a\x85forged",
    "NEL as UTF-8": "a\x85forged".encode(),
    "U+2028": "a\u2028forged".encode(),
    "U+202E": "a\u202edegrof".encode(),
    "bad UTF-8": b"\xff\xfe\xc3(",
    "half a surrogate": b"\xed\xa0\x80",
    "beyond the first plane": "\U0001f600".encode(),
    "a priority": b"<0>forged",
    "a priority later": b"a <0>forged",
    "an atom": b"%(a)s %s %d %(note)s {a} %%",
    "a figure of statsd": b"a:1|c\nforged:1|c",
    "a tag of statsd": b"a|#forged:yes,|@0.1",
    "a label": b'a",forged="yes"} 1\n# EOF',
    "a field of the journal": b"a\nPRIORITY=0\nMESSAGE=forged",
    "a field of the journal by length": b"MESSAGE\n\x06\0\0\0\0\0\0\0forged\n",
    "JSON": b'","status":200,"forged":"yes"}\n{"forged":1}',
    "escaped JSON": b'\\u0022,\\"forged\\":1',
    "logfmt": b'a" forged=yes level=error msg="x',
    "a dash": b"-",
    "nothing": b"",
    "blanks": b" \t ",
    "64 kB": b"x" * 65536,
    "escapes over 48 KiB": b'"' * 12_400 + b"<0>forged",
    "what grows, over 48 KiB": b"\xff" * 12_400 + b"\n<0>forged",
}


def percent(value: bytes) -> str:
    """A path of which `value` is a part."""
    return "/" + quote_from_bytes(value, safe="")
