"""What the layer above calls header fields: each spelling of a name that clients use, and its key in a mapping.

A request's fields are read once, straight into the mapping that is wanted in the end: WSGI's environ, for one, has
them under `HTTP_` names. So whoever serves requests says how names become keys, and nothing here knows which they are.
A name whose key could be taken for another's has none: what becomes of such a field is for the layer above to decide.
"""

from collections.abc import Callable, Iterable
from typing import Any

NAME_BYTES = 64  # of a spelling that is remembered
# What is remembered is bounded in number and in bytes, and forgotten as a whole when there is too much of it: what one
# client fills it with is gone soon, and what is common is learned again at once.
REMEMBERED = 1000
# Too rare to be looked for in each request: a head with one of them is always read with care.
RARE = frozenset(("transfer-encoding", "expect", "upgrade"))

Naming = Callable[[str], str]
"""The key of a field's name, in whatever case it is; "" for one that has none."""


class Names:
    """The keys of field names. `known` has the spellings that were seen of those that need no care. Bounded."""

    def __init__(self, naming: Naming = str.lower) -> None:
        self.key = naming
        self.known: dict[str, str] = {}
        self._cookie = naming("cookie")

    def gather(
        self, fields: Iterable[tuple[bytes, bytes]], into: dict[str, Any], odd: Callable[[str], str] = lambda name: ""
    ) -> set[str]:
        """Adds fields to a mapping; returns the keys that came more than once, with their values joined as one list
        (RFC 9110 section 5.3, RFC 9113 section 8.2.3 for cookies). `odd` is asked for the keys of names that have none;
        where it says "" the field is left out."""
        seen: set[str] = set()
        repeated: dict[str, list[str]] = {}
        for name, value in fields:
            spelling, text = name.decode("latin-1"), value.decode("latin-1")
            key = self.known.get(spelling) or self._learn(spelling) or odd(spelling)
            if not key:
                continue
            if key in seen:
                repeated.setdefault(key, [into[key]]).append(text)
            else:
                seen.add(key)
                into[key] = text
        for key, texts in repeated.items():
            into[key] = ("; " if key == self._cookie else ",").join(texts)
        return set(repeated)

    def _learn(self, spelling: str) -> str:
        key = self.key(spelling)
        if key and len(spelling) <= NAME_BYTES and spelling.lower() not in RARE:
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.known[spelling] = key
        return key
