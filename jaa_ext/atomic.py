"""Files that are whole or absent, folders that are one process'."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".jaa_tmp."
"""How the names of the folders of unfinished files begin."""
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of a write that the disk ends, or a quota; the system names no file with them."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file all or not at all: ``with replacing(path) as temporary: ...`` write the temporary file.

    It lies in a hidden folder of its own beside `path`, reaches the disk, and takes the place of `path` when
    the block ends; after an exception it is removed and `path` stays as it was. Other files that are put
    beside it go with it. Missing folders are made. What killed processes left in the folder of `path` is
    removed.

    Raises:
        OSError: naming `path`, if the disk is full or broken, in whatever words the block was told so.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    with _temporary_folder(path) as folder:
        temporary = folder / path.name
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        except Exception as error:
            number = _disk_error(error, folder)
            if number is None:
                raise
            raise _named(path, number) from error


@contextmanager
def locked(folder: Path, otherwise: Exception) -> Iterator[None]:
    """Keep a folder to this process. The lock goes with the process, however that ends.

    Args:
        folder: is there already.
        otherwise: is raised if another process has it.
    """
    opened = os.open(folder, os.O_RDONLY)
    _held.add(opened)
    try:
        # One that another process has just removed was that one's until now.
        if _lock(opened) is False or not _is_at(opened, folder):
            raise otherwise
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
        raise _named(path, error.errno) from error


def sync(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside a file, locked while this process lives."""
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
        except OSError as error:
            raise _named(path, error.errno or 0) from error  # it names the folder, which nobody asked for
        # Another process may take it for a leftover, and remove it, until it is locked.
        try:
            opened = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        if _lock(opened) is not False and _is_at(opened, folder):
            break
        os.close(opened)
    try:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(opened)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders whose processes are no more, on whatever machine they were."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            opened = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _lock(opened):
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(opened)


def _lock(opened: int) -> bool | None:
    """Whether this process has the lock of an open folder; None where the file system has no locks."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(opened: int, path: Path) -> bool:
    """Whether an open folder is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(path))
    except FileNotFoundError:
        return False


def _disk_error(error: Exception, folder: Path) -> int | None:
    """The number of the system's error if the disk is the cause; libraries tell it in words of their own."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.errno
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 16))
    except OSError as found:
        return found.errno if found.errno in DISK_ERRORS else None
    return None


def _named(path: Path, number: int) -> OSError:
    """An error of the system with the file's name."""
    error = OSError(f"{path}: {os.strerror(number)}")
    error.errno = number
    return error


_held: set[int] = set()
"""The open folders of `locked`."""


def _let_go() -> None:
    # A child that outlives its killed parent, as workers do for seconds, must not keep the lock.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
