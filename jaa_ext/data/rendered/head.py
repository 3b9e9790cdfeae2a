"""The model of a head, read from its file once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaa_ext import _library

FILE = Path(__file__).with_name("head.npz")


class HeadModel(NamedTuple):
    """The parts of the model that Python uses; `scripts/build_head.py`, which makes it, explains them all."""

    compiled: Any
    """The `_C.Head` that draws."""
    action_names: tuple[str, ...]
    population: NDArray[np.float32]
    """(people, identities) weights of the identities for each person, in standard deviations."""
    attributes: NDArray[np.float32]
    """(people, 5) female 0..1; age 0.5 (young) to 1 (old); shares of African, Asian and European descent."""


@cache
def head_model() -> HeadModel:
    """Read the model.

    Raises:
        RuntimeError: jaa_ext has no compiled kernels, which draw.
    """
    if not _library.DEVICES:
        raise RuntimeError("rendered faces need the compiled part of jaa_ext: install it with a C++ compiler")
    from jaa_ext import _C

    with np.load(FILE, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["actions"] = arrays["actions"] * arrays["action_scale"][:, None, None]
    for name in ("masks", "relief", "paint"):
        arrays[name] = arrays[name].astype(np.float32) / 255
    arrays = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}
    action_names = tuple(str(name) for name in arrays["action_names"])
    return HeadModel(_C.Head(arrays), action_names, arrays["population"], arrays["attributes"])
