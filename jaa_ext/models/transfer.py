"""Transfer of weights from one model to another, to start training from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jaa_ext import facs
from jaa_ext.models.config import JAANetConfig
from jaa_ext.models.jaanet import JAANet

INTENSITY = "au_head.intensity."
"""A part of the AU head that only one of two models may have; the rest of the head is taken all the same."""
BRANCHES = ("attention.refinement.", "attention.local_features.")
"""Modules with a branch for each AU, whose tensors hold the AUs' rows one after the other."""
SAME_AUS_ONLY = ("attention.local_head.", "attention.local_intensity.", "au_head.", "graph.")
"""Modules that fit exactly the AUs they were trained for."""


class Transfer(NamedTuple):
    """What `transfer_weights` took over and what it left.

    Example:
        >>> str(Transfer(branches=((1, 1), (14, 12)), fresh=("au_head",)))
        'with AU 14 from AU 12; fresh: au_head'
    """

    branches: tuple[tuple[int | facs.AURule, int | facs.AURule | None], ...]
    """Each AU of the model with the AU of the other model whose branch it took, or None."""
    fresh: tuple[str, ...]
    """Modules that kept their weights, wholly or in part."""

    def __str__(self) -> str:
        taken = ", ".join(
            f"{_name(au)} from {_name(source)}" for au, source in self.branches if source not in (None, au)
        )
        return f"{'with ' + taken + '; ' if taken else ''}fresh: {', '.join(self.fresh) or 'nothing'}"


@torch.no_grad()
def transfer_weights(model: JAANet, source: JAANet) -> Transfer:
    """Copy weights from one model to another, such as from one for BP4D to one for DISFA (ECCV 2018, 4.1).

    Region learning, alignment and global features are copied whole. An AU takes its refinement and local
    features from the same AU, or else from the first one with the same centres, or else keeps its own. The AU
    head, the local heads of the journal version and the graph are copied only where both models have the same
    AUs and the same module; the AU head only if the same features enter it, too. Its intensities stay fresh
    where the other model has none.

    Args:
        model: the one that is changed.
        source: the one that the weights come from.

    Returns:
        What was copied.

    Raises:
        ValueError: models of different sizes or region layers.

    Example:
        >>> source = JAANet(JAANetConfig.released(facs.BP4D_AUS, image_size=64, width=1))
        >>> model = JAANet(JAANetConfig.released((1, 12, 25), image_size=64, width=1))
        >>> print(transfer_weights(model, source))
        with AU 25 from AU 23; fresh: au_head
    """
    for field in ("image_size", "width", "region", "resolved_hidden_size"):
        want, got = getattr(model.config, field), getattr(source.config, field)
        if want != got:
            raise ValueError(
                f"transfer_weights: {field.removeprefix('resolved_')} must be alike, "
                f"the model has {want}, the other {got}"
            )
    aus, others = model.config.aus, source.config.aus
    places: tuple[int | None, ...] = (None,) * len(aus)
    if model.config.attention and source.config.attention:
        places = branch_places(aus, others)
    tensors, theirs = model.state_dict(), source.state_dict()

    def fits(module: str) -> bool:
        return list(map(_identity, aus)) == list(map(_identity, others)) and all(
            key in theirs and theirs[key].shape == tensor.shape
            for key, tensor in tensors.items()
            if key.startswith(module) and not key.startswith(INTENSITY)
        )

    left_out = tuple(module for module in SAME_AUS_ONLY if not fits(module))
    if "graph." in left_out or _children(model) != _children(source):
        left_out = (*left_out, "au_head.")  # its shape may fit by chance
    fresh = []
    for key, tensor in tensors.items():
        taken = key in theirs and not key.startswith(left_out)
        if taken and key.startswith(BRANCHES):
            _copy_branches(tensor, theirs[key], places, source.config)
            taken = None not in places
        elif taken:
            tensor.copy_(theirs[key])
        if not taken:
            parts = key.split(".")
            fresh.append(".".join(parts[: 2 if key.startswith(("attention.", INTENSITY)) else 1]))
    sources = (None if i is None else others[i] for i in places)
    branches = tuple(zip(aus, sources, strict=True)) if model.config.attention else ()
    return Transfer(branches, tuple(dict.fromkeys(fresh)))


def branch_places(
    aus: Sequence[int | facs.AURule], source: Sequence[int | facs.AURule]
) -> tuple[int | None, ...]:
    """Find for each AU the index in `source` of the same AU, or else of the first one with the same centres.

    AUs are the same if their numbers are; rules without a number, if they are equal.
    """
    identities = list(map(_identity, source))

    def centres(au: int | facs.AURule) -> tuple[tuple[int, int], float]:
        (rule,) = facs.rules([au])
        return rule.points, rule.dy

    def place(au: int | facs.AURule) -> int | None:
        if _identity(au) in identities:
            return identities.index(_identity(au))
        return next((i for i, other in enumerate(source) if centres(other) == centres(au)), None)

    return tuple(map(place, aus))


def _copy_branches(
    tensor: Tensor, source: Tensor, places: Sequence[int | None], config: JAANetConfig
) -> None:
    if tensor.dim() == 0:  # the number of batches seen, one for all branches
        tensor.copy_(source)
        return
    theirs = source.chunk(len(config.aus))
    for rows, place in zip(tensor.chunk(len(places)), places, strict=True):
        if place is not None:
            rows.copy_(theirs[place])


def _identity(au: int | facs.AURule) -> int | facs.AURule:
    number = facs.au_number(au)
    return au if number is None else number


def _children(model: JAANet) -> set[str]:
    return {name for name, _ in model.named_children()}


def _name(au: int | facs.AURule | None) -> str:
    return f"AU {au}" if isinstance(au, int) else str(au)
