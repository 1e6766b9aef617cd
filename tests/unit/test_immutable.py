"""Immutable values: made, compared, changed into others."""

import pytest

from sdserve.immutable import Immutable


class Point(Immutable):
    x: int
    y: int = 0


class Other(Immutable):
    x: int
    y: int = 0


def test_fields_by_position_by_name_and_by_default() -> None:
    assert (Point(1).x, Point(1).y) == (1, 0)
    assert Point(1, 2) == Point(1, y=2) == Point(y=2, x=1)


@pytest.mark.parametrize(
    "values, named", [((), {}), ((), {"y": 1}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})]
)
def test_what_is_missing_superfluous_or_unknown_is_refused(values: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point takes x, y"):
        Point(*values, **named)


def test_values_of_two_classes_are_never_equal() -> None:
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert {Point(1, 2), Point(1, 2), Point(1)} == {Point(1), Point(1, 2)}


def test_nothing_changes_but_another_can_be_made() -> None:
    point = Point(1, 2)
    with pytest.raises(AttributeError, match="replace"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del point.x
    assert point.replace(x=3) == Point(3, 2)
    assert point == Point(1, 2)
    with pytest.raises(TypeError):
        point.replace(z=1)


def test_it_shows_its_fields() -> None:
    assert repr(Point(1, 2)) == "Point(x=1, y=2)"
