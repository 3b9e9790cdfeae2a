"""The state of an interrupted training run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from jaa_ext.atomic import replacing


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a tree of tensors, numbers and strings in dicts and lists; `path` is replaced at once."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU; nothing but data is unpickled.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged or is none of ours.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a checkpoint of a training run, or damaged") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint of a training run, it holds a {type(state).__name__}")
    return state
