"""JAA-Net: joint AU detection and face alignment with adaptive attention.

Shao, Liu, Cai, Ma: Deep Adaptive Attention for Joint Facial Action Unit Detection and Face Alignment, ECCV
2018, here "the paper", and its journal version, IJCV 2021. N is the batch, A the number of AUs, l the side of
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
from jaa_ext.nn.losses import full_precision
from jaa_ext.nn.region import reset_layers
from jaa_ext.ops import attention_maps

HIGHEST_INTENSITY = 5.0
"""Highest intensity of FACS: 0 is absent, 1 a trace (A), 5 the most that a face can do (E)."""


@dataclass
class JAAOutput:
    """What `JAANet` returns; a field is None where the variant lacks the part."""

    logits: Tensor | None = None
    """(N, 2, A); index 1 of the middle axis is "present"."""
    landmarks: Tensor | None = None
    """(N, 49, 2) x, y in pixels of the input image; float32 under autocast too."""
    initial_maps: Tensor | None = None
    """(N, A, l/4 + 8, l/4 + 8) attention maps drawn from the landmarks, the refinement's input; constants."""
    target_maps: Tensor | None = None
    """(N, A, l/4, l/4) initial maps as large as the refined ones, constants: what E_r compares those with,
    and what the local features use where there is no refinement."""
    refined_maps: Tensor | None = None
    """(N, A, l/4, l/4) of weights in 0..1; a gradient entering here (E_r) is not enhanced."""
    intensities: Tensor | None = None
    """(N, A) of 0..5, NaN for AUs of which the training set had none; float32 under autocast too."""
    local_logits: Tensor | None = None
    """(N, 2, A), as `logits`, from the local features of each AU alone (journal version)."""

    @property
    def probabilities(self) -> Tensor | None:
        """(N, A) probability that each AU is present, float32 or float64."""
        return None if self.logits is None else full_precision(self.logits).softmax(1)[:, 1]


# Lets `torch.export` return it.
torch.export.register_dataclass(JAAOutput, serialized_type_name="jaa_ext.models.JAAOutput")


class JAANet(nn.Module):
    """JAA-Net and its published variants.

    Shape:
        image (N, 3, l, l), floating, ``(x / 255 - 0.5) / 0.5`` -> `JAAOutput`.

    Raises:
        ValueError, TypeError: in forward, an image of another shape or not floating.
    """

    note: str = ""
    """A remark on the weights that travels with the model's file."""

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
            Alignment(channels, c, side, config.embedding_size, **factory) if config.alignment else None
        )
        self.global_features = FeatureStack(channels, c, **factory) if config.global_features else None
        self.attention = AdaptiveAttention(config, **factory) if config.attention else None
        stacked = 20 * c * side * side
        self.au_head = (
            AUHead(
                (config.alignment + config.global_features) * stacked
                + config.attention * self._local_size(stacked),
                config.embedding_size,
                len(config.aus),
                intensity=config.intensity,
                **factory,
            )
            if config.au_detection
            else None
        )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Threshold of each AU: it is present where its probability exceeds that.

        They travel with the model's file; 0.5 each, until they are calibrated
        (`jaa_ext.evaluation.calibrate_thresholds`).

        Raises:
            ValueError: when set, another number of them than of AUs, or one that is not between 0 and 1.
        """
        return self._thresholds

    @thresholds.setter
    def thresholds(self, values: Sequence[float]) -> None:
        self._thresholds = check_thresholds(values, len(self.config.aus))

    def reset_parameters(self) -> None:
        """Fresh weights, as of a new model of the same config."""
        reset_layers(self)

    def find_landmarks(self, image: Tensor) -> Tensor:
        """The landmarks of `forward` alone, (N, 49, 2), for some three tenths of its work.

        Raises:
            ValueError: a model without alignment; or see the class.
            TypeError: see the class.
        """
        if self.alignment is None:
            raise ValueError("find_landmarks: this model predicts no landmarks (alignment=False)")
        self._check(image)
        if self.training or not self.config.mirror:
            return self._landmarks(image)
        return self._unmirrored(self._landmarks(_with_mirrored(image)), image.shape[0])

    def forward(self, image: Tensor) -> JAAOutput:
        self._check(image)
        if self.training:
            return self._forward(image)
        output = self._over_mirror_image(image) if self.config.mirror else self._forward(image)
        if self.config.average_heads:
            assert output.logits is not None and output.local_logits is not None
            output.logits = (output.logits + output.local_logits) / 2
        return output

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

    def _landmarks(self, image: Tensor) -> Tensor:
        assert self.alignment is not None
        landmarks: Tensor = self.alignment(self.region_learning(image))[1]
        return landmarks

    def _over_mirror_image(self, image: Tensor) -> JAAOutput:
        """The mean over faces and their mirror images, but for the maps, which are those of the faces."""
        output, count = self._forward(_with_mirrored(image)), image.shape[0]
        for name, value in vars(output).items():
            if value is None:
                continue
            if name == "landmarks":
                value = self._unmirrored(value, count)
            else:
                own, mirrored = value[:count], value[count:]
                value = own if name.endswith("_maps") else (own + mirrored) / 2
            setattr(output, name, value)
        return output

    def _unmirrored(self, landmarks: Tensor, count: int) -> Tensor:
        """(N, 49, 2) of faces from (2N, 49, 2), theirs and those of their mirror images."""
        own, mirrored = landmarks[:count], landmarks[count:]
        x, y = mirrored[:, list(facs.FLIP)].unbind(2)
        return (own + torch.stack((self.config.image_size - 1 - x, y), 2)) / 2

    def extra_repr(self) -> str:
        return repr(self.config)

    def _join(self, local: Tensor) -> Tensor:
        """The AUs' local features (N, A, 20c, side, side) as one, for the AU head."""
        return local.sum(1) if self.config.assemble == "sum" else local.mean(1)

    def _local_size(self, stacked: int) -> int:
        """Numbers of a face that `_join` gives; one AU's local features have `stacked`."""
        return stacked

    @torch.no_grad()
    def fuse(self) -> JAANet:
        """A copy for inference, in evaluation mode and channels_last, that computes the same in fewer steps.

        Batch norms, ReLU and max-pooling of the feature stacks and the refinement are folded into the
        convolutions before them, and pairs of linear layers with nothing between into one. The copy can be
        neither trained nor saved. On a CPU in float32 those convolutions keep their filters transformed from
        the first image on, at four times the memory of their weights. A model in training mode is fused with
        its running statistics; a fused one is copied.
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
        """What autocast runs in half precision, by name: convolutions and linear layers, but for those that
        give landmarks, which it would round to whole pixels, and intensities."""
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

    @torch.no_grad()
    def set_mean_shape(self, landmarks: Any) -> None:
        """Let training start at a mean face: it becomes the bias of the last alignment layer.

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
        """Let training start at a mean intensity of each AU: it becomes the bias of the intensities.

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
        # An AU that is never there, or always at its most, has no finite bias.
        bias = torch.logit((means.to(head.linear.bias) / HIGHEST_INTENSITY).clamp(0.01, 0.99))
        head.linear.bias.copy_(torch.where(bias.isnan(), head.linear.bias, bias))

    @torch.no_grad()
    def set_rated(self, rated: Any) -> None:
        """Say of which AUs the training set has intensities: those of others will be NaN.

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
    """Face alignment (paper, section 3.2): stack P, linear to d, linear to the landmarks, nothing between.

    Shape:
        pool2 (N, in_channels, l/4, l/4) -> features (N, 20c, side, side), landmarks (N, 49, 2) in pixels.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        side: int,
        embedding: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.features = FeatureStack(in_channels, width, **factory)
        self.embedding: nn.Module = nn.Linear(20 * width * side * side, embedding, **factory)
        self.landmarks = nn.Linear(embedding, 2 * facs.NUM_LANDMARKS, **factory)

    def reset_parameters(self) -> None:
        reset_layers(self)

    def forward(self, pool2: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(pool2)
        embedding = self.embedding(features.flatten(1))
        # Half precision would round a landmark to a whole pixel.
        with _without_autocast(pool2):
            landmarks = self.landmarks(embedding.to(self.landmarks.weight.dtype))
        return features, landmarks.unflatten(1, (facs.NUM_LANDMARKS, 2))


class AUHead(nn.Sequential):
    """AU detection (paper, section 3.4): linear to d, linear to the logits, nothing between. Intensities come
    from the same d.

    Shape:
        (N, in_features), local (N, A) or None -> logits (N, 2, A), intensities (N, A) or None, see
        `IntensityHead`.
    """

    def __init__(
        self,
        in_features: int,
        embedding: int,
        aus: int,
        *,
        intensity: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        super().__init__(
            nn.Linear(in_features, embedding, **factory),
            nn.Linear(embedding, 2 * aus, **factory),
            nn.Unflatten(1, (2, aus)),
        )
        self.intensity = IntensityHead(embedding, aus, **factory) if intensity else None

    def forward(self, features: Tensor, local: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        embedding = self[0](features)
        intensities = None if self.intensity is None else self.intensity(embedding, local)
        return self[2](self[1](embedding)), intensities

    def fuse(self) -> None:
        """Fold the first layer into the others."""
        if self.intensity is not None:
            self.intensity.linear = _one_linear(self[0], self.intensity.linear)
        self[1], self[0] = _one_linear(self[0], self[1]), nn.Identity()


class IntensityHead(nn.Module):
    """Intensities of AUs: five times the sigmoid of a linear layer and of what each AU's local features add.

    So they lie in 0..5 by construction, in training as in use, and an AU that is plainly absent, as most
    are, or as strong as can be, needs no exact sum to be 0 or 5.

    Shape:
        (N, d), local (N, A) or None -> (N, A) of 0..5, in full precision; NaN for an AU that is not `rated`.
    """

    rated: Tensor
    """(A,) bool: whether the training set has intensities of the AU."""

    def __init__(
        self,
        in_features: int,
        aus: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, aus, device=device, dtype=dtype)
        self.register_buffer("rated", torch.ones(aus, dtype=torch.bool, device=device))

    def reset_parameters(self) -> None:
        reset_layers(self)
        self.rated.fill_(True)

    def forward(self, embedding: Tensor, local: Tensor | None = None) -> Tensor:
        # Half precision would round intensities from 4 on to steps of 1/32.
        with _without_autocast(embedding):
            logit = self.linear(embedding.to(self.linear.weight.dtype))
        share = (logit if local is None else logit + local).sigmoid()
        return torch.where(self.rated, HIGHEST_INTENSITY * share, math.nan)


class Attended(NamedTuple):
    """What `AdaptiveAttention` returns; the maps as in `JAAOutput`."""

    local: Tensor
    """(N, A, 20c, side, side), the local features of each AU; detached where they learn from a local loss."""
    initial_maps: Tensor
    target_maps: Tensor
    refined_maps: Tensor | None
    local_logits: Tensor | None
    local_intensities: Tensor | None
    """(N, A), what each AU's local features add to the logit of its intensity."""


class AdaptiveAttention(nn.Module):
    """Adaptive attention learning (paper, section 3.3): maps from landmarks, refined, and local features.

    Padding removal is C(S(x, (m + 6) / m), m / (m + 6)) of (N, C, m, m): a bilinear zoom S to side m + 6,
    then the crop C of its centre.

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
        aus, c, side = len(config.aus), config.width, config.map_size // 8
        if config.padding_removal:
            for name, matrix in self._matrices().items():
                self.register_buffer(name, matrix.to(**factory), persistent=False)
        self.refinement = AttentionRefinement(aus, c, **factory) if config.refinement else None
        self.local_features = LocalFeatures(8 * c, c, aus, **factory)
        # Grouped convolutions of one point are the AUs' own linear layers, 20c * side^2 -> 8c -> 2, and -> 1.
        self.local_head = (
            nn.Sequential(
                nn.Conv1d(aus * 20 * c * side * side, aus * 8 * c, 1, groups=aus, **factory),
                nn.Conv1d(aus * 8 * c, aus * 2, 1, groups=aus, **factory),
            )
            if config.local_loss
            else None
        )
        self.local_intensity = (
            nn.Conv1d(aus * 8 * c, aus, 1, groups=aus, bias=False, **factory)
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
            embedding = self.local_head[0](local.flatten(2).flatten(1).unsqueeze(2))
            local_logits = self.local_head[1](embedding).view(-1, len(config.aus), 2).transpose(1, 2)
            if self.local_intensity is not None:
                full = embedding.to(self.local_intensity.weight.dtype)
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
        """The initial maps of side l/4 + 8 and the target maps of side l/4."""
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
    """(side, size) float64: bilinear interpolation between pixel centres (``align_corners=False``) along an
    axis."""
    # On the CPU also where a model is built without storage: no file holds this matrix.
    eye = torch.eye(size, dtype=torch.float64, device="cpu")
    return F.interpolate(eye.unsqueeze(0), size=side, mode="linear")[0].T.contiguous()


def _zoom(x: Tensor, matrix: Tensor) -> Tensor:
    """(N, C, m, m) to (N, C, n, n), channels_last, by an (n, m) matrix along both axes.

    `F.interpolate` has no deterministic gradient on GPUs but by many small steps in float32.
    """
    batch, channels, size, _ = x.shape
    with _without_autocast(x):
        matrix = matrix.to(x.dtype)
        rows = matrix @ x.permute(0, 2, 3, 1).reshape(batch, size, size * channels)
        both = matrix @ rows.view(-1, size, channels)
    return both.view(batch, len(matrix), len(matrix), channels).permute(0, 3, 1, 2)


def _without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Where the tensor lies; tensors without storage have no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _with_mirrored(image: Tensor) -> Tensor:
    """(2N, 3, l, l): images, then their mirror images."""
    return torch.cat((image, image.flip(3)))


def _one_linear(first: nn.Module, second: nn.Module) -> nn.Linear:
    """One linear layer for two with nothing between."""
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    w1, b1, w2, b2 = (t.double() for t in (first.weight, first.bias, second.weight, second.bias))
    one = nn.Linear(first.in_features, second.out_features, device="meta")
    one.weight = nn.Parameter((w2 @ w1).to(first.weight.dtype))
    one.bias = nn.Parameter((w2 @ b1 + b2).to(first.weight.dtype))
    return one
