"""What look.py reports, read as what it is: text that the application may have written itself, for a program of root's.

So it is small, each name is known, each value is of its kind, paths are absolute, and a reason stands on one line.
"""

import json
from typing import Any

from sdserve.systemd.records import one_line

LONGEST = 64 << 10  # characters of a report
LONGEST_REASON = 500  # characters of what is shown of an error
TEXTS = ("protocol", "framework", "settings", "static")
FLAGS = ("has_static", "debug")
PATHS = ("files", "directories")
NONSENSE = "what the process that imported it says of it is no report"


def read(text: str) -> dict[str, Any]:
    """The values of a report; {"error": …} for one that could not be made, or that is none."""
    try:
        said = json.loads(text) if len(text) <= LONGEST else None
    except (ValueError, RecursionError):  # the latter: nested too deep
        said = None
    if not isinstance(said, dict):
        return {"error": NONSENSE}
    if "error" in said:
        return {"error": one_line(str(said["error"]))[:LONGEST_REASON], "nothing": said.get("nothing") is True}
    if not all(_fits(name, value) for name, value in said.items()):
        return {"error": NONSENSE}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in said.items()}


def _fits(name: str, value: object) -> bool:
    if name in TEXTS:
        return isinstance(value, str)
    if name in FLAGS:
        return isinstance(value, bool)
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return False
    return name == "hosts" or (name in PATHS and all(each.startswith("/") for each in value))
