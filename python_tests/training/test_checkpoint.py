from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from jaa_ext.atomic import replacing
from jaa_ext.training.checkpoint import load_checkpoint, save_checkpoint


def test_a_killed_process_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"iteration": 1})
    child = os.fork()
    if child == 0:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert load_checkpoint(path) == {"iteration": 1}


def test_tensors_come_back_with_their_bits(tmp_path: Path) -> None:
    weight = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "c.pt", {"model": {"w": weight}, "history": [{"lr": 0.1}], "epoch": 3})
    state = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(state["model"]["w"], weight)
    assert state["model"]["w"].stride() == weight.stride()
    assert (state["history"], state["epoch"]) == ([{"lr": 0.1}], 3)


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_a_pickled_program_is_refused(tmp_path: Path) -> None:
    torch.save({"model": Dangerous()}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt: not a checkpoint of a training run, or damaged"):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"w": torch.zeros(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"c\.pt: not a checkpoint of a training run, or damaged"):
        load_checkpoint(path)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"c\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "c.pt")
