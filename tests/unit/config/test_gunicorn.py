"""What a misspelt name may mean, found without the standard library's way to it: a master keeps that in memory."""

from difflib import SequenceMatcher, get_close_matches

from hypothesis import given, settings
from hypothesis import strategies as st

from sdserve.config.gunicorn import likeness, nearest
from sdserve.config.schema import SETTINGS

WORDS = st.one_of(st.text(alphabet="abcde_", max_size=12), st.sampled_from(sorted(SETTINGS)))


@given(WORDS, WORDS)
@settings(max_examples=500, deadline=None)
def test_likeness_is_difflibs_ratio(one: str, other: str) -> None:
    expected = SequenceMatcher(None, one, other).ratio() if one or other else 0.0
    assert likeness(one, other) == expected


@given(WORDS, st.lists(WORDS, max_size=8))
@settings(max_examples=300, deadline=None)
def test_the_nearest_is_difflibs_closest_match(name: str, known: list[str]) -> None:
    found = get_close_matches(name, known, n=1) if name or "" not in known else []
    assert nearest(name, known, 0.6) == (found[0] if found else None)
