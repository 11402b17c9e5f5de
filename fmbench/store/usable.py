"""Results that cannot be used: whatever their values make the code or a library raise becomes an error in words."""

import contextlib
import os
from collections.abc import Iterator

import pyarrow as pa

from fmbench.errors import DataError

_OF_PYTHON = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError, RecursionError)
RAISED = (*_OF_PYTHON, TypeError, ValueError, pa.ArrowException)
"""What libraries raise for values that they cannot use, such as a number that has no logarithm."""


@contextlib.contextmanager
def usable(what: str) -> Iterator[None]:
    """Turn what the block raises because of values in a file into a DataError.

    The readers check what every row must be. They cannot know every value that a library refuses to draw or to compare.
    ``FMBENCH_DEBUG`` in the environment shows the error itself.

    Args:
        what: the results or the figure, for the message.
    """
    try:
        yield
    except RAISED as error:
        if os.environ.get("FMBENCH_DEBUG"):
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise DataError(
            f"{what} cannot be used ({said}). It holds values that no run writes, or this is a fault of fmbench: get the results "
            "again, or run with FMBENCH_DEBUG=1 to see where it failed"
        ) from error
