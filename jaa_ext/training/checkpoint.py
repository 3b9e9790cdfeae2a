"""The state of an interrupted training run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError
from torch import Tensor, nn

from jaa_ext.atomic import replacing
from jaa_ext.evaluation.results import Epoch
from jaa_ext.models.serialization import is_plain, read_pickle

EPOCHS = TypeAdapter(list[Epoch])


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
        state = read_pickle(path)
    except ValueError as error:
        raise ValueError(f"{path}: not a checkpoint of a training run, or damaged: {error}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint of a training run, it holds a {type(state).__name__}")
    return state


def check_state(path: Path, state: dict[str, Any], *, epochs: int, per_epoch: int) -> None:
    """Check that what `load_checkpoint` read has the parts of a run, of their types, and how far it has come.

    Args:
        path: the checkpoint.
        state: its content.
        epochs: how many epochs the run has.
        per_epoch: how many batches an epoch has.

    Raises:
        ValueError: otherwise; the message names the file and the part.
    """
    try:
        _State.model_validate(state)
        EPOCHS.validate_json(json.dumps(state["history"]), strict=True)
        torch.Generator().set_state(state["random"]["cpu"])
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:60] for part in problem["loc"])
        raise ValueError(f"{path}: is damaged: {error.title}: {place}: {problem['msg']}") from None
    except (RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: is damaged: random or history: {str(error)[:200]}") from None
    epoch, batch, iteration, history = (state[key] for key in ("epoch", "batch", "iteration", "history"))
    if (
        epoch > epochs
        or batch > per_epoch
        or iteration != epoch * per_epoch + batch
        or len(history) != epoch
        or any(entry.get("scores") is None for entry in history)
    ):
        raise ValueError(
            f"{path}: is damaged: wanted up to {epochs} epochs of {per_epoch} batches, each with its scores, "
            f"got epoch {epoch}, batch {batch}, iteration {iteration} and {len(history)} epochs of scores"
        )


def check_momentum(path: Path, momentum: dict[int, Any], parameters: Sequence[nn.Parameter]) -> None:
    """Check that the momentum in a checkpoint is that of the parameters that the stage trains.

    Raises:
        ValueError: it is not; the message names the file and the parameter.
    """
    for place, kept in momentum.items():
        buffer = kept["momentum_buffer"]
        shape = parameters[place].shape if 0 <= place < len(parameters) else None
        if buffer is not None and (
            not is_plain(buffer) or buffer.shape != shape or not buffer.isfinite().all()
        ):
            raise ValueError(
                f"{path}: is damaged: the momentum of parameter {place} must be finite and "
                f"{list(shape or ())}, got {list(buffer.shape)}"
            )


class _Momentum(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    momentum_buffer: Tensor | None


class _Optimizer(BaseModel):
    state: dict[int, _Momentum] = {}


class _State(BaseModel):
    """What the checkpoint of a run holds."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    model: dict[str, Tensor]
    optimizer: _Optimizer
    scaler: dict[str, Any]
    epoch: NonNegativeInt
    batch: NonNegativeInt
    iteration: NonNegativeInt
    sums: dict[str, FiniteFloat]
    history: list[dict[str, Any]]
    random: dict[str, Tensor]
    note: str = ""
