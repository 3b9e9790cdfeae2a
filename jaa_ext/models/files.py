"""Models as single files: weights in safetensors, the config and a note in its metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from jaa_ext.atomic import replacing
from jaa_ext.models.graphnet import JAAGraphNet, JAAGraphNetConfig
from jaa_ext.models.jaanet import JAANet, JAANetConfig

MODELS: dict[str, tuple[type[JAANet], type[Any]]] = {
    "JAANet": (JAANet, JAANetConfig),
    "JAAGraphNet": (JAAGraphNet, JAAGraphNetConfig),
}
"""Model and config class of each name that a file may give."""

KEY = "jaa_ext"
"""The metadata entry: JSON with model (its class), config and note."""


def build_model(config: JAANetConfig) -> JAANet:
    """The model of a config, with fresh weights."""
    model = next(model for model, config_class in MODELS.values() if config_class is type(config))
    return model(config)


def save_model(model: JAANet, path: str | os.PathLike[str], *, note: str = "") -> None:
    """Write a model to one file; an existing file is replaced at once, never half.

    Args:
        model: the model, in any memory format and on any device.
        path: the file, usually ``*.safetensors``.
        note: a remark on the weights; where empty, the model's own is kept.

    Raises:
        TypeError: not one of `MODELS`.
        ValueError: a fused model.
    """
    path, name = Path(path), type(model).__name__
    if MODELS.get(name, (None,))[0] is not type(model):
        raise TypeError(f"save_model: model must be one of {sorted(MODELS)}, got {name}")
    if model.fused:
        raise ValueError("save_model: a fused model cannot be saved; save the model it was made from")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    about = {"model": name, "config": model.config.to_dict(), "note": note or model.note}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(about)})
        temporary.chmod(0o644)  # safetensors makes it the owner's alone


def load_model(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> JAANet:
    """Read a model that `save_model` wrote.

    Returns:
        The model on ``device``, in eval mode, its attribute ``note`` the file's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, not a model of jaa_ext, or tensors that do not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            # Cloned: in the file's mapping tensors lie unaligned, and the last bits of a matrix product can
            # depend on that.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
    if KEY not in metadata:
        raise ValueError(f'{path}: not a model of jaa_ext (no "{KEY}" in the metadata)')
    model, note = _build(path, metadata[KEY])
    check_tensors(path, model.state_dict(), tensors)
    model.load_state_dict(tensors, assign=True)
    model.note = note
    return model.to(device).eval()


def check_tensors(path: Path, wanted: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    """Raise a ValueError that names file and tensor unless names and shapes are the same."""
    for names, word in ((wanted.keys() - got.keys(), "missing"), (got.keys() - wanted.keys(), "unexpected")):
        if names:
            first = min(names)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{path}: {word} tensor {first!r}{more}")
    for name, tensor in wanted.items():
        if got[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: tensor {name!r} must be {list(tensor.shape)}, got {list(got[name].shape)}"
            )


def _build(path: Path, text: str) -> tuple[JAANet, str]:
    """The model without storage for its tensors, and the note."""
    try:
        about: dict[str, Any] = json.loads(text)
        name, config, note = about["model"], about["config"], about["note"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path}: metadata "{KEY}" must be JSON with model, config and note ({error!r})'
        ) from None
    if name not in MODELS:
        raise ValueError(f"{path}: unknown model {name!r}; this version knows {sorted(MODELS)}")
    model_class, config_class = MODELS[name]
    try:
        with torch.device("meta"):
            return model_class(config_class.from_dict(config)), note
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from None
