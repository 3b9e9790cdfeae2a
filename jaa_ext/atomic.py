"""Files that are whole or absent, folders that are one process'."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise otherwise from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(opened)


def sync(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
