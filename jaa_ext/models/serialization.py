"""Models as single safetensors files, whose metadata have the config, a note and thresholds."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from jaa_ext.atomic import replacing
from jaa_ext.models.config import JAANetConfig
from jaa_ext.models.graphnet import JAAGraphNet, JAAGraphNetConfig
from jaa_ext.models.jaanet import JAANet
from jaa_ext.weights import default_weights

MODELS: dict[str, tuple[type[JAANet], type[Any]]] = {
    "JAANet": (JAANet, JAANetConfig),
    "JAAGraphNet": (JAAGraphNet, JAAGraphNetConfig),
}
"""The model and config classes by the names that files give them."""

KEY = "jaa_ext"
"""The metadata entry: JSON with model (its class), config, note, thresholds, and half where it is true."""

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Dtypes that a file may have its weights in."""

MIN_HALVED_SIZE = 1024
"""Elements of a parameter from which on `save_model` can halve it. Biases and norms, which take next to no
room, keep all their digits."""

MAX_WEIGHTS = 2**31
"""A hundred times JAA-Net's: a model with more comes from a typing error in the config."""


class _About(BaseModel):
    """The metadata entry."""

    model: str
    config: dict[str, Any]
    note: str
    thresholds: list[float] | None = None
    """None in files of versions without thresholds."""
    half: bool = False
    """Whether parameters in float16 are those of a model in float32."""


def build_model(config: JAANetConfig) -> JAANet:
    """Make the model of a config, with fresh weights.

    Args:
        config: a `JAANetConfig` for a `JAANet`, a `JAAGraphNetConfig` for a `JAAGraphNet`.

    Raises:
        ValueError: it would have more than `MAX_WEIGHTS` weights.

    Example:
        >>> type(build_model(JAAGraphNetConfig.graph((1, 12), width=1))).__name__
        'JAAGraphNet'
    """
    empty_model(config)
    return _class_of(config)(config)


def save_model(model: JAANet, path: str | os.PathLike[str], *, note: str = "", half: bool = False) -> None:
    """Write a model to one file; an existing file is replaced whole or not at all.

    Args:
        model: the model, in any memory format and on any device.
        path: the file, usually ``*.safetensors``.
        note: a remark on the weights; empty for the model's own.
        half: whether large parameters of a model in float32 are written in float16, which halves the file;
            `load_model` gives them in float32 again, rounded to three digits.

    Raises:
        TypeError: not one of `MODELS`, or a model in another dtype than float32 that is to be halved.
        ValueError: a fused model, or a parameter that float16 cannot hold.
        IsADirectoryError: there is a folder of that name.

    Example:
        >>> model = JAANet(JAANetConfig.released((1, 12), image_size=64, width=1))
        >>> save_model(model, "model.safetensors", note="untrained")
        >>> load_model("model.safetensors").note
        'untrained'
    """
    path, name = Path(path), type(model).__name__
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, wanted the name of the model's file")
    if MODELS.get(name, (None,))[0] is not type(model):
        raise TypeError(f"save_model: model must be one of {sorted(MODELS)}, got {name}")
    if model.fused:
        raise ValueError("save_model: a fused model cannot be saved; save the model it was made from")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    about: dict[str, Any] = {"model": name, "config": model.config.to_dict(), "note": note or model.note}
    about["thresholds"] = list(model.thresholds)
    if half:
        about["half"] = True
        tensors |= _halved({key: tensors[key] for key, _ in model.named_parameters()})
    content = safetensors.torch.save(tensors, metadata={KEY: json.dumps(about)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)  # safetensors.torch.save_file ignores the umask


def load_model(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> JAANet:
    """Read a model that `save_model` wrote.

    Args:
        path: the file; None for the weights that come with jaa_ext (`jaa_ext.weights.default_weights`).
        device: the device of the model.

    Returns:
        The model in eval mode, with the file's ``note`` and ``thresholds``, in the dtype of the file's
        weights (float32 where only the file has them in half precision).

    Raises:
        FileNotFoundError: no such file, or this build comes without weights.
        ValueError: not a safetensors file, not a model of jaa_ext, or tensors that do not fit the model or
            are not finite.

    Example:
        >>> model = load_model()  # doctest: +SKIP
        >>> model.config.image_size  # doctest: +SKIP
        96
    """
    path = default_weights() if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Cloned since the tensors of the mapped file are unaligned, which can change the last bits of a
            # matrix product.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except OSError:
        raise
    except Exception as error:  # an unknown dtype, say, raises no error of safetensors' own
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
    if KEY not in metadata:
        raise ValueError(f'{path}: not a model of jaa_ext (no "{KEY}" in the metadata)')
    model, about = _build(path, metadata[KEY])
    check_tensors(path, model.state_dict(), tensors)
    if about.half:
        tensors = {key: t.float() if t.dtype == torch.float16 else t for key, t in tensors.items()}
    dtypes = {name: tensor.dtype for name, tensor in tensors.items() if tensor.is_floating_point()}
    first, dtype = next(iter(dtypes.items()))
    for name, other in dtypes.items():
        if other != dtype:
            raise ValueError(
                f"{path}: tensor {name!r} must be {_word(dtype)} as {first!r} is, got {_word(other)}"
            )
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval()


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Read what `torch.save` wrote onto the CPU; only data is read, code in the file is never run.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or holds code; the message does not name the file.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            if zipfile.is_zipfile(file):
                # torch compresses nothing, so that an archive that unpacks to more than its size is an attack
                # on the memory. And torch does not compare checksums.
                with zipfile.ZipFile(file) as archive:
                    unpacked = sum(entry.file_size for entry in archive.infolist())
                    if unpacked > path.stat().st_size or archive.testzip() is not None:
                        raise ValueError
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception:  # a damaged file can raise anything, and torch's messages fill a page
            raise ValueError("it is damaged, or holds code, which is never run") from None


def check_tensors(path: str | os.PathLike[str], wanted: Mapping[str, Tensor], got: Mapping[str, Any]) -> None:
    """Check that tensors are those of a model.

    Names and shapes must be the same. Floating tensors must have one of `FLOATS` and be finite, and variances
    must not be negative; others must have the same dtype.

    Raises:
        ValueError: tensors that do not fit; it names file and tensor.
    """
    for names, word in ((wanted.keys() - got.keys(), "missing"), (got.keys() - wanted.keys(), "unexpected")):
        if names:
            first = min(names)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{path}: {word} tensor {first[:200]!r}{more}")
    for name, tensor in wanted.items():
        found = got[name]
        if not is_plain(found):
            raise ValueError(f"{path}: {name!r} must be an ordinary tensor, got another kind")
        if found.shape != tensor.shape:
            raise ValueError(f"{path}: tensor {name!r} must be {list(tensor.shape)}, got {list(found.shape)}")
        dtypes = FLOATS if tensor.is_floating_point() else (tensor.dtype,)
        if found.dtype not in dtypes:
            raise ValueError(f"{path}: tensor {name!r} must be {_word(dtypes[0])}, got {_word(found.dtype)}")
    if what := find_not_finite(got):
        raise ValueError(f"{path}: {what}")


def find_not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Find a tensor of a state dict that has NaN or infinity, or a variance below 0.

    Returns:
        What is wrong with the first one; empty if there is none.
    """
    floats = {
        name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()
    }
    if not floats:
        return ""
    # aminmax finds NaN too, in one pass, and one answer for all tensors makes the CPU wait for a GPU once.
    ends = [torch.stack(torch.aminmax(tensor.detach())).double() for tensor in floats.values()]
    lows, highs = torch.stack(ends).unbind(1)
    variances = torch.tensor([name.endswith("running_var") for name in floats], device=lows.device)
    negative = variances & (lows < 0)
    good = (lows.isfinite() & highs.isfinite() & ~negative).tolist()
    bad = [name for name, fine in zip(floats, good, strict=True) if not fine]
    if not bad:
        return ""
    more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
    values = floats[bad[0]]
    count = int((~values.isfinite()).sum())
    what = f"{count} of {values.numel()} values that are not finite" if count else "negative variances"
    return f"tensor {bad[0]!r}{more} has {what}"


def is_plain(value: Any) -> bool:
    """Whether a value is an ordinary tensor: not sparse, nested, quantized or on the meta device."""
    return (
        type(value) in (Tensor, nn.Parameter)
        and value.layout is torch.strided
        and not (value.is_nested or value.is_quantized or value.is_meta)
    )


def _halved(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the large parameters in float16."""
    halved = {}
    for name, tensor in parameters.items():
        if tensor.dtype != torch.float32:
            raise TypeError(
                f"save_model: half is for a model in float32, got {_word(tensor.dtype)} in {name!r}"
            )
        if tensor.numel() >= MIN_HALVED_SIZE:
            halved[name] = tensor.half()
    if what := find_not_finite(halved):
        raise ValueError(f"in float16 {what}; save the model without half (--half)")
    return halved


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _class_of(config: JAANetConfig) -> type[JAANet]:
    return next(model for model, config_class in MODELS.values() if config_class is type(config))


def empty_model(config: JAANetConfig) -> JAANet:
    """Make the model of a config on the meta device, without storage.

    Raises:
        ValueError: it would have more than `MAX_WEIGHTS` weights.
    """
    with torch.device("meta"):
        model = _class_of(config)(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MAX_WEIGHTS:
        raise ValueError(
            f"{type(config).__name__}: a model of image_size {config.image_size}, width {config.width}, "
            f"hidden_size {config.resolved_hidden_size} and {len(config.aus)} AUs would have {count:.1e} "
            f"weights, wanted at most {MAX_WEIGHTS:.1e}"
        )
    return model


def _build(path: Path, text: str) -> tuple[JAANet, _About]:
    """Make the model of a metadata entry, with note and thresholds but without storage for its tensors."""
    try:
        about = _About.model_validate_json(text, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in problem["loc"])
        raise ValueError(
            f'{path}: metadata "{KEY}" must be JSON with model, config and note ({place}{problem["msg"]})'
        ) from None
    if about.model not in MODELS:
        raise ValueError(f"{path}: unknown model {about.model[:60]!r}; this version knows {sorted(MODELS)}")
    try:
        model = empty_model(MODELS[about.model][1].from_dict(about.config))
        model.note = about.note
        if about.thresholds is not None:
            model.thresholds = tuple(about.thresholds)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model, about
