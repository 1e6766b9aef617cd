"""Which httptools is strict enough: distributions may build it on http_parser, the lax predecessor of llhttp."""

import os

import httptools

from sdserve.errors import BootError


def demand_strict(parser: type = httptools.HttpRequestParser) -> None:
    """Raises BootError if httptools accepts a field that two parsers may read in two ways (RFC 9112 section 5.1)."""
    try:
        parser(object()).feed_data(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
    except httptools.HttpParserError:
        return
    raise BootError(
        f"{os.path.dirname(httptools.__file__)} is built on http_parser, which lets smuggled requests through: "
        "install the httptools of PyPI, which has llhttp, into the virtual environment"
    )
