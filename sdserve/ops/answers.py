"""What a master answers, as whoever asks may rely on it: an answer that does not fit the table of commands is none.

Whatever listens at a path may say anything; the application's own socket is easily taken for the control socket. A
master of another version may know more, which is passed over, and less: a field with a default may be missing.
"""

from typing import Any

from sdserve.immutable import Immutable
from sdserve.ops.commands import named

MOST = float(1 << 64)  # of a number: what is reckoned with it stays within a float


def is_answer(command: str, answer: object) -> bool:
    """Whether `answer`, as JSON gave it, is what a master says to this command: what it gives, or a refusal."""
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        return False
    if not answer["ok"]:
        return fits(answer.get("text"), str | None)
    given = {field.name: field.kind for field in named(command).gives}
    return fits(answer.get("text"), str) and all(fits(answer.get(name), kind) for name, kind in given.items())


def fits(value: object, kind: Any) -> bool:
    """Whether `value`, as JSON gave it, is of a type as annotations say it. What may be None may be missing."""
    if isinstance(kind, type) and issubclass(kind, Immutable):
        return isinstance(value, dict) and all(
            fits(value.get(name), part)
            for name, part in kind.__annotations__.items()
            if name in value or name in kind._needed
        )
    parts: tuple[Any, ...] = getattr(kind, "__args__", ())
    if getattr(kind, "__origin__", None) is tuple:
        return isinstance(value, list) and all(fits(each, parts[0]) for each in value)
    if parts:
        return any(fits(value, part) for part in parts)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if isinstance(value, int | float):
        return (kind is float or (kind is int and isinstance(value, int))) and -MOST <= value <= MOST  # as no NaN is
    return isinstance(value, kind)
