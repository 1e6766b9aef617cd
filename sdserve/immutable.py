"""Immutable values with named fields, as `@dataclass(frozen=True)` makes them, and cheap to import.

The first client of an activated service waits for every module that is loaded and every class that is made. dataclasses
brings inspect, ast, dis and tokenize along and compiles methods for each class: that was a third of the start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self, dataclass_transform
else:

    def dataclass_transform(**how):
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Immutable:
    """A class that derives from this declares its fields as a dataclass does: annotated, with defaults behind those
    without. Equal are values of one class with equal fields."""

    _fields: tuple[str, ...] = ()
    _known: frozenset[str] = frozenset()
    _needed: frozenset[str]

    def __init_subclass__(cls) -> None:
        cls._fields = (*cls._fields, *cls.__annotations__)
        cls._known = frozenset(cls._fields)
        cls._needed = frozenset(name for name in cls._fields if not hasattr(cls, name))

    def __init__(self, *values: Any, **named: Any) -> None:
        given = self.__dict__
        given.update(zip(self._fields, values, strict=False), **named)
        if len(given) < len(values) + len(named) or not self._needed <= given.keys() <= self._known:
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._fields)}: got {values}, {named}")

    def replace(self, **changes: Any) -> Self:
        """The same value with other fields."""
        return type(self)(**self._named() | changes)

    def _named(self) -> dict[str, Any]:
        """Its fields by name."""
        return {name: getattr(self, name) for name in self._fields}

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: use replace({name}=...)")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._named() == other._named()

    def __hash__(self) -> int:
        return hash(tuple(self._named().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._named().items())})"
