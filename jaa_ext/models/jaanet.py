"""JAA-Net: joint AU detection and face alignment with adaptive attention.

The paper is Shao, Liu, Cai, Ma: Deep Adaptive Attention for Joint Facial Action Unit Detection and Face
Alignment, ECCV 2018; its journal version is in IJCV, 2021. N is the batch, A the number of AUs, l the side of
the input image, c the unit width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaa_ext import facs
from jaa_ext.models.config import JAANetConfig
from jaa_ext.models.thresholds import THRESHOLD, check_thresholds
from jaa_ext.nn import (
    AttentionRefinement,
    FeatureStack,
    GroupedSequential,
    HierarchicalMultiScaleRegion,
    LocalFeatures,
    RegionConv2d,
    RegionLayer,
    scale_gradient,
)
from jaa_ext.nn.region import reset_layers
from jaa_ext.ops import attention_maps
from jaa_ext.ops.reference import full_precision

HIGHEST_INTENSITY = 5.0
"""The highest intensity of FACS: 0 is absent, 1 a trace (A), 5 the most that a face can do (E)."""


@dataclass
class JAAOutput:
    """The outputs of `JAANet`; a field is None where the variant lacks the part.

    Example:
        >>> JAAOutput(logits=torch.zeros(1, 2, 3)).probabilities
        tensor([[0.5000, 0.5000, 0.5000]])
    """

    logits: Tensor | None = None
    """(N, 2, A); index 1 of the middle axis is "present"."""
    landmarks: Tensor | None = None
    """(N, 49, 2) x, y in pixels of the input image; float32 under autocast too."""
    initial_maps: Tensor | None = None
    """(N, A, l/4 + 8, l/4 + 8) attention maps drawn from the landmarks, which are refined; constants."""
    target_maps: Tensor | None = None
    """(N, A, l/4, l/4) the initial maps at the size of the refined ones; constants. E_r compares the refined
    maps with them, and the local features use them where there is no refinement."""
    refined_maps: Tensor | None = None
    """(N, A, l/4, l/4) of weights in 0..1. A gradient that enters here, that of E_r, is not enhanced."""
    intensities: Tensor | None = None
    """(N, A) of 0..5, NaN for AUs without intensities in the training set; float32 under autocast too."""
    local_logits: Tensor | None = None
    """(N, 2, A), like `logits`, from the local features of each AU alone (journal version)."""

    @property
    def probabilities(self) -> Tensor | None:
        """(N, A) probability that each AU is present, float32 or float64."""
        return None if self.logits is None else full_precision(self.logits).softmax(1)[:, 1]


# So that `torch.export` can return it.
torch.export.register_dataclass(JAAOutput, serialized_type_name="jaa_ext.models.JAAOutput")


class JAANet(nn.Module):
    """JAA-Net and its published variants.

    Shape:
        image (N, 3, l, l), floating, ``(x / 255 - 0.5) / 0.5`` -> `JAAOutput`.

    Raises:
        ValueError: in forward, an image of another shape.
        TypeError: in forward, an image that is not floating.

    Example:
        >>> model = JAANet(JAANetConfig.released(facs.BP4D_AUS))
        >>> output = model.eval()(torch.randn(2, 3, 176, 176))
        >>> output.probabilities.shape, output.landmarks.shape
        (torch.Size([2, 12]), torch.Size([2, 49, 2]))
    """

    note: str = ""
    """A remark on the weights, kept in the model's file."""

    fused: bool = False
    """Whether `fuse` made this model."""

    def __init__(
        self,
        config: JAANetConfig,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.thresholds = (THRESHOLD,) * len(config.aus)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        c, channels, side = config.width, 8 * config.width, config.map_size // 8
        block = {"R": RegionLayer, "HMR": HierarchicalMultiScaleRegion}[config.region]
        self.region_learning = nn.Sequential(
            block(3, 4 * c, **factory),
            nn.MaxPool2d(2),
            block(4 * c, channels, **factory),
            nn.MaxPool2d(2),
        )
        self.alignment = (
            Alignment(channels, c, side, config.resolved_hidden_size, **factory) if config.alignment else None
        )
        self.global_features = FeatureStack(channels, c, **factory) if config.global_features else None
        self.attention = AdaptiveAttention(config, **factory) if config.attention else None
        stacked = 20 * c * side * side
        self.au_head = (
            AUHead(
                (config.alignment + config.global_features) * stacked
                + config.attention * self._local_size(stacked),
                config.resolved_hidden_size,
                num_aus=len(config.aus),
                intensity=config.intensity,
                **factory,
            )
            if config.au_detection
            else None
        )

    def forward(self, image: Tensor) -> JAAOutput:
        self._check(image)
        if self.training:
            return self._forward(image)
        output = self._over_mirror_image(image) if self.config.mirror else self._forward(image)
        if self.config.average_heads:
            assert output.logits is not None and output.local_logits is not None
            output.logits = (output.logits + output.local_logits) / 2
        return output

    def find_landmarks(self, image: Tensor) -> Tensor:
        """Compute only the landmarks of `forward`, (N, 49, 2), at some three tenths of its work.

        Raises:
            ValueError: a model without alignment, or an image of another shape.
            TypeError: an image that is not floating.
        """
        if self.alignment is None:
            raise ValueError("find_landmarks: this model predicts no landmarks (alignment=False)")
        self._check(image)
        if self.training or not self.config.mirror:
            return self._landmarks(image)
        return self._unmirrored(self._landmarks(_with_mirrored(image)), image.shape[0])

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each AU, which is present where its probability exceeds it.

        Each is 0.5 until they are calibrated (`jaa_ext.evaluation.calibrate_thresholds`); the model's file
        keeps them.

        Raises:
            ValueError: when set, not one for each AU, or one that is not between 0 and 1.
        """
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self.config.aus))

    @torch.no_grad()
    def fuse(self) -> JAANet:
        """Make a copy for inference, in evaluation mode and channels_last, that computes the same faster.

        Batch norms, ReLU and max-pooling of the feature stacks and of the refinement are folded into the
        convolutions before them, and two linear layers with nothing between them become one. The copy can be
        neither trained nor saved. On a CPU in float32 its convolutions keep their filters transformed from
        the first image on, at four times the memory of their weights. A model in training mode is fused with
        its running statistics; of a fused one this is a plain copy.

        Example:
            >>> fused = JAANet(JAANetConfig.released((1, 12), image_size=64, width=1)).fuse()
            >>> fused(torch.randn(1, 3, 64, 64)).logits.shape
            torch.Size([1, 2, 2])
        """
        fused = copy.deepcopy(self).eval()
        if self.fused:
            return fused
        for module in fused.modules():
            if isinstance(module, GroupedSequential):
                module.fold()
        if fused.alignment is not None:
            fused.alignment.landmarks = _one_linear(fused.alignment.embedding, fused.alignment.landmarks)
            fused.alignment.embedding = nn.Identity()
        if fused.au_head is not None:
            fused.au_head.fuse()
        fused.fused = True
        return fused.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def half_precision_layers(self) -> dict[str, nn.Module]:
        """The layers that autocast runs in half precision, by name: convolutions and linear layers.

        Left out are the ones that give landmarks, which would be rounded to whole pixels, and intensities.
        """
        full: list[nn.Module | None] = [None if self.alignment is None else self.alignment.landmarks]
        if self.attention is not None:
            full.append(self.attention.local_intensity)
        if self.au_head is not None and self.au_head.intensity is not None:
            full.append(self.au_head.intensity.linear)
        kinds = (nn.Conv1d, nn.Conv2d, nn.Linear, RegionConv2d)
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, kinds) and all(module is not one for one in full)
        }

    def train(self, mode: bool = True) -> JAANet:
        if mode and self.fused:
            raise RuntimeError("JAANet: a fused model cannot be trained; train the model it was made from")
        return super().train(mode)

    def reset_parameters(self) -> None:
        """Draw fresh weights, those of a new model of the same config."""
        reset_layers(self)

    @torch.no_grad()
    def set_mean_shape(self, landmarks: Any) -> None:
        """Let training start at a mean face, which becomes the bias of the last alignment layer.

        Args:
            landmarks: (49, 2) tensor or array in pixels of the input image.

        Raises:
            ValueError: a model without alignment, or another shape.
        """
        if self.alignment is None:
            raise ValueError("set_mean_shape: this model predicts no landmarks (alignment=False)")
        landmarks = torch.as_tensor(landmarks)
        if landmarks.shape != (facs.NUM_LANDMARKS, 2):
            raise ValueError(f"set_mean_shape: landmarks must be (49, 2), got {list(landmarks.shape)}")
        self.alignment.landmarks.bias.copy_(landmarks.flatten())

    @torch.no_grad()
    def set_mean_intensity(self, intensities: Any) -> None:
        """Let training start at a mean intensity of each AU, which sets the bias of the intensities.

        Args:
            intensities: (A,) tensor or array of 0..5; NaN leaves an AU's bias as it is.

        Raises:
            ValueError: a model without intensities, or another shape.
        """
        head = self._intensity_head("set_mean_intensity")
        means = torch.as_tensor(intensities)
        if means.shape != head.rated.shape:
            raise ValueError(
                f"set_mean_intensity: intensities must be ({len(head.rated)},), got {list(means.shape)}"
            )
        # An AU that is always absent, or always at its strongest, has no finite bias.
        bias = torch.logit((means.to(head.linear.bias) / HIGHEST_INTENSITY).clamp(0.01, 0.99))
        head.linear.bias.copy_(torch.where(bias.isnan(), head.linear.bias, bias))

    @torch.no_grad()
    def set_rated(self, rated: Any) -> None:
        """Set which AUs have intensities in the training set; those of the others will be NaN.

        Args:
            rated: (A,) tensor or array of bool.

        Raises:
            ValueError: a model without intensities, or another shape.
        """
        head = self._intensity_head("set_rated")
        rated = torch.as_tensor(rated, dtype=torch.bool)
        if rated.shape != head.rated.shape:
            raise ValueError(f"set_rated: rated must be ({len(head.rated)},), got {list(rated.shape)}")
        head.rated.copy_(rated)

    def extra_repr(self) -> str:
        return repr(self.config)

    def _forward(self, image: Tensor) -> JAAOutput:
        pool2 = self.region_learning(image)
        output = JAAOutput()
        features = []
        if self.alignment is not None:
            alignment_features, output.landmarks = self.alignment(pool2)
            features.append(alignment_features)
        if self.global_features is not None:
            features.append(self.global_features(pool2))
        attended = None
        if self.attention is not None:
            attended = self.attention(pool2, output.landmarks)
            features.append(self._join(attended.local))
            output.initial_maps = attended.initial_maps
            output.target_maps = attended.target_maps
            output.refined_maps = attended.refined_maps
            output.local_logits = attended.local_logits
        if self.au_head is not None:
            joined = torch.cat([part.flatten(1) for part in features], 1)
            local = None if attended is None else attended.local_intensities
            output.logits, output.intensities = self.au_head(joined, local)
        return output

    def _join(self, local: Tensor) -> Tensor:
        """Pool the AUs' local features (N, A, 20c, side, side) for the AU head."""
        return local.sum(1) if self.config.local_pooling == "sum" else local.mean(1)

    def _local_size(self, stacked: int) -> int:
        """How many numbers `_join` gives for a face, with `stacked` local features for each AU."""
        return stacked

    def _landmarks(self, image: Tensor) -> Tensor:
        assert self.alignment is not None
        landmarks: Tensor = self.alignment(self.region_learning(image))[1]
        return landmarks

    def _over_mirror_image(self, image: Tensor) -> JAAOutput:
        """Average outputs over faces and their mirror images, but for the maps, which are the faces' own.

        The left side of the face is the right one of its mirror image.
        """
        output, count = self._forward(_with_mirrored(image)), image.shape[0]
        places = [place for place in facs.mirror_places(self.config.aus) if place is not None]
        assert len(places) == len(self.config.aus)  # the config refuses one side alone
        swapped = places != sorted(places)
        for name, value in vars(output).items():
            if value is None:
                continue
            if name == "landmarks":
                value = self._unmirrored(value, count)
            else:
                own, mirrored = value[:count], value[count:]
                if name.endswith("_maps"):
                    value = own
                else:
                    value = (own + (mirrored[..., places] if swapped else mirrored)) / 2
            setattr(output, name, value)
        return output

    def _unmirrored(self, landmarks: Tensor, count: int) -> Tensor:
        """Average (2N, 49, 2) landmarks, of faces and then of their mirror images, to (N, 49, 2)."""
        own, mirrored = landmarks[:count], landmarks[count:]
        x, y = mirrored[:, list(facs.FLIP)].unbind(2)
        return (own + torch.stack((self.config.image_size - 1 - x, y), 2)) / 2

    def _intensity_head(self, where: str) -> IntensityHead:
        if self.au_head is None or self.au_head.intensity is None:
            raise ValueError(f"{where}: this model predicts no intensities (intensity=False)")
        return self.au_head.intensity

    def _check(self, image: Tensor) -> None:
        side = self.config.image_size
        if image.dim() != 4 or image.shape[1:] != (3, side, side):
            raise ValueError(f"JAANet: image must be (N, 3, {side}, {side}), got {list(image.shape)}")
        if not image.is_floating_point():
            raise TypeError(
                f"JAANet: image must be floating, (x / 255 - 0.5) / 0.5, got {str(image.dtype)[6:]}"
            )


class Alignment(nn.Module):
    """Face alignment (paper, section 3.2): stack P and two linear layers, to d features and to the landmarks.

    Nothing lies between the linear layers.

    Shape:
        pool2 (N, in_channels, l/4, l/4) -> features (N, 20c, side, side), landmarks (N, 49, 2) in pixels.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        side: int,
        hidden_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.features = FeatureStack(in_channels, width, **factory)
        # Files name this layer "embedding".
        self.embedding: nn.Module = nn.Linear(20 * width * side * side, hidden_size, **factory)
        self.landmarks = nn.Linear(hidden_size, 2 * facs.NUM_LANDMARKS, **factory)

    def reset_parameters(self) -> None:
        reset_layers(self)

    def forward(self, pool2: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(pool2)
        hidden = self.embedding(features.flatten(1))
        # Half precision would round a landmark to a whole pixel.
        with _without_autocast(pool2):
            landmarks = self.landmarks(hidden.to(self.landmarks.weight.dtype))
        return features, landmarks.unflatten(1, (facs.NUM_LANDMARKS, 2))


class AUHead(nn.Sequential):
    """AU detection (paper, section 3.4): two linear layers, to d features and to the logits.

    Nothing lies between them. Intensities come from the same d features.

    Shape:
        (N, in_features), local (N, A) or None -> logits (N, 2, A), intensities (N, A) or None, see
        `IntensityHead`.
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        *,
        num_aus: int,
        intensity: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            nn.Linear(in_features, hidden_size, **factory),
            nn.Linear(hidden_size, 2 * num_aus, **factory),
            nn.Unflatten(1, (2, num_aus)),
        )
        self.intensity = IntensityHead(hidden_size, num_aus=num_aus, **factory) if intensity else None

    def forward(self, features: Tensor, local: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        hidden = self[0](features)
        intensities = None if self.intensity is None else self.intensity(hidden, local)
        return self[2](self[1](hidden)), intensities

    def fuse(self) -> None:
        """Fold the first layer into the others."""
        if self.intensity is not None:
            self.intensity.linear = _one_linear(self[0], self.intensity.linear)
        self[1], self[0] = _one_linear(self[0], self[1]), nn.Identity()


class IntensityHead(nn.Module):
    """Intensities of AUs: 5 times the sigmoid of a linear layer's output plus the local features' share.

    The sigmoid keeps them in 0..5, also in training, and an AU that is clearly absent, as most are, or at its
    strongest gets 0 or 5 without an exact sum.

    Shape:
        (N, d), local (N, A) or None -> (N, A) of 0..5, in full precision; NaN for an AU that is not `rated`.
    """

    rated: Tensor
    """(A,) bool: whether the training set has intensities of each AU."""

    def __init__(
        self,
        in_features: int,
        *,
        num_aus: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_aus, device=device, dtype=dtype)
        self.register_buffer("rated", torch.ones(num_aus, dtype=torch.bool, device=device))

    def reset_parameters(self) -> None:
        reset_layers(self)
        self.rated.fill_(True)

    def forward(self, hidden: Tensor, local: Tensor | None = None) -> Tensor:
        # bfloat16 would round intensities from 4 on to steps of 1/32.
        with _without_autocast(hidden):
            logit = self.linear(hidden.to(self.linear.weight.dtype))
        share = (logit if local is None else logit + local).sigmoid()
        return torch.where(self.rated, HIGHEST_INTENSITY * share, math.nan)


class Attended(NamedTuple):
    """The outputs of `AdaptiveAttention`; the maps are those of `JAAOutput`."""

    local: Tensor
    """(N, A, 20c, side, side), the local features of each AU, detached with a local loss."""
    initial_maps: Tensor
    target_maps: Tensor
    refined_maps: Tensor | None
    local_logits: Tensor | None
    local_intensities: Tensor | None
    """(N, A), what each AU's local features add to the logit of its intensity."""


class AdaptiveAttention(nn.Module):
    """Adaptive attention learning (paper, section 3.3): attention maps, their refinement, local features.

    Padding removal makes C(S(x, (m + 6) / m), m / (m + 6)) of x (N, C, m, m): a bilinear zoom S to side
    m + 6, then the crop C of its centre.

    Shape:
        pool2 (N, 8c, l/4, l/4), landmarks (N, 49, 2) -> `Attended`.
    """

    without_padding: Tensor
    enlargement: Tensor

    def __init__(
        self,
        config: JAANetConfig,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        num_aus, c, side = len(config.aus), config.width, config.map_size // 8
        if config.padding_removal:
            for name, matrix in self._matrices().items():
                self.register_buffer(name, matrix.to(**factory), persistent=False)
        self.refinement = AttentionRefinement(c, num_aus=num_aus, **factory) if config.refinement else None
        self.local_features = LocalFeatures(8 * c, c, num_aus=num_aus, **factory)
        # A grouped convolution of one point is a linear layer for each AU: 20c * side^2 -> 8c -> 2, and -> 1.
        self.local_head = (
            nn.Sequential(
                nn.Conv1d(num_aus * 20 * c * side * side, num_aus * 8 * c, 1, groups=num_aus, **factory),
                nn.Conv1d(num_aus * 8 * c, num_aus * 2, 1, groups=num_aus, **factory),
            )
            if config.local_loss
            else None
        )
        self.local_intensity = (
            nn.Conv1d(num_aus * 8 * c, num_aus, 1, groups=num_aus, bias=False, **factory)
            if config.local_loss and config.intensity
            else None
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        reset_layers(self)
        if self.config.padding_removal:
            for name, matrix in self._matrices().items():
                self.get_buffer(name).copy_(matrix)

    def forward(self, pool2: Tensor, landmarks: Tensor) -> Attended:
        config = self.config
        initial_maps, target_maps = self._draw(landmarks)
        maps, refined_maps = target_maps, None
        if self.refinement is not None:
            refined_maps = self.refinement(initial_maps)
            maps = scale_gradient(refined_maps, config.gradient_enhancement)
        if config.padding_removal:
            pool2 = _zoom(pool2, self.without_padding)
        local = self.local_features(pool2, maps)

        local_logits = local_intensities = None
        if self.local_head is not None:
            hidden = self.local_head[0](local.flatten(2).flatten(1).unsqueeze(2))
            local_logits = self.local_head[1](hidden).view(-1, len(config.aus), 2).transpose(1, 2)
            if self.local_intensity is not None:
                full = hidden.to(self.local_intensity.weight.dtype)
                with _without_autocast(full):
                    local_intensities = self.local_intensity(full).squeeze(2)
            local = local.detach()
        return Attended(local, initial_maps, target_maps, refined_maps, local_logits, local_intensities)

    def _matrices(self) -> dict[str, Tensor]:
        """The constants of padding removal, by the names of their buffers."""
        size = self.config.map_size
        return {
            "without_padding": _zoom_matrix(size, size + 6)[3:-3].clone(),
            "enlargement": _zoom_matrix(size, size + 8),
        }

    def _draw(self, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the initial maps of side l/4 + 8 and the target maps of side l/4."""
        side = self.config.map_size
        if self.config.padding_removal:
            target = _zoom(self._draw_at(landmarks, side), self.without_padding)
            return _zoom(target, self.enlargement), target
        initial = self._draw_at(landmarks, side + 8)
        if self.config.target_maps == "drawn":
            return initial, self._draw_at(landmarks, side)
        return initial, F.interpolate(initial, size=(side, side), mode="nearest")

    def _draw_at(self, landmarks: Tensor, map_size: int) -> Tensor:
        return attention_maps(
            landmarks.detach(),
            self.config.aus,
            image_size=self.config.image_size,
            map_size=map_size,
            roi_ratio=self.config.roi_ratio,
            decay=self.config.decay,
        )


def _zoom_matrix(size: int, side: int) -> Tensor:
    """The (side, size) float64 matrix that interpolates linearly between pixel centres along an axis.

    It does what `F.interpolate` does with ``align_corners=False``.
    """
    # On the CPU even where a model is built without storage, since no file holds this matrix.
    eye = torch.eye(size, dtype=torch.float64, device="cpu")
    return F.interpolate(eye.unsqueeze(0), size=side, mode="linear")[0].T.contiguous()


def _zoom(x: Tensor, matrix: Tensor) -> Tensor:
    """Resize (N, C, m, m) to (N, C, n, n), channels_last, by an (n, m) matrix along both axes.

    The gradient of `F.interpolate` on GPUs is deterministic only in many small steps in float32.
    """
    batch, channels, size, _ = x.shape
    with _without_autocast(x):
        matrix = matrix.to(x.dtype)
        rows = matrix @ x.permute(0, 2, 3, 1).reshape(batch, size, size * channels)
        both = matrix @ rows.view(-1, size, channels)
    return both.view(batch, len(matrix), len(matrix), channels).permute(0, 3, 1, 2)


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off on a tensor's device; the meta device has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _with_mirrored(image: Tensor) -> Tensor:
    """Put mirror images behind the images: (2N, 3, l, l)."""
    return torch.cat((image, image.flip(3)))


def _one_linear(first: nn.Module, second: nn.Module) -> nn.Linear:
    """Merge two linear layers with nothing between them into one."""
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    w1, b1, w2, b2 = (t.double() for t in (first.weight, first.bias, second.weight, second.bias))
    one = nn.Linear(first.in_features, second.out_features, device="meta")
    one.weight = nn.Parameter((w2 @ w1).to(first.weight.dtype))
    one.bias = nn.Parameter((w2 @ b1 + b2).to(first.weight.dtype))
    return one
