"""Import of the weights that JAA-Net's authors published, from their checkpoints into our models.

Their PyTorch programs (ECCV 2018 and IJCV 2021) save one state dict for each module and epoch,
``<module>_<epoch>.pth``, with a layer for each cell of a grid and a branch for each AU; ours keep all cells,
and all AUs, in one tensor. c is the unit width, d the hidden size, l the side of the input image.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from jaa_ext import facs
from jaa_ext.models.config import JAANetConfig
from jaa_ext.models.jaanet import JAANet
from jaa_ext.models.serialization import check_tensors, empty_model, find_not_finite, is_plain, read_pickle

MODULES = (
    "region_learning",
    "align_net",
    "local_attention_refine",
    "local_au_net",
    "global_au_feat",
    "au_net",
)
"""The files of an epoch."""

PUBLISHED_AUS = {len(aus): aus for aus in (facs.DISFA_AUS, facs.GFT_AUS, facs.BP4D_AUS)}
"""The AUs in the order of the outputs, by how many there are, since the files do not name them."""


def import_weights(folder: str | os.PathLike[str], epoch: int | None = None) -> JAANet:
    """Read an epoch of the authors' checkpoints, of the ECCV or the IJCV version.

    The version, c and d follow from the tensors. They give l only up to 16 pixels, and the published one of
    two sizes is taken: 176 where the last features are 5 wide, 112 where they are 3. 8 AUs are taken as those
    of DISFA, 10 as GFT's and 12 as BP4D's. Only tensors are read: code in a file is never run.

    Args:
        folder: the folder of the files ``<module>_<epoch>.pth``.
        epoch: the epoch to read; None for the only one there.

    Returns:
        The model in eval mode, with the configuration `JAANetConfig.released` or `JAANetConfig.journal`. Its
        ``note`` says whose weights these are, and that they are for non-commercial use.

    Raises:
        FileNotFoundError: no such folder, or a file of the epoch is missing.
        ValueError: no epoch is given and there is not exactly one, a file that is no state dict, a tensor
            that is missing, unexpected, misshapen, of another dtype or not finite, another number of AUs.

    Example:
        >>> model = import_weights("checkpoints/JAA-Net", epoch=8)  # doctest: +SKIP
    """
    folder = Path(folder)
    if epoch is None:
        epochs = find_epochs(folder)
        if len(epochs) != 1:
            raise ValueError(
                f"{folder}: wanted the epoch to import, or exactly one there, got epochs "
                f"{', '.join(map(str, epochs)) or 'none'}"
            )
        (epoch,) = epochs
    paths = {module: folder / f"{module}_{epoch}.pth" for module in MODULES}
    for path in paths.values():
        if not path.is_file():
            found = ", ".join(map(str, find_epochs(folder))) or "none"
            raise FileNotFoundError(f"no such file: {path} (epochs of which all files are there: {found})")
    states = {module: _read(path) for module, path in paths.items()}
    config = _config(paths, states)
    try:
        model = empty_model(config)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    targets = model.state_dict()
    sources = {name: _source(name, tensor, len(config.aus)) for name, tensor in targets.items()}
    for module, path in paths.items():
        own = [source for source in sources.values() if source.module == module]
        check_tensors(path, {name: source.like for source in own for name in source.names}, states[module])
    tensors = {
        name: _join([states[source.module][part] for part in source.names], targets[name])
        for name, source in sources.items()
    }
    if what := find_not_finite(tensors):  # a double can exceed what a float holds
        raise ValueError(f"{folder}: {what}")
    model.load_state_dict(tensors, assign=True)
    model.note = (
        f"weights of the authors of JAA-Net, imported from {folder.resolve().name} epoch {epoch}, "
        "for non-commercial use"
    )
    return model.eval()


def find_epochs(folder: str | os.PathLike[str]) -> list[int]:
    """List the epochs, in order, of which a folder has every file.

    Raises:
        FileNotFoundError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    names = [path.name for path in folder.iterdir()]
    epochs = (
        {int(match[1]) for name in names if (match := re.fullmatch(rf"{module}_(0|[1-9]\d*)\.pth", name))}
        for module in MODULES
    )
    return sorted(set.intersection(*epochs))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = read_pickle(path)
    except ValueError as error:
        raise ValueError(f"{path}: not a checkpoint of tensors alone: {error}") from None
    if not isinstance(state, Mapping):
        raise ValueError(f"{path}: must hold a state dict (names and tensors), got {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not is_plain(tensor):
            raise ValueError(
                f"{path}: entry {str(name)[:60]!r} must be a tensor, got {type(tensor).__name__}"
            )
    parallel = all(name.startswith("module.") for name in state)  # as nn.DataParallel names them
    return {
        name.removeprefix("module.") if parallel else name: tensor.detach() for name, tensor in state.items()
    }


class _Size(NamedTuple):
    """A tensor from which a size follows: one of its dimensions is a multiple of it."""

    module: str
    name: str
    dim: int
    multiple: int


def _config(paths: Mapping[str, Path], states: Mapping[str, Mapping[str, Tensor]]) -> JAANetConfig:
    def candidates(*sizes: _Size) -> list[int]:
        shapes = [states[size.module].get(size.name, torch.empty(0)).shape for size in sizes]
        return [
            shape[size.dim] // size.multiple
            for size, shape in zip(sizes, shapes, strict=True)
            if len(shape) > size.dim and shape[size.dim] and shape[size.dim] % size.multiple == 0
        ]

    def majority(values: list[int], module: str, name: str) -> int:
        # Not the first one: the error is to name the tensor that does not fit the others.
        if not values:
            raise ValueError(f"{paths[module]}: tensor {name!r} is missing or is none of JAA-Net")
        return Counter(values).most_common(1)[0][0]

    c = majority(
        candidates(
            _Size("region_learning", "multiscale_feat.0.bn.weight", 0, 4),
            _Size("align_net", "align_feat.feat_extract.1.weight", 0, 12),
            _Size("global_au_feat", "feat_extract.1.weight", 0, 12),
        ),
        "region_learning",
        "multiscale_feat.0.bn.weight",
    )
    hidden_size = majority(
        candidates(
            _Size("align_net", "align_output.0.bias", 0, 1),
            _Size("align_net", "align_output.1.weight", 1, 1),
            _Size("au_net", "au_output.0.bias", 0, 1),
        ),
        "align_net",
        "align_output.0.bias",
    )
    areas = candidates(
        _Size("align_net", "align_output.0.weight", 1, 20 * c),
        _Size("au_net", "au_output.0.weight", 1, 60 * c),
    )
    squares = [area for area in areas if math.isqrt(area) ** 2 == area]
    side = math.isqrt(majority(squares, "align_net", "align_output.0.weight"))
    branches = {name.split(".")[1] for name in states["local_attention_refine"] if name.count(".") > 1}
    outputs = candidates(
        _Size("au_net", "au_output.1.bias", 0, 2), _Size("au_net", "au_output.1.weight", 0, 2)
    )
    num_aus = majority([*outputs, len(branches)], "au_net", "au_output.1.bias")
    if num_aus not in PUBLISHED_AUS:
        raise ValueError(
            f"{paths['au_net']}: tensor 'au_output.1.bias' must be for 8, 10 or 12 AUs (DISFA, GFT, BP4D), "
            f"got {num_aus}"
        )
    journal = any(name.startswith("local_aus_output.") for name in states["local_au_net"])
    preset = JAANetConfig.journal if journal else JAANetConfig.released
    try:
        return preset(
            PUBLISHED_AUS[num_aus],
            image_size=32 * side + 16,
            width=c,
            hidden_size=None if hidden_size == 64 * c else hidden_size,
        )
    except ValueError as error:
        raise ValueError(f"{paths['align_net'].parent}: {error}") from None


class _Source(NamedTuple):
    """Where the parts of one of our tensors lie in the authors' files."""

    module: str
    names: list[str]
    like: Tensor
    """A tensor shaped like each of the parts."""


def _source(name: str, target: Tensor, num_aus: int) -> _Source:
    places = {
        "alignment.features.": ("align_net", "align_feat.feat_extract.", 1),
        "alignment.embedding.": ("align_net", "align_output.0.", 1),
        "alignment.landmarks.": ("align_net", "align_output.1.", 1),
        "attention.refinement.": ("local_attention_refine", "local_aus_attention.{}.", num_aus),
        "attention.local_features.stack.": ("local_au_net", "local_aus_branch.{}.feat_extract.", num_aus),
        "attention.local_head.": ("local_au_net", "local_aus_output.{}.", num_aus),
        "global_features.": ("global_au_feat", "feat_extract.", 1),
        "au_head.": ("au_net", "au_output.", 1),
    }
    for block in ("0", "2"):
        ours, theirs = f"region_learning.{block}.", f"multiscale_feat.{block}."
        for layer in ("conv.", "bn."):
            places[ours + layer] = ("region_learning", theirs + layer, 1)
        for branch, grid in enumerate((8, 4, 2), 1):
            cells = f"{theirs}local_conv_branch{branch}."
            places[f"{ours}region{grid}.0."] = ("region_learning", cells + "bns.{}.", grid * grid)
            places[f"{ours}region{grid}.2."] = ("region_learning", cells + "convs.{}.", grid * grid)

    prefix = next(prefix for prefix in places if name.startswith(prefix))
    module, place, count = places[prefix]
    names = [place.format(i) + name.removeprefix(prefix) for i in range(count)]
    if count == 1 or target.dim() == 0:
        return _Source(module, names, target)
    if module == "region_learning":
        return _Source(module, names, target[0, 0])
    part = target.chunk(count)[0]
    # Ours is a convolution of one point where theirs is a linear layer for each AU.
    return _Source(module, names, part.squeeze(2) if part.dim() == 3 else part)


def _join(parts: list[Tensor], target: Tensor) -> Tensor:
    """Put parts one after the other: cells, row by row, and AUs are the leading dimensions of our tensors."""
    if target.dim() == 0:  # a count of batches, which all cells or AUs share in ours
        return torch.stack(parts).max()
    return torch.cat([part.flatten() for part in parts]).view(target.shape).to(target.dtype)
