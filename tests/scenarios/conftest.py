"""What several scenarios of ASGI share: a worker that serves tests/apps/corners.py, on either event loop."""

from collections.abc import Iterator

import pytest

from tests.support.corners import LOOPS, Corners, corners
from tests.support.wire import get


@pytest.fixture(scope="module", params=LOOPS)
def at(request: pytest.FixtureRequest) -> Iterator[Corners]:
    with corners(request.param) as served:
        yield served


@pytest.fixture
def serving(at: Corners) -> Iterator[None]:
    """Whatever is asked for, and whatever a client does, others are served: on connections that are open, and on new
    ones."""
    with at.wire(get("/")) as other:
        assert other.response().body == b"hello"
        yield
        assert other.send(get("/")).response().body == b"hello"
    at.is_well()
