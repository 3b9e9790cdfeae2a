"""Errors that name the file and say what was wanted and got."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from jaa_ext.data.release import ReleaseError


@contextmanager
def wrap_errors(sentence: str, kind: type[Exception] = ReleaseError) -> Iterator[None]:
    """Turn every exception in the block into one of `kind`: `sentence`, and the first line of the original.

    For calls of libraries on files that may be damaged: which exceptions they raise changes from version to
    version. One that is of `kind` already passes unchanged.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        raise kind(f"{sentence} ({reason[:200]})") from None


def quoted(piece: object) -> str:
    """Quote a piece of a file, shortened to 60 characters."""
    text = str(piece).strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def require_package(package: str, what_needs: str, *, extra: str = "data") -> None:
    """Check that a package of an extra is installed, before any work is done.

    Args:
        package: its name in imports.
        what_needs: begins the message, such as "the landmarks of BP4D need".
        extra: the extra that installs it.

    Raises:
        ImportError: it is not; the message says how to install it.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{what_needs} {package}, which is not installed: run `pip install 'jaa_ext[{extra}]'`"
        )
