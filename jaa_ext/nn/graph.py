"""A graph of relations between AUs.

The equations named are of Zhang et al.: Action Unit Detection with Joint Adaptive Attention and Graph
Relation, ABAW 2021, here "the paper". A is the number of AUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaa_ext.nn.losses import label_tensor
from jaa_ext.nn.region import reset_layers


class AUGraph(nn.Module):
    """Graph convolutions over AUs, ``Z' = G Z W`` (Eq. 3), with ReLU between two layers.

    AU i keeps the share 1 - p of its own features and takes the share p from the mean over its neighbours,
    the AUs that it listens to. An AU without neighbours keeps all of its own. So the rows of G sum to 1, and
    G keeps the direction of the adjacency.

    The paper leaves G open. This is the re-weighting of ML-GCN (Chen et al., CVPR 2019), from which the paper
    takes its graph of conditional probabilities. A plain mean over an AU and its neighbours would smooth the
    AU's own features away, the more neighbours the more (figures: docs/graph.md).

    Args:
        in_features: features of each AU.
        widths: features of each AU after each layer, at least one.
        adjacency: (A, A) of 0 and 1, row i the AUs that AU i listens to (see `au_adjacency`); the diagonal is
            ignored. Or the number of AUs, none of which listens to another until `set_adjacency`.
        neighbor_share: share p of the neighbours, 0..1.

    Shape:
        features (N, A, in_features) -> (N, A, widths[-1]).

    Raises:
        ValueError: no layer, a share out of range, or an adjacency that is not square or holds other values.

    Example:
        >>> graph = AUGraph(6, (4, 5), au_adjacency([[1, 1, 0], [1, 1, 1], [0, 1, 1]], 0.6))
        >>> graph(torch.randn(2, 3, 6)).shape
        torch.Size([2, 3, 5])
    """

    adjacency: Tensor

    def __init__(
        self,
        in_features: int,
        widths: Sequence[int],
        adjacency: Tensor | int,
        *,
        neighbor_share: float = 0.2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= neighbor_share <= 1:
            raise ValueError(f"AUGraph: neighbor_share must be in 0..1, got {neighbor_share}")
        self.neighbor_share = neighbor_share
        if not widths or min(widths) < 1:
            raise ValueError(f"AUGraph: widths must be at least one number of at least 1, got {list(widths)}")
        self.in_features = in_features
        self.widths = tuple(widths)
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias=False, device=device, dtype=dtype)
            for before, after in pairwise((in_features, *widths))
        )
        size = adjacency if isinstance(adjacency, int) else len(adjacency)
        self.register_buffer("adjacency", torch.eye(size, device=device, dtype=dtype))
        self._given = adjacency.detach().cpu().clone() if isinstance(adjacency, Tensor) else None
        if self._given is not None:
            self.set_adjacency(self._given)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights and go back to the adjacency that the layer was made with."""
        reset_layers(self)
        given = torch.eye(len(self.adjacency), device="cpu") if self._given is None else self._given
        self.adjacency.copy_(given)

    @torch.no_grad()
    def set_adjacency(self, adjacency: Tensor) -> None:
        """Take another adjacency for as many AUs, (A, A) of 0 and 1.

        Raises:
            ValueError: another shape, or other values.
        """
        size = len(self.adjacency)
        if adjacency.shape != (size, size):
            raise ValueError(f"AUGraph: adjacency must be ({size}, {size}), got {list(adjacency.shape)}")
        if not ((adjacency == 0) | (adjacency == 1)).all():
            raise ValueError("AUGraph: adjacency must hold 0 and 1 only")
        self.adjacency.copy_(adjacency)

    def normalized_adjacency(self) -> Tensor:
        """The matrix G, (A, A)."""
        itself = torch.eye(len(self.adjacency), device=self.adjacency.device, dtype=self.adjacency.dtype)
        others = self.adjacency * (1 - itself)
        count = others.sum(1, keepdim=True)
        share = self.neighbor_share * (count > 0)
        return share * others / count.clamp_min(1) + (1 - share) * itself

    def forward(self, features: Tensor) -> Tensor:
        graph = self.normalized_adjacency().to(features.dtype)
        for place, layer in enumerate(self.layers):
            features = graph @ layer(F.relu(features) if place else features)
        return features

    def extra_repr(self) -> str:
        text = (
            f"{self.in_features}, {self.widths}, num_aus={len(self.adjacency)}, "
            f"neighbor_share={self.neighbor_share}"
        )
        if self.adjacency.is_meta:
            return text
        return f"{text}, edges={int(self.adjacency.sum() - self.adjacency.trace())}"


def au_adjacency(labels: Any, threshold: float) -> Tensor:
    """Find which AUs are likely where another is present (Eq. 2).

    Entry [i, j] is 1 where P(AU j present | AU i present) >= threshold. Probabilities are taken over the
    frames in which both AUs have valid labels. The diagonal is 1, also for an AU that never occurs.

    Args:
        labels: (n, A) tensor or array of 1, 0 and -1 (missing).
        threshold: in (0, 1].

    Returns:
        (A, A) float32 of 0 and 1.

    Raises:
        ValueError: labels that are not (n, A) or hold another value, or a threshold out of range.

    Example:
        >>> au_adjacency([[1, 1], [0, 1], [0, 1]], 0.5)
        tensor([[1., 1.],
                [0., 1.]])
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"au_adjacency: threshold must be above 0 and up to 1, got {threshold:g}")
    present = conditional_probabilities(labels) >= threshold
    return (present | torch.eye(len(present), dtype=torch.bool, device=present.device)).float()


def conditional_probabilities(labels: Any) -> Tensor:
    """Estimate P(AU j present | AU i present) from labels.

    Args:
        labels: (n, A) tensor or array of 1, 0 and -1 (missing).

    Returns:
        (A, A) float64, at [i, j]; 0 where AU i never occurs beside a valid label of AU j.

    Raises:
        ValueError: labels that are not (n, A) or hold another value.

    Example:
        >>> conditional_probabilities([[1, 1], [0, 1], [0, 1], [1, -1]])
        tensor([[1.0000, 1.0000],
                [0.3333, 1.0000]], dtype=torch.float64)
    """
    labels = label_tensor("conditional_probabilities", labels)
    present, valid = (labels == 1).double(), (labels != -1).double()
    probabilities: Tensor = (present.T @ present) / (present.T @ valid).clamp_min(1)
    return probabilities
