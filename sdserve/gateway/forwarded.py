"""Whom to believe about the client: proxies that are trusted, and nobody else.

A trusted peer (`forwarded_allow_ips`; a Unix socket's peer always is, its file's mode says who) may say by which scheme
the client came and from which address: X-Forwarded-Proto and its relatives (`secure_scheme_headers`), X-Forwarded-For,
and RFC 7239's Forwarded, which wins where it speaks. Of a chain of addresses the rightmost one that is not itself a
trusted proxy is the client: everything to the left of it is hearsay. Contradictions are refused, never resolved.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from sdserve.http.errors import BadRequest

REMEMBERED = 10_000  # addresses
SCHEMES = ("http", "https")


class Trusted:
    """The addresses of trusted proxies: IP addresses, networks, or `*` for everyone. Raises ValueError for others."""

    def __init__(self, allowed: Iterable[str]) -> None:
        names = [name.strip() for name in allowed if name.strip()]
        self.everyone = "*" in names
        self._known: dict[str, bool] = {}
        self._exact = frozenset(name for name in names if "/" not in name)
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(name) for name in names if name != "*"]

    def __contains__(self, address: str) -> bool:
        """`address` as the kernel or a proxy writes it; the empty one is a Unix socket's."""
        if self.everyone or not address or address in self._exact:
            return True
        known = self._known.get(address)
        if known is None:
            known = self._look_up(address)
            if len(self._known) < REMEMBERED:
                self._known[address] = known
        return known

    def _look_up(self, address: str) -> bool:
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None)
        return any(parsed in network or (mapped is not None and mapped in network) for network in self._networks)


class Forwarding:
    """Reads what a trusted peer says. `secure_scheme_headers` maps header names to the value that means https."""

    def __init__(self, trusted: Trusted, secure_scheme_headers: Mapping[str, str]) -> None:
        self._trusted = trusted
        self._secure = {_key(name): value for name, value in secure_scheme_headers.items()}
        self.keys = frozenset((*self._secure, "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"))

    def apply(self, environ: dict[str, Any]) -> None:
        """Sets REMOTE_ADDR, REMOTE_PORT ("": not known) and wsgi.url_scheme as the headers in `environ` say.

        Raises BadRequest on contradictions.
        """
        schemes = set()
        for key, secure in self._secure.items():
            if key in environ:
                schemes.add("https" if environ[key].strip() == secure else "http")
        chain = [node.strip() for node in environ.get("HTTP_X_FORWARDED_FOR", "").split(",") if node.strip()]
        if "HTTP_FORWARDED" in environ:
            elements = parse_forwarded(environ["HTTP_FORWARDED"])
            if elements and "proto" in elements[-1]:
                schemes.add(elements[-1]["proto"].lower())
            named = [element["for"] for element in elements if "for" in element]
            chain = named or chain
        if len(schemes) > 1:
            raise BadRequest("the proxy's headers contradict each other about the scheme")
        for scheme in schemes:
            if scheme not in SCHEMES:
                raise BadRequest(f"the proxy names a scheme that is not served: {scheme!r}")
            environ["wsgi.url_scheme"] = scheme
        client = self._client(chain)
        if client is not None:
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client

    def _client(self, chain: list[str]) -> tuple[str, str] | None:
        client = None
        for node in reversed(chain):
            address, port = split_node(node)
            if not address:
                return client  # obfuscated or malformed: what is left of it cannot be verified
            client = (address, port)
            if address not in self._trusted or self._trusted.everyone:
                return client
        return client


def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def split_node(node: str) -> tuple[str, str]:
    """(IP address, port or "") of one hop, `1.2.3.4:80`, `[::1]:80` or `::1`; ("", "") when it is no IP address."""
    port = ""
    if node.startswith("["):
        address, _, rest = node[1:].partition("]")
        port = rest.removeprefix(":")
    elif node.count(":") == 1:
        address, _, port = node.partition(":")
    else:
        address = node
    try:
        ip_address(address)
    except ValueError:
        return "", ""
    return address, port if port.isascii() and port.isdigit() else ""


def parse_forwarded(text: str) -> list[dict[str, str]]:
    """The elements of a Forwarded field, nearest proxy last (RFC 7239 section 4). Raises BadRequest."""
    elements: list[dict[str, str]] = [{}]
    at, size = 0, len(text)
    while at < size:
        equals = text.find("=", at)
        name = text[at:equals].strip().lower() if equals >= 0 else ""
        if not name or not name.isascii() or not name.isalpha():
            raise BadRequest("Forwarded is malformed")
        value, at = _value(text, equals + 1)
        if name in elements[-1]:
            raise BadRequest(f"Forwarded says {name} twice in one element")
        elements[-1][name] = value
        while at < size and text[at] in " \t":
            at += 1
        if at < size:
            if text[at] == ",":
                elements.append({})
            elif text[at] != ";":
                raise BadRequest("Forwarded is malformed")
            at += 1
            if not text[at:].strip():
                raise BadRequest("Forwarded is malformed")
    return [element for element in elements if element]


def _value(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        end = at
        while end < len(text) and text[end] not in ',; \t"':
            end += 1
        if end == at:
            raise BadRequest("Forwarded has an empty value")
        return text[at:end], end
    out: list[str] = []
    at += 1
    while at < len(text):
        if text[at] == '"':
            return "".join(out), at + 1
        at += text[at] == "\\"
        out.append(text[at : at + 1])
        at += 1
    raise BadRequest("Forwarded has an open quote")
