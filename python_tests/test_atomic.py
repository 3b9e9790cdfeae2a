"""Files that are whole or absent, and what ends of all kinds leave."""

import errno
import os
import signal
import tempfile
from pathlib import Path

import pytest

from jaa_ext.atomic import locked, naming, replacing

FULL = Path("/dev/full")
"""A disk that is always full."""


def test_a_file_appears_whole_in_folders_that_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "scores.json"
    with replacing(path) as temporary:
        temporary.write_text("half")
        temporary.with_name("beside").touch()
        assert temporary.name == path.name and path.parent in temporary.parents
        assert not path.exists()
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_an_exception_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text("former")
    with pytest.raises(OSError, match=r"^disk lost$"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk lost")
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_what_a_killed_process_left_goes_with_the_next_file(tmp_path: Path) -> None:
    path, users = tmp_path / "scores.json", tmp_path / ".mine.tmp"
    path.write_text("former")
    users.mkdir()
    child = os.fork()
    if child == 0:
        with replacing(path) as temporary:
            temporary.write_text("half")
            temporary.with_name("beside").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert path.read_text() == "former" and len(list(tmp_path.iterdir())) == 3
    with replacing(tmp_path / "another.json") as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == [users, tmp_path / "another.json", path]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("of the child")
            os.write(ready[1], b".")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for name in ("a", "b"):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("of the parent")
    os.write(go[1], b".")
    assert os.waitpid(child, 0)[1] == 0
    assert [(p.name, p.read_text()) for p in sorted(tmp_path.iterdir())] == [
        ("a", "of the child"),
        ("b", "of the parent"),
    ]


def test_a_temporary_folder_that_another_process_took_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch
) -> None:
    made: list[str] = []
    make = tempfile.mkdtemp

    def removed_at_first(**options: str) -> str:
        made.append(make(**options))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", removed_at_first)
    with replacing(tmp_path / "scores.json") as temporary:
        temporary.write_text("whole")
    assert len(made) == 2 and [path.name for path in tmp_path.iterdir()] == ["scores.json"]


@pytest.mark.skipif(not FULL.exists(), reason="no such device here")
def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    told = pytest.raises(OSError, match=r"scores\.json: No space left on device$")
    with told as error, replacing(path) as temporary:
        temporary.symlink_to(FULL)
        temporary.write_text("no room")
    assert str(error.value).startswith(str(path)) and error.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=r"^rows\.csv: No space left on device$"), naming(Path("rows.csv")):
        FULL.write_text("no room")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_where_a_library_has_other_words(tmp_path: Path, monkeypatch) -> None:
    def full(**options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with replacing(tmp_path / "model.safetensors"):
            raise RuntimeError("PytorchStreamWriter failed")

    with pytest.raises(RuntimeError, match=r"^PytorchStreamWriter failed$"):
        write()
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"model\.safetensors: No space left on device$"):
        write()


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), naming(Path("rows.csv")):
        Path("nowhere").read_text()


def test_a_folder_is_one_process(tmp_path: Path) -> None:
    with locked(tmp_path, AssertionError()):
        child = os.fork()
        if child == 0:
            try:
                with locked(tmp_path, KeyError()):
                    os._exit(1)
            except KeyError:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    with locked(tmp_path, AssertionError()):
        pass


def test_a_folder_that_its_process_has_just_removed_is_not_taken(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    open_it = os.open

    def slowly(path: Path, flags: int) -> int:
        opened = open_it(path, flags)
        folder.rmdir()
        return opened

    monkeypatch.setattr(os, "open", slowly)
    with pytest.raises(KeyError), locked(folder, KeyError()):
        pass
