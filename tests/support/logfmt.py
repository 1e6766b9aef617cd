"""A strict reader of logfmt: `name=value` with one blank between, values bare or in quotes, escaped as in JSON."""

import json
import re

PAIR = re.compile(r'([a-z_]+)=(?:("(?:[ !#-\[\]-~]|\\["\\/bfnrt]|\\u[0-9a-f]{4})*")|([^\s"=\\]*))(?: (?!$)|$)')


def parsed(line: str) -> dict[str, object]:
    """The fields of a line, bare digits as numbers. AssertionError for what another reader might see otherwise."""
    fields: dict[str, object] = {}
    at = 0
    while at < len(line):
        found = PAIR.match(line, at)
        assert found, line[at:]
        name, quoted, bare = found.groups()
        assert name not in fields, name
        at = found.end()
        if quoted is not None:
            fields[name] = json.loads(quoted)
        else:
            fields[name] = float(bare) if re.fullmatch(r"\d+(\.\d+)?", bare) else bare
    return fields
