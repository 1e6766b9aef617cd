"""Whom to believe about the client: proxies that are trusted, and of what they send, one family of fields.

A trusted peer (`forwarded_allow_ips`; a Unix socket's peer always is, its file's mode says who) may say from which
address the client came, and by which scheme. Which fields say so is the operator's word, `forwarded_headers`: either
X-Forwarded-For with `secure_scheme_headers`, or Forwarded (RFC 7239). A proxy writes one family and passes the other on
as its client sent it, so the other one is the application's to read, and nothing here ever looks at it.

Of a chain of hops the rightmost address that is not itself a trusted proxy is the client: all to the left of it is
hearsay, and so is what stands left of a hop that is hidden or malformed. Contradictions are refused, never resolved.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

from sdserve.http.errors import BadRequest

X_FORWARDED, FORWARDED, NONE = "x-forwarded", "forwarded", "none"
REMEMBERED = 10_000  # addresses
TRUSTED, UNNAMED = 1, 2  # of a connection: its peer may speak for others; it came in where no host has a name
SCHEMES = ("http", "https")
MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address as an IPv6 one (RFC 4291 section 2.5.5.2)

# RFC 7239 section 4, on RFC 9110's token and quoted-string. Unquoted colons and brackets are forgiven: many a proxy
# writes for=1.2.3.4:80, and nothing else can be meant.
_PAIR = (
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]++)="
    r"(?:([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]++)|\"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)\")"
)
# RFC 7239 section 6: a port, or an obfuscated one. A zone (RFC 4007) is the name of an interface.
_NODE = (
    r"(?:\[([0-9A-Fa-f:.]++(?:%[\w.\-]{1,15}+)?)\]|([0-9.]++))(?::(?:([0-9]{1,5}+)|_[\w.\-]++))?"
    r"|([0-9A-Fa-f:.]++(?:%[\w.\-]{1,15}+)?)"
)


_BLANKS = re.compile(r"[\t ]*+")

Client = tuple[str, str]  # an address, and a port or ""


# Compiled at their first use: few services ever see what they are for, and each start would wait for it.
@cache
def _pair() -> re.Pattern[str]:
    return re.compile(_PAIR)


@cache
def _node() -> re.Pattern[str]:
    return re.compile(_NODE, re.ASCII)


class Trusted:
    """The addresses of trusted proxies: IP addresses, networks, or `*` for everyone. Raises ValueError for others."""

    def __init__(self, allowed: Iterable[str]) -> None:
        names = [name.strip() for name in allowed if name.strip()]
        self.everyone = "*" in names
        self._known: dict[str, bool] = {}
        self._exact = frozenset(name for name in names if "/" not in name)
        # As numbers, by the bytes of an address: masks, and what addresses of a network come to under them.
        self._networks: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}
        for name in names:
            if name != "*":
                size, mask, address = _network(name)
                self._networks[size].setdefault(mask, set()).add(address)

    def __contains__(self, address: str) -> bool:
        """`address` as the kernel or a proxy writes it; the empty one is a Unix socket's."""
        if self.everyone or not address or address in self._exact:
            return True
        known = self._known.get(address)
        if known is None:
            known = self._look_up(address)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[address] = known
        return known

    def _look_up(self, address: str) -> bool:
        packed = parse_address(address)
        if packed is None:
            return False
        number = int.from_bytes(packed, "big")
        for mask, networks in self._networks[len(packed)].items():
            if number & mask in networks:
                return True
        return packed.startswith(MAPPED) and self._look_up(inet_ntop(AF_INET, packed[12:]))


def _network(name: str) -> tuple[int, int, int]:
    """Of an address or a network: the bytes of an address, the mask, the address. Raises ValueError."""
    packed = parse_address(name)
    if packed is not None and "%" not in name:
        return len(packed), (1 << 8 * len(packed)) - 1, int.from_bytes(packed, "big")
    from ipaddress import ip_network  # few name networks, and each start would wait for it

    network = ip_network(name)
    return network.max_prefixlen // 8, int(network.netmask), int(network.network_address)


class Forwarding:
    """Reads what a trusted peer says. `secure_scheme_headers` maps header names to the value that means https;
    `family` is X_FORWARDED, FORWARDED or NONE; `key` says under which keys header fields are looked up."""

    def __init__(
        self,
        trusted: Trusted,
        secure_scheme_headers: Mapping[str, str],
        family: str = X_FORWARDED,
        key: Callable[[str], str] = str.lower,
    ) -> None:
        self._trusted = trusted
        self._family = family
        named = secure_scheme_headers.items() if family == X_FORWARDED else ()
        self._secure = [(key(name), value.lower()) for name, value in named]
        chain = "x-forwarded-for" if family == X_FORWARDED else "forwarded"
        self._chain = key(chain)
        self.looks_at = {name.lower().encode("ascii"): key(name) for name in (chain, *(name for name, _ in named))}

    def read(self, fields: Mapping[str, Any]) -> tuple[Client | None, str]:
        """(client or None, scheme or "") as a request's header fields say, where they say anything.

        Raises BadRequest on contradictions, and for a Forwarded that is malformed.
        """
        client, scheme = None, self._secure_scheme(fields)
        chain = fields.get(self._chain)
        if not chain or self._family == NONE:
            return client, scheme
        if self._family == X_FORWARDED and "," not in chain:  # one hop, as most proxies write it
            address, port = split_node(chain.strip())
            client = (address, port) if address else None
        elif self._family == X_FORWARDED:
            client, _ = self._client([(node.strip(), "") for node in chain.split(",") if node and not node.isspace()])
        else:
            elements = parse_forwarded(chain)
            client, scheme = self._client([(each.get("for", ""), each.get("proto", "").lower()) for each in elements])
            if scheme and scheme not in SCHEMES:
                raise BadRequest(f"the proxy names a scheme that is not served: {scheme!r}")
        return client, scheme

    def _secure_scheme(self, fields: Mapping[str, Any]) -> str:
        """The one scheme that all fields, and all values of one that was sent repeatedly, name; "" for none."""
        scheme = ""
        for key, secure in self._secure:
            said = fields.get(key)
            if said is None:
                continue
            if said == secure:
                named = "https"
            else:
                said = said.lower()
                names = {
                    "https" if value.strip() == secure else "http"
                    for value in ((secure,) if said == secure else said.split(","))
                }
                named = names.pop() if len(names) == 1 else ""
            if not named or (scheme and named != scheme):
                raise BadRequest("the proxy's headers contradict each other about the scheme")
            scheme = named
        return scheme

    def _client(self, hops: list[tuple[str, str]]) -> tuple[Client | None, str]:
        """((address, port) or None, scheme or "") of the client, from (node, scheme) of each hop, the nearest last."""
        client, scheme = None, ""
        left = len(hops)
        for node, said in reversed(hops):
            left -= 1
            scheme = said or scheme
            address, port = split_node(node)
            if not address:
                break  # obfuscated or malformed: what is left of it cannot be verified
            client = (address, port)
            if not left or self._trusted.everyone or address not in self._trusted:
                break
        return client, scheme


def parse_address(text: str) -> bytes | None:
    """An IP address as the network has it, 4 bytes or 16, without its zone; None when it is not one."""
    try:
        return inet_pton(AF_INET6, text.partition("%")[0]) if ":" in text else inet_pton(AF_INET, text)
    except (OSError, ValueError):  # ValueError: what is not ASCII, or has a NUL
        return None


def split_node(node: str) -> Client:
    """(IP address, port or "") of one hop, `1.2.3.4:80`, `[::1]:80` or `::1`; ("", "") when it is no IP address."""
    if "%" not in node and parse_address(node) is not None:  # as most are written
        return node, ""
    found = _node().fullmatch(node)
    if found is None:
        return "", ""
    bracketed, dotted, port, bare = found.groups("")
    address = bracketed or dotted or bare
    if parse_address(address) is None or (port and int(port) > 65535):
        return "", ""
    return address, port


def parse_forwarded(text: str) -> list[dict[str, str]]:
    """The elements of a Forwarded field, nearest proxy last (RFC 7239 section 4). Raises BadRequest.

    Empty elements and pairs mean nothing (RFC 9110 section 5.6.1); blanks around `;` are forgiven.
    """
    elements: list[dict[str, str]] = [{}]
    at, size = _blanks(text, 0), len(text)
    while at < size:
        if text[at] not in ",;":
            found = _pair().match(text, at)
            if found is None:
                raise BadRequest("Forwarded is malformed")
            name = found[1].lower()
            if name in elements[-1]:
                raise BadRequest(f"Forwarded says {name} twice in one element")
            elements[-1][name] = found[2] if found[3] is None else re.sub(r"\\(.)", r"\1", found[3])
            at = _blanks(text, found.end())
            if at == size:
                break
            if text[at] not in ",;":
                raise BadRequest("Forwarded is malformed")
        if text[at] == ",":
            elements.append({})
        at = _blanks(text, at + 1)
    return [element for element in elements if element]


def _blanks(text: str, at: int) -> int:
    """Where the blanks at `at` end."""
    found = _BLANKS.match(text, at)
    return found.end() if found else at
