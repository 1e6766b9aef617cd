"""Is a stream the journal? (JOURNAL_STREAM, systemd.exec(5); `<N>` prefixes, sd-daemon(3))"""

import os
from collections.abc import Mapping
from typing import TextIO


def connected(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True if `stream` goes to journald: its device and inode are the ones that JOURNAL_STREAM names."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdigit() and inode.isdigit()):
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))


def prefixed(text: str, priority: int) -> str:
    """`text` with syslog(3)'s `priority`, 0 to 7, in front of each line: journald reads prefixes line by line."""
    mark = f"<{priority}>"
    return "\n".join(mark + line for line in text.split("\n"))
