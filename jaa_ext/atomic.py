"""Files that are written whole or not at all, and folders locked by one process."""

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
"""Prefix of the folders that hold unfinished files."""
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of a write that come from the disk or a quota; the system names no file with them."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all.

    The block writes a temporary file, which lies in a hidden folder of its own beside `path`. When the block
    ends, that file is synced to the disk and replaces `path`; after an exception `path` stays as it was. In
    both cases the hidden folder is removed, with anything else in it. Missing folders are made, and hidden
    folders that killed processes left beside `path` are removed.

    Raises:
        OSError: the disk is full or broken; names `path`, whatever exception the block raised.

    Example:
        >>> with replacing("out/scores.txt") as temporary:  # doctest: +SKIP
        ...     temporary.write_text("0.62")
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
    """Lock a folder for this process; the lock ends with the block, or with the process however that ends.

    Args:
        folder: an existing folder.
        otherwise: the exception to raise if another process holds the lock.
    """
    opened = os.open(folder, os.O_RDONLY)
    _held.add(opened)
    try:
        # A folder that another process has just removed was locked by that process until now.
        if _lock(opened) is False or not _is_at(opened, folder):
            raise otherwise
        yield
    finally:
        if opened in _held:  # a forked child has closed it
            _held.remove(opened)
            os.close(opened)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add a file's name to the errors of a full or broken disk that the block raises."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in DISK_ERRORS:
            raise
        raise _named(path, error.errno) from error


def sync(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside a file, locked as long as this process lives."""
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
        except OSError as error:
            raise _named(path, error.errno or 0) from error  # in place of the folder's name
        # Until it is locked, another process may remove it as a leftover.
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
    finally:  # also if the removal is interrupted: the lock would make the folder look in use
        os.close(opened)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders whose processes have ended, on any machine."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            opened = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _lock(opened):
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(opened)


def _lock(opened: int) -> bool | None:
    """Try to lock an open folder; returns whether it worked, None on a file system without locks."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(opened: int, path: Path) -> bool:
    """Tell whether an open folder is still at its path."""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(path))
    except FileNotFoundError:
        return False


def _disk_error(error: Exception, folder: Path) -> int | None:
    """Give the system's error number if the disk is the cause, which some libraries do not report; else
    None."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.errno
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(1 << 16))
    except OSError as found:
        return found.errno if found.errno in DISK_ERRORS else None
    return None


def _named(path: Path, number: int) -> OSError:
    """Make an error of the system that names the file."""
    error = OSError(f"{path}: {os.strerror(number)}")
    error.errno = number
    return error


_held: set[int] = set()
"""File descriptors of the folders that `locked` holds."""


def _release_in_child() -> None:
    # A child may outlive its killed parent, as workers do for seconds, and must not keep the lock.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_release_in_child)
