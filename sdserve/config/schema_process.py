"""Settings of processes: where and as whom they run, what a service shows of itself, and where logs go.

Part of the schema; see schema.py for how to add one.
"""

from __future__ import annotations

from sdserve.config import convert
from sdserve.config.setting import Setting, switch


class Process:
    chdir = Setting(
        convert.text,
        None,
        """The directory of the application: it becomes the working directory and is put on the import path. A symbolic
        link on the way is followed again at each reload.""",
        metavar="DIR",
        default_doc="the directory sdserve is started in",
    )
    pythonpath = Setting(
        convert.comma_list(convert.text),
        [],
        "Directories to put on the import path, separated by commas; relative ones are looked up from chdir.",
        metavar="LIST",
    )
    raw_env = Setting(
        convert.each(convert.assignment),
        [],
        """Environment variables for the server and the application, KEY=VALUE. In the environment: one a line, or
        separated by commas. A reload takes back what the old configuration had set.""",
        flags=("-e", "--env"),
        metavar="KEY=VALUE",
        repeatable=True,
        split=convert.split_assignments,
    )
    daemon = switch(
        "Detach from the terminal and run in the background. Not for services of systemd.",
        short="-D",
        effect="start",
    )
    pidfile = Setting(
        convert.optional_text,
        None,
        "The file that holds the master's process id.",
        flags=("-p", "--pid"),
        metavar="FILE",
    )
    proc_name = Setting(
        convert.text,
        None,
        "The name in the process titles that ps and top show.",
        flags=("-n", "--name"),
        metavar="NAME",
        default_doc="the application's name",
    )
    user = Setting(
        convert.user,
        None,
        "The user, by name or id, that workers run as. Only root can change it.",
        short="-u",
        metavar="USER",
        default_doc="the user that starts sdserve",
    )
    group = Setting(
        convert.group,
        None,
        "The group, by name or id, that workers run as. Only root can change it.",
        short="-g",
        metavar="GROUP",
        default_doc="the group that starts sdserve",
    )
    initgroups = switch("Give workers the supplementary groups of their user.")
    umask = Setting(
        convert.umask,
        0,
        "The file mode mask of workers; text with a leading 0 is octal (022), without one decimal.",
        short="-m",
        metavar="MASK",
        default_doc="what sdserve inherits",
    )


class Service:
    upgrade = Setting[str | None](
        convert.choice("auto", "manual"),
        None,
        """What USR2 leads to: auto lets the new master take over once it serves, manual leaves both running until the
        operator ends one of them.""",
        metavar="MODE",
        default_doc="auto under systemd, manual elsewhere",
    )
    fd_store = switch(
        """Keep idle client connections open across a restart, in systemd's file descriptor store. Set it where the unit
        has FileDescriptorStoreMax=8 or more, which systemd 254 and newer tell by themselves, and
        RestartKillSignal=SIGRTMIN, which tells a restart from a stop.""",
        effect="upgrade",
    )
    control_socket = Setting(
        convert.optional_text,
        None,
        "The Unix socket on which sdservectl finds the server; the empty string means none.",
        metavar="PATH",
        fallback=("RUNTIME_DIRECTORY", lambda directories: f"{directories.partition(':')[0]}/control"),
        effect="start",
        default_doc="$RUNTIME_DIRECTORY/control where systemd sets RUNTIME_DIRECTORY, else none",
    )


class Logging:
    errorlog = Setting(
        convert.text,
        "-",
        "The file for the server's own messages; - is the standard error stream, and so the journal of a service.",
        flags=("--error-logfile", "--log-file"),
        metavar="FILE",
    )
    accesslog = Setting(
        convert.optional_text,
        None,
        "The file for one line on each request; - is the standard output stream. None is written by default.",
        flags=("--access-logfile",),
        metavar="FILE",
    )
    access_log_format = Setting(
        convert.text,
        '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        """The format of an access line: json, logfmt, or one with gunicorn's atoms. With atoms, what a client chose is
        written in printable ASCII, other bytes, quotes and backslashes as \\xHH; json and logfmt have escapes of their
        own. It is cut at 2,048 characters. Refused requests have a line, too, with what is known of them.""",
        flags=("--access-logformat",),
        metavar="FORMAT",
    )
    access_log_exclude = Setting(
        convert.comma_list(convert.text),
        [],
        """Paths that have no access line while they are answered with less than 400, separated by commas: those that
        probes ask for. A path is compared as it was sent, without its query.""",
        metavar="LIST",
    )
    loglevel = Setting(
        convert.choice(
            "trace", "debug", "info", "warning", "error", "critical", also={"warn": "warning", "fatal": "critical"}
        ),
        "info",
        """The least level that is logged: trace, debug, info, warning, error or critical. trace follows each process
        through its life.""",
        flags=("--log-level",),
        metavar="LEVEL",
    )
