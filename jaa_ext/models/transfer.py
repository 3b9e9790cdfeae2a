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
"""Modules that fit exactly the AUs they were trained for, or, but for the graph, sides of these."""
ROWS = (*BRANCHES, "attention.local_head.", "attention.local_intensity.", "au_head.1.", INTENSITY)
"""Tensors that hold a row or several for each AU."""


class Transfer(NamedTuple):
    """What `transfer_weights` took over and what it left.

    Example:
        >>> str(Transfer(branches=((1, 1), (14, 12)), fresh=("au_head",)))
        'with AU 14 from AU 12; fresh: au_head'
    """

    branches: tuple[tuple[facs.AU | facs.AURule, facs.AU | facs.AURule | None], ...]
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

    An AU of one side takes the branch of the same AU of both sides if the other model lacks the side. If all
    AUs have their own or that one, heads are copied too, AU by AU: both sides then differ in their centres
    alone. The AU head is not where local features are summed (`local_pooling` "sum") and the models have
    different numbers of AUs, since the sum is another with more of them.

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
                f"{field.removeprefix('resolved_')} must be alike, the model has {want}, the other {got}"
            )
    aus, others = model.config.aus, source.config.aus
    places: tuple[int | None, ...] = (None,) * len(aus)
    same = list(map(_identity, aus)) == list(map(_identity, others))
    sides = not same and "graph" not in _children(model) and _are_sides(aus, others)
    if sides or (model.config.attention and source.config.attention):
        places = branch_places(aus, others)
    tensors, theirs = model.state_dict(), source.state_dict()

    def fits(module: str) -> bool:
        return (same or sides) and all(
            key in theirs and (theirs[key].shape == tensor.shape or (sides and key.startswith(ROWS)))
            for key, tensor in tensors.items()
            if key.startswith(module) and not key.startswith(INTENSITY)
        )

    left_out = tuple(module for module in SAME_AUS_ONLY if not fits(module))
    if "graph." in left_out or _children(model) != _children(source):
        left_out = (*left_out, "au_head.")  # its shape may fit by chance
    if model.config.attention and model.config.local_pooling == "sum" and len(aus) != len(others):
        left_out = (*left_out, "au_head.")  # the sum over twice as many AUs is twice as large
    fresh = []
    for key, tensor in tensors.items():
        taken = key in theirs and not key.startswith(left_out)
        if taken and key.startswith(ROWS if sides else BRANCHES):
            # The AU head has all AUs' rows for "absent", then all AUs' rows for "present".
            blocks = 2 if key.startswith("au_head.1.") else 1
            _copy_branches(tensor, theirs[key], places, source.config, blocks)
            taken = None not in places
        elif taken:
            tensor.copy_(theirs[key])
        if not taken:
            parts = key.split(".")
            fresh.append(".".join(parts[: 2 if key.startswith(("attention.", INTENSITY)) else 1]))
    sources = (None if i is None or not source.config.attention else others[i] for i in places)
    branches = tuple(zip(aus, sources, strict=True)) if model.config.attention else ()
    return Transfer(branches, tuple(dict.fromkeys(fresh)))


def branch_places(
    aus: Sequence[facs.AU | facs.AURule], source: Sequence[facs.AU | facs.AURule]
) -> tuple[int | None, ...]:
    """Find for each AU the index in `source` of the same AU, or else of the first one with the same centres.

    AUs are the same if their numbers and sides are; rules without a number, if they are equal. For an AU of
    one side that is not there, the same AU of both sides comes before those with the same centres.
    """
    identities = list(map(_identity, source))

    def centres(au: facs.AU | facs.AURule) -> tuple[tuple[int, int], float]:
        (rule,) = facs.rules([au])
        return rule.points, rule.dy

    def place(au: facs.AU | facs.AURule) -> int | None:
        for identity in (_identity(au), _of_both_sides(au)):
            if identity in identities:
                return identities.index(identity)
        return next((i for i, other in enumerate(source) if centres(other) == centres(au)), None)

    return tuple(map(place, aus))


def _copy_branches(
    tensor: Tensor, source: Tensor, places: Sequence[int | None], config: JAANetConfig, blocks: int
) -> None:
    if tensor.dim() == 0:  # the number of batches seen, one for all branches
        tensor.copy_(source)
        return
    for mine, other in zip(tensor.chunk(blocks), source.chunk(blocks), strict=True):
        theirs = other.chunk(len(config.aus))
        for rows, place in zip(mine.chunk(len(places)), places, strict=True):
            if place is not None:
                rows.copy_(theirs[place])


def _identity(au: facs.AU | facs.AURule) -> facs.AU | facs.AURule:
    number = facs.au_number(au)
    return au if number is None else number


def _of_both_sides(au: facs.AU | facs.AURule) -> facs.AU | facs.AURule:
    number = facs.au_number(au)
    return au if number is None else facs.split_au(number)[0]


def _are_sides(aus: Sequence[facs.AU | facs.AURule], others: Sequence[facs.AU | facs.AURule]) -> bool:
    """Whether each AU is among the others, or its AU of both sides is, and a side is among these."""
    known = set(map(_identity, others))
    taken = [_identity(au) if _identity(au) in known else _of_both_sides(au) for au in aus]
    return set(taken) <= known and taken != list(map(_identity, aus))


def _children(model: JAANet) -> set[str]:
    return {name for name, _ in model.named_children()}


def _name(au: facs.AU | facs.AURule | None) -> str:
    return f"AU {au}" if isinstance(au, facs.AU) else str(au)
