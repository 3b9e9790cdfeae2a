"""What a JAA-Net consists of: the paper's system, its published variants and ablations.

The equations and sections named are of Shao, Liu, Cai, Ma: Deep Adaptive Attention for Joint Facial Action
Unit Detection and Face Alignment, ECCV 2018, here "the paper", and of its journal version, IJCV 2021.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from jaa_ext import facs

LARGEST_IMAGE = 4096
"""Most pixels of an image's side: a slip beyond it would ask for terabytes."""

WIDEST = 4096
"""Largest unit width c; likewise, as are its square for d, and the next."""

MOST_AUS = 1000


@dataclass(frozen=True)
class JAANetConfig:
    """What a JAA-Net consists of. The defaults are the authors' PyTorch release (`JAANetConfig.released`).

    Raises:
        ValueError: a value out of range, or two fields that contradict each other.
    """

    aus: tuple[int | facs.AURule, ...]
    """AUs in the order of the outputs: numbers, or rules of one's own."""
    image_size: int = 176
    """Side l of the input image in pixels: at least 64, a multiple of 16."""
    width: int = 8
    """Unit width c."""
    embedding: int | None = None
    """Width d between the two linear layers of alignment and of the AU head; None means 64c."""
    region: Literal["R", "HMR"] = "HMR"
    """Region learning by DRML's region layer or by the hierarchical and multi-scale one (section 3.1)."""
    au_detection: bool = True
    """Whether AUs are detected; without, alignment is left."""
    alignment: bool = True
    """Whether landmarks are predicted, their features entering the AU head (FA)."""
    global_features: bool = True
    """Whether features of the whole face enter the AU head (GF)."""
    attention: bool = True
    """Whether local features of each AU enter the AU head (LF)."""
    refinement: bool = True
    """Whether attention maps are refined (AR); without, the target maps are used as they are."""
    local_loss: bool = False
    """Journal version: each AU is also predicted from its local features alone, and they learn from that
    only: they enter the AU head detached."""
    assemble: Literal["sum", "mean"] = "mean"
    """How the local features of the AUs are joined: summed (paper) or averaged (PyTorch releases)."""
    padding_removal: bool = False
    """Whether the local branch gets its features and maps zoomed and cropped (paper, section 3.3)."""
    target_maps: Literal["drawn", "resized"] = "resized"
    """The maps of side l/4: drawn at that side (paper), or the larger ones resized by nearest neighbour."""
    roi_ratio: float = 0.14
    """zeta of Eq. 3, in (0, 1]."""
    decay: float = 0.56
    """xi of Eq. 3, at least 0; 0 gives uniform maps (UA)."""
    gradient_enhancement: float = 2.0
    """lambda_3 of Eq. 5, at least 1; 1 leaves it out (w/o BE)."""
    intensity: bool = False
    """Whether the intensity of each AU is predicted beside its presence (not in the papers): from what enters
    the AU head and, with a local loss, from the AU's local features too."""
    average_heads: bool = False
    """Whether, outside training, an AU's logits are the mean of the AU head's and of its local features' own
    (not in the papers)."""
    mirror: bool = False
    """Whether, outside training, a face's outputs are the mean over it and its mirror image, but for the maps
    (not in the papers): twice the work."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "aus", tuple(self.aus))
        self._check_values()
        self._check_combinations()

    @classmethod
    def paper(cls, aus: Sequence[int | facs.AURule], **changes: Any) -> JAANetConfig:
        """The text of the paper: local features summed, padding removal, drawn target maps, exact Eq. 5."""
        preset: dict[str, Any] = {"assemble": "sum", "padding_removal": True, "target_maps": "drawn"}
        return cls(**{"aus": tuple(aus), **preset, **changes})

    @classmethod
    def released(cls, aus: Sequence[int | facs.AURule], **changes: Any) -> JAANetConfig:
        """The authors' PyTorch release: averaged, no padding removal, resized target maps. Eq. 5 is exact
        where they train the refinement at lambda_3 times the rate and divide the weight of E_r by it."""
        return cls(**{"aus": tuple(aus), **changes})

    @classmethod
    def journal(cls, aus: Sequence[int | facs.AURule], **changes: Any) -> JAANetConfig:
        """The journal version: a local loss for each AU, no gradient enhancement, local features averaged and
        detached before the AU head. It trains without E_r."""
        return cls(**{"aus": tuple(aus), "local_loss": True, "gradient_enhancement": 1.0, **changes})

    @property
    def embedding_size(self) -> int:
        """d: `embedding`, or 64c."""
        return 64 * self.width if self.embedding is None else self.embedding

    @property
    def map_size(self) -> int:
        """l/4, side of the shared features and of the target and refined maps."""
        return self.image_size // 4

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types; `from_dict` reads them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "aus": [asdict(au) if isinstance(au, facs.AURule) else au for au in self.aus]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JAANetConfig:
        """A config from the fields that `to_dict` gave; fields left out take their defaults.

        Raises:
            ValueError: an unknown field, no aus, or values that do not fit or are of another type.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"JAANetConfig: unknown field {unknown[0][:60]!r}")
        if "aus" not in values:
            raise ValueError("JAANetConfig: field 'aus' is missing")
        try:
            return TypeAdapter(cls).validate_json(json.dumps(dict(values)), strict=True)
        except ValidationError as error:
            # An AU is a number or a rule: what is wrong inside of the rule tells most.
            problem = max(
                error.errors(include_url=False), key=lambda p: (p["type"] == "value_error", len(p["loc"]))
            )
            if problem["type"] == "value_error":
                raise ValueError(str(problem["ctx"]["error"])) from None
            place = ".".join(str(part) for part in problem["loc"])
            raise ValueError(
                f"JAANetConfig: {place}: {problem['msg']}, got {str(problem['input'])[:60]}"
            ) from None

    def _check_values(self) -> None:
        if len(self.aus) > MOST_AUS:
            raise ValueError(f"JAANetConfig: aus must be at most {MOST_AUS}, got {len(self.aus)}")
        for au in self.aus:
            if not isinstance(au, int | facs.AURule):
                raise ValueError(f"JAANetConfig: aus must be AU numbers or facs.AURule, got {au!r}")
        numbers = [facs.au_number(au) for au in self.aus]
        for number in numbers:
            if number is not None and numbers.count(number) > 1:
                raise ValueError(f"JAANetConfig: aus has AU {number} more than once")
        if self.image_size < 64 or self.image_size % 16:
            raise ValueError(
                f"JAANetConfig: image_size must be a multiple of 16 and at least 64, got {self.image_size}"
            )
        for name, value, choices in (
            ("region", self.region, ("R", "HMR")),
            ("assemble", self.assemble, ("sum", "mean")),
            ("target_maps", self.target_maps, ("drawn", "resized")),
        ):
            if value not in choices:
                raise ValueError(
                    f'JAANetConfig: {name} must be "{choices[0]}" or "{choices[1]}", got "{value}"'
                )
        for name, valid, wanted in (
            ("image_size", self.image_size <= LARGEST_IMAGE, f"at most {LARGEST_IMAGE}"),
            ("width", self.width >= 1, "at least 1"),
            ("width", self.width <= WIDEST, f"at most {WIDEST}"),
            ("embedding", self.embedding_size >= 1, "at least 1"),
            ("embedding", self.embedding_size <= WIDEST**2, f"at most {WIDEST**2}"),
            ("roi_ratio", 0 < self.roi_ratio <= 1, "in (0, 1]"),
            ("decay", self.decay >= 0, "at least 0"),
            ("decay", self.decay < math.inf, "finite"),
            ("gradient_enhancement", self.gradient_enhancement >= 1, "at least 1"),
            ("gradient_enhancement", self.gradient_enhancement < math.inf, "finite"),
        ):
            if not valid:
                raise ValueError(f"JAANetConfig: {name} must be {wanted}, got {getattr(self, name)}")

    def _check_combinations(self) -> None:
        def refuse(text: str) -> None:
            raise ValueError(f"JAANetConfig: {text}")

        if not self.au_detection and not self.alignment:
            refuse("au_detection=False and alignment=False leave nothing to detect")
        for name in ("global_features", "attention", "intensity"):
            if not self.au_detection and getattr(self, name):
                refuse(f"au_detection=False leaves no use for {name}=True")
        for name, other in (
            ("attention", "alignment"),
            ("refinement", "attention"),
            ("local_loss", "attention"),
            ("padding_removal", "attention"),
            ("average_heads", "local_loss"),
        ):
            if getattr(self, name) and not getattr(self, other):
                refuse(f"{name}=True needs {other}=True")
        if self.au_detection and not self.alignment and not self.global_features:
            refuse("au_detection=True needs features: alignment=True or global_features=True")
        if self.au_detection and not self.aus:
            refuse("au_detection=True needs aus, got none")
        if self.padding_removal and self.target_maps != "drawn":
            refuse(f'padding_removal=True needs target_maps="drawn", got "{self.target_maps}"')
        if self.gradient_enhancement != 1 and not self.refinement:
            refuse(f"gradient_enhancement={self.gradient_enhancement:g} needs refinement=True")
        if self.attention:
            facs.rules(self.aus)
