"""Values of unit files, quoted so that systemd reads what was meant (systemd.syntax(7), systemd.service(5)).

systemd has several ways to read a value. In all of them `%` begins a specifier, and a backslash at the end of a line
continues it; the rest depends on the setting, so each kind of value has a function here. The tests have systemd read
back what was written.
"""


def word(text: str) -> str:
    """One item of Environment=, or one argument of Exec*=: in quotes, with C's escapes.

    Exec*= needs the prefix `:` for it, otherwise `$` begins the name of a variable. Raises ValueError for what no
    escape can express: NUL, and what is not UTF-8.
    """
    _demand_text(text)
    return '"' + "".join(map(_c_escape, text)) + '"'


def path(text: str, specifiers: bool = True) -> str:
    """One item of ReadWritePaths=, BindPaths= and their like: in quotes, where a backslash keeps the next character.

    specifiers: whether `%` begins one; systemd-run(1) takes it as it is. Raises ValueError for control characters,
    which such an item cannot contain.
    """
    plain(text)
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + (quoted.replace("%", "%%") if specifiers else quoted) + '"'


def bound(text: str) -> str:
    """One item of BindPaths= or BindReadOnlyPaths=. Raises ValueError for quotes as well.

    systemd 257 loses them on the way to the process that makes the mounts, and the service cannot start (status 226).
    systemd 262 takes a colon between quotes for the one between source and destination, if it has no backslash.
    """
    if '"' in text or "'" in text:
        raise ValueError(f"{text!r} has a quote, and systemd cannot show such a path to a service: rename it")
    return path(text).replace(":", "\\:")


def plain(text: str) -> str:
    """A value that takes the rest of its line, as in Description= and ListenStream=: only `%` is special.

    Raises ValueError for what it cannot contain: control characters, a space at either end, a backslash at the end.
    """
    _demand_text(text)
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError(f"{text!r} has a control character, which cannot stand in a unit file")
    if text != text.strip() or text.endswith("\\"):
        raise ValueError(f"{text!r} begins or ends with what systemd would take away")
    return text.replace("%", "%%")


def command(executable: str, *arguments: str) -> str:
    """A value of ExecStart= or ExecReload=: runs exactly this, whatever characters it has. Raises ValueError."""
    if any(char in "\\\"'" or ord(char) < 0x20 or ord(char) == 0x7F for char in executable):
        executable, arguments = "/usr/bin/env", (executable, *arguments)  # systemd refuses them in what it runs itself
    words = [executable, *arguments]
    if all(_is_simple(each) for each in words):
        return " ".join(words)
    return ":" + " ".join(map(word, words))


def _is_simple(text: str) -> bool:
    return text.isascii() and text.replace("-", "").replace("/", "").replace(".", "").replace("_", "").isalnum()


def _c_escape(char: str) -> str:
    if char in '\\"':
        return "\\" + char
    if char == "%":
        return "%%"
    if ord(char) < 0x20 or ord(char) == 0x7F:
        return f"\\x{ord(char):02x}"
    return char


def _demand_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is not UTF-8, and unit files are") from None
    if "\0" in text:
        raise ValueError(f"{text!r} has a NUL character")
