"""PATH_INFO of a path with escapes is what the standard library makes of it, whose import no start waits for."""

from urllib.parse import unquote_to_bytes

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdserve.gateway.environ import unquoted


@given(st.text(alphabet="%%%0123456789abcdefABCDEFgG+-_ /~", max_size=30))
@example("/%+1%_1%1_%-1% 1%1 %%41")
@example("/a%")
@settings(max_examples=500)
def test_paths_are_unquoted_as_by_the_standard_library(path: str) -> None:
    assert unquoted(path) == unquote_to_bytes(path).decode("latin-1")
