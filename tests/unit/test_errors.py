"""What an error says to the operator."""

import errno
import os

import pytest

from sdserve.errors import in_words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError(), "KeyError"),
        (ValueError("no number"), "ValueError: no number"),
        (MemoryError(), "MemoryError; see MemoryMax= and LimitAS="),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "OSError: [Errno 24] Too many open files; see LimitNOFILE="),
        (OSError(errno.ENFILE, "x"), "OSError: [Errno 23] x; see fs.file-max, by sysctl(8)"),
        (BlockingIOError(errno.EAGAIN, "not now"), "BlockingIOError: [Errno 11] not now"),
    ],
)
def test_in_words(error: Exception, words: str) -> None:
    """Where a limit of the unit is the cause, it is named; what an application may raise as well is left alone."""
    assert in_words(error) == words
