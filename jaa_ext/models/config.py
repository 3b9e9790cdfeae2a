"""The configuration of a JAA-Net: the paper's system, its published variants and ablations.

Equations and sections are those of Shao, Liu, Cai, Ma: Deep Adaptive Attention for Joint Facial Action
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

# Bounds against typing errors: a model beyond them would ask for terabytes.
MAX_IMAGE_SIZE = 4096
MAX_WIDTH = 4096
MAX_HIDDEN_SIZE = MAX_WIDTH**2
MAX_AUS = 1000

FORMER_NAMES = {
    "assemble": "local_pooling",
    "embedding": "hidden_size",
    "neighbours": "neighbor_share",
}
"""Fields by the names that they have in files of earlier versions."""


@dataclass(frozen=True)
class JAANetConfig:
    """What a JAA-Net consists of. The defaults are the authors' PyTorch release (`JAANetConfig.released`).

    Raises:
        ValueError: a value out of range, or two fields that contradict each other.

    Example:
        >>> config = JAANetConfig.paper(facs.BP4D_AUS, width=4)
        >>> config.local_pooling, config.map_size
        ('sum', 44)
    """

    aus: tuple[facs.AU | facs.AURule, ...]
    """AUs in the order of the outputs: numbers, with a side if need be ("12L"), or rules of one's own."""
    image_size: int = 176
    """Side l of the input image in pixels: at least 64, a multiple of 16."""
    width: int = 8
    """Unit width c."""
    hidden_size: int | None = None
    """Features d between the two linear layers of alignment, and of the AU head; None means 64c."""
    region: Literal["R", "HMR"] = "HMR"
    """The region layer: DRML's, or the hierarchical and multi-scale one (section 3.1)."""
    au_detection: bool = True
    """Whether AUs are detected; otherwise the model only finds landmarks."""
    alignment: bool = True
    """Whether landmarks are predicted; their features then enter the AU head (FA)."""
    global_features: bool = True
    """Whether features of the whole face enter the AU head (GF)."""
    attention: bool = True
    """Whether local features of each AU enter the AU head (LF)."""
    refinement: bool = True
    """Whether attention maps are refined (AR); otherwise the target maps are used as they are."""
    local_loss: bool = False
    """Whether each AU is also predicted from its local features alone (journal version). These learn from
    that prediction only, since they enter the AU head detached."""
    local_pooling: Literal["sum", "mean"] = "mean"
    """How the local features of all AUs become one: summed (paper) or averaged (PyTorch releases)."""
    padding_removal: bool = False
    """Whether the local branch gets its features and maps zoomed and cropped (paper, section 3.3)."""
    target_maps: Literal["drawn", "resized"] = "resized"
    """The maps of side l/4: drawn at that size (paper), or the initial ones resized by nearest neighbour."""
    roi_ratio: float = 0.14
    """zeta of Eq. 3, in (0, 1]."""
    decay: float = 0.56
    """xi of Eq. 3, at least 0; 0 gives uniform maps (UA)."""
    gradient_enhancement: float = 2.0
    """lambda_3 of Eq. 5, at least 1; 1 leaves the enhancement out (w/o BE)."""
    intensity: bool = False
    """Whether the intensity of each AU is predicted too (not in the papers): from the features that enter the
    AU head and, with a local loss, from the AU's local features."""
    average_heads: bool = False
    """Whether, outside training, an AU's logits are the mean of the AU head's and of its local features' (not
    in the papers)."""
    mirror: bool = False
    """Whether, outside training, the outputs but for the maps are the mean over a face and its mirror image
    (not in the papers), at twice the work."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "aus", tuple(self.aus))
        self._check_values()
        self._check_combinations()

    @classmethod
    def paper(cls, aus: Sequence[facs.AU | facs.AURule], **changes: Any) -> JAANetConfig:
        """The text of the paper: local features summed, padding removal, drawn target maps, exact Eq. 5."""
        preset: dict[str, Any] = {"local_pooling": "sum", "padding_removal": True, "target_maps": "drawn"}
        return cls(**{"aus": tuple(aus), **preset, **changes})

    @classmethod
    def released(cls, aus: Sequence[facs.AU | facs.AURule], **changes: Any) -> JAANetConfig:
        """The authors' PyTorch release: local features averaged, no padding removal, resized target maps.

        Eq. 5 is exact here; they train the refinement at lambda_3 times the learning rate instead, and divide
        the weight of E_r by lambda_3.
        """
        return cls(**{"aus": tuple(aus), **changes})

    @classmethod
    def journal(cls, aus: Sequence[facs.AU | facs.AURule], **changes: Any) -> JAANetConfig:
        """The journal version: a local loss for each AU, no gradient enhancement, local features averaged.

        The local features enter the AU head detached, and training has no E_r.
        """
        return cls(**{"aus": tuple(aus), "local_loss": True, "gradient_enhancement": 1.0, **changes})

    @property
    def resolved_hidden_size(self) -> int:
        """Features d: `hidden_size`, or 64c where that is None."""
        return 64 * self.width if self.hidden_size is None else self.hidden_size

    @property
    def map_size(self) -> int:
        """Side l/4 of the shared features and of the target and refined maps."""
        return self.image_size // 4

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; `from_dict` reads them back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "aus": [asdict(au) if isinstance(au, facs.AURule) else au for au in self.aus]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JAANetConfig:
        """Make a config of what `to_dict` gave, now or in an earlier version (`FORMER_NAMES`).

        Fields left out take their defaults.

        Raises:
            ValueError: an unknown field, no aus, or values that do not fit or are of another type.
        """
        known = {field.name for field in fields(cls)}
        renamed = {old: new for old, new in FORMER_NAMES.items() if new in known and new not in values}
        values = {renamed.get(name, name): value for name, value in values.items()}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"JAANetConfig: unknown field {unknown[0][:60]!r}")
        if "aus" not in values:
            raise ValueError("JAANetConfig: field 'aus' is missing")
        try:
            return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            # An AU is a number or a rule, and pydantic reports both: what is wrong in the rule tells most.
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
        if len(self.aus) > MAX_AUS:
            raise ValueError(f"JAANetConfig: aus must be at most {MAX_AUS}, got {len(self.aus)}")
        for au in self.aus:
            one_sided = isinstance(au, str) and facs.ONE_SIDED.fullmatch(au)
            if not one_sided and not isinstance(au, int | facs.AURule):
                raise ValueError(
                    f'JAANetConfig: aus must be AU numbers, "12L" for one side, or facs.AURule, got {au!r}'
                )
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
            ("local_pooling", self.local_pooling, ("sum", "mean")),
            ("target_maps", self.target_maps, ("drawn", "resized")),
        ):
            if value not in choices:
                raise ValueError(
                    f'JAANetConfig: {name} must be "{choices[0]}" or "{choices[1]}", got "{value}"'
                )
        for name, valid, wanted in (
            ("image_size", self.image_size <= MAX_IMAGE_SIZE, f"at most {MAX_IMAGE_SIZE}"),
            ("width", self.width >= 1, "at least 1"),
            ("width", self.width <= MAX_WIDTH, f"at most {MAX_WIDTH}"),
            ("hidden_size", self.resolved_hidden_size >= 1, "at least 1"),
            ("hidden_size", self.resolved_hidden_size <= MAX_HIDDEN_SIZE, f"at most {MAX_HIDDEN_SIZE}"),
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
        if self.mirror and None in (places := facs.mirror_places(self.aus)):
            refuse(
                f"mirror=True needs both sides of an AU, got {facs.au_number(self.aus[places.index(None)])} "
                "alone"
            )
        if self.attention:
            facs.rules(self.aus)
