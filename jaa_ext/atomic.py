"""Files that are whole or absent, folders that are one process'."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Where it is the disk, or what may be put on it, that ends a write. The system names no file then."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file all or not at all: ``with replacing(path) as temporary: ...`` write the temporary file.

    It lies in the same folder, reaches the disk, and takes the place of `path` when the block ends; after an
    exception it is removed and `path` stays as it was. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, otherwise: Exception) -> Iterator[None]:
    """Keep a folder to this process. The lock goes with the process, however that ends.

    Args:
        folder: is there already.
        otherwise: is raised if another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    _held.add(opened)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise otherwise from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        if opened in _held:  # not in a child
            _held.remove(opened)
            os.close(opened)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have the errors of a full or broken disk name a file that the block writes."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in DISK_ERRORS:
            raise
        named = OSError(f"{path}: {os.strerror(error.errno)}")
        named.errno = error.errno
        raise named from error


def sync(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


_held: set[int] = set()


def _let_go() -> None:
    # A child that outlives its killed parent, as workers do for seconds, must not keep the lock.
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
