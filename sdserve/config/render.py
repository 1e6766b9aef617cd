"""The schema as text: help, the table of a loaded configuration, docs/reference/settings.md and docs/sdserve.1.

`python -m sdserve.config.render docs` or `man` prints what belongs into the file, so documentation cannot drift from
the code: a test compares. Imported only when one of these is asked for.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

from sdserve import __version__
from sdserve.config.configuration import Config
from sdserve.config.hooks import HOOK_PARAMETERS
from sdserve.config.schema import SETTINGS
from sdserve.config.setting import COMMAND_ARGS, Setting

UNIT_USAGE = "sdserve unit [OPTIONS] MODULE:CALLABLE   (writes systemd units for it; sdserve unit --help)"
USAGE = "sdserve [OPTIONS] [module:callable[()]]"
_ABOUT = "Serves a WSGI or ASGI application as a systemd-native, socket-activated pre-fork service."
_EFFECTS = {"reload": "a reload (HUP)", "upgrade": "an upgrade (USR2)", "start": "a restart"}
_SOURCES = """Command line over environment over config file over default. Every setting has a variable of the
environment, SDSERVE_ and its name in capitals, and a variable of the config file."""


def sections() -> dict[str, list[Setting]]:
    """The settings by section, in the order of the schema."""
    found: dict[str, list[Setting]] = {}
    for setting in SETTINGS.values():
        found.setdefault(setting.section, []).append(setting)
    return found


def flag_forms(setting: Setting) -> list[str]:
    """The flags as help shows them, the last one with its value."""
    forms = list(setting.flags)
    if forms and setting.takes_value:
        forms[-1] += f" [{setting.metavar}]" if setting.bare is not None else f" {setting.metavar}"
    return forms


def default_text(setting: Setting) -> str:
    """The default in words."""
    if setting.default_doc is not None:
        return setting.default_doc
    value = setting.default
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ",".join(value)
    return str(value)


def help_text(width: int = 100) -> str:
    """What --help prints."""
    lines = [f"usage: {USAGE}", f"       {UNIT_USAGE}", "", _ABOUT, *textwrap.wrap(" ".join(_SOURCES.split()), width)]
    for section, settings in sections().items():
        shown = [setting for setting in settings if setting.flags]
        if shown:
            lines += ["", f"{section}:"]
        if section == "Configuration":
            lines.append("  -h, --help                 Print this and exit.")
            lines.append("  -v, --version              Print the version and exit.")
        for setting in shown:
            lines += _help_entry(setting, width)
    lines += ["", "Settings without a flag, hooks among them, are described in sdserve(1)."]
    return "\n".join(lines)


def _help_entry(setting: Setting, width: int) -> Iterator[str]:
    forms = flag_forms(setting)
    head = ", ".join(forms) if forms[0][:2] != "--" else "    " + ", ".join(forms)
    summary = setting.summary
    if setting.takes_value:
        summary = f"{summary[:-1]} [{default_text(setting)}]. {setting.zero}"
    body = textwrap.wrap(summary, width - 29) or [""]
    if len(head) > 25:
        yield f"  {head}"
    else:
        yield f"  {head:<26} {body.pop(0)}"
    for line in body:
        yield " " * 29 + line


def config_text(config: Config) -> str:
    """What --print-config prints: name = value, and the source of each setting."""
    rows = [(name, _shown(name, entry.value), entry.source) for name, entry in config.settings.items()]
    names = max(len(name) for name, _, _ in rows)
    values = min(40, max(len(value) for _, value, _ in rows))
    return "\n".join(f"{name:<{names}} = {value:<{values}}  # {source}" for name, value, source in rows)


def _shown(name: str, value: object) -> str:
    if name in ("umask", "socket_mode") and isinstance(value, int):
        return f"0o{value:03o}"
    if callable(value):
        module, title = getattr(value, "__module__", ""), getattr(value, "__qualname__", repr(value))
        return f"<{module}.{title}>"
    return repr(value)


def docs() -> str:
    """docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        "<!-- Made by `python -m sdserve.config.render docs`; do not edit. -->",
        "",
        *textwrap.wrap(" ".join(_SOURCES.split()), 116),
        "[Configuration](configuration.md) says how the sources work together.",
    ]
    for section, settings in sections().items():
        lines += ["", f"## {section}"]
        for setting in settings:
            lines += ["", *_docs_entry(setting)]
    return "\n".join(lines) + "\n"


def _docs_entry(setting: Setting) -> Iterator[str]:
    is_hook = setting.section == "Hooks"
    yield f"### `{setting.name}({', '.join(HOOK_PARAMETERS[setting.name])})`" if is_hook else f"### `{setting.name}`"
    yield ""
    yield from textwrap.wrap(setting.doc.replace("*", r"\*"), 116)
    yield ""
    if is_hook:
        return
    if setting.flags:
        more = "; may be repeated" if setting.repeatable else ""
        yield f"- Command line: {', '.join(f'`{form}`' for form in flag_forms(setting))}{more}"
    variables = ", ".join(f"`{variable}`" for variable in (setting.env, *setting.aliases))
    yield f"- Environment: {variables}"
    yield f"- Default: {default_text(setting)}"
    yield f"- Changed by: {_EFFECTS[setting.effect]}"


def man() -> str:
    """docs/sdserve.1, for man(1)."""
    lines = [
        '.\\" Made by `python -m sdserve.config.render man`; do not edit.',
        f'.TH SDSERVE 1 "" "sdserve {__version__}" "User Commands"',
        ".SH NAME",
        r"sdserve \- systemd-native application server for Python",
        ".SH SYNOPSIS",
        r".B sdserve",
        r"[\fIOPTIONS\fR] [\fImodule\fR:\fIcallable\fR[()]]",
        ".br",
        r".B sdserve unit",
        r"[\fIOPTIONS\fR] \fImodule\fR:\fIcallable\fR[()]",
        ".SH DESCRIPTION",
        _roff(_ABOUT),
        ".PP",
        _roff(" ".join(_SOURCES.split())),
        f"Arguments in {COMMAND_ARGS}, quoted as in a shell, rank between the command line and the other variables.",
        "Flags without a value have a form that begins with \\-\\-no\\- and sets them to off.",
        ".PP",
        r"\fBsdserve unit\fR writes systemd units for an application, and prints the commands that install and start",
        r"them; \fBsdserve unit \-\-help\fR has its options.",
        ".SH OPTIONS",
    ]
    for section, settings in sections().items():
        lines += [f".SS {section}"]
        if section == "Configuration":
            lines += [".TP", r"\fB\-h\fR, \fB\-\-help\fR", "Print a summary of the options and exit."]
            lines += [".TP", r"\fB\-v\fR, \fB\-\-version\fR", "Print the version and exit."]
        for setting in settings:
            lines += [".TP", _man_head(setting), _roff(setting.doc)]
            if setting.section != "Hooks":
                variables = ", ".join((setting.env, *setting.aliases))
                lines += [".br", _roff(f"{setting.name}, {variables}. Default: {default_text(setting)}.")]
    lines += [
        ".SH EXIT STATUS",
        "0 after an orderly stop, 1 for a wrong configuration or address, 3 when no worker can boot or import the",
        "application, 4 when its name means no callable.",
        ".SH FILES",
        r"\fI./sdserve.conf.py\fR, \fI./gunicorn.conf.py\fR",
        ".SH SEE ALSO",
        r".BR sdservectl (1), systemd.socket (5), sd_notify (3)",
    ]
    return "\n".join(lines) + "\n"


def _man_head(setting: Setting) -> str:
    if setting.flags:
        return ", ".join(rf"\fB{_roff(form)}\fR" for form in flag_forms(setting))
    if setting.section == "Hooks":
        return rf"\fB{_roff(setting.name)}\fR({', '.join(HOOK_PARAMETERS[setting.name])})"
    return rf"\fB{_roff(setting.name)}\fR"


def _roff(text: str) -> str:
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.stdout.write({"docs": docs, "man": man}[sys.argv[1]]())
