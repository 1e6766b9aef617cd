"""What may be shown, and written to the journal: lines with `<N>`, syslog(3)'s priority, in front (sd-daemon(3)).

Texts of applications, and what these make of what their clients say, reach logs, STATUS= and the terminal of whoever
looks. Nothing in them may command a terminal.

journald makes a record of each line, and cuts lines that are longer than LineMax= (journald.conf(5)) into several. A
`<N>` at the beginning of a record is its priority. So text that somebody else chose must not contain line ends, nor a
`<N>` where a line might be cut.
"""

import re

LONGEST = 40 << 10  # bytes of a line; LineMax= is 48 KiB by default

# What journald takes for a line end (LF and NUL), and what a terminal or a pager would not show as such: controls, line
# and paragraph separators, marks that change the direction of text, and surrogates, which no stream can encode.
_CONTROLS = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_UNSAFE = _CONTROLS + "|<(?=[0-9]{1,3}>)"


def printable(text: str) -> str:
    """`text` as a terminal or a pager may show it: controls are escaped, line ends and tabs stay."""
    if text.isprintable():
        return text
    return re.sub(_CONTROLS, lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """`text` with one space in the place of each gap: a line of its own, or a gap as long, could pass for ours."""
    return " ".join(text.split())


def harmless(text: str) -> str:
    """`text` without anything that could begin a record of its own, except its line ends. Tabs stay."""
    if text.isprintable() and "<" not in text:
        return text
    return re.sub(_UNSAFE, lambda found: ascii(found[0])[1:-1] if found[0] != "<" else "\\x3c", text)


def prefixed(text: str, priority: int) -> str:
    """`text` with syslog(3)'s `priority`, 0 to 7, in front of each line, and of each piece of a long one."""
    mark = f"<{priority}>"
    return "\n".join(mark + piece for line in text.split("\n") for piece in _pieces(line))


def _pieces(line: str) -> list[str]:
    if len(line) * 4 <= LONGEST:
        return [line]
    pieces = []
    data = line.encode("utf-8", "backslashreplace")
    while len(data) > LONGEST:
        end = LONGEST
        while data[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        pieces.append(data[:end])
        data = data[end:]
    return [piece.decode() for piece in (*pieces, data)]
