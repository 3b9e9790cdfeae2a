"""Relations between AUs as a graph (Zhang et al.: Action Unit Detection with Joint Adaptive Attention and
Graph Relation, ABAW 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AUGraph(nn.Module):
    """Graph convolutions over AUs: ``Z' = relu(G Z W)`` a layer (Eq. 3).

    G is the adjacency with each row divided by its sum: AU i takes the mean over the AUs that are likely
    where it is present, itself among them, however many they are. The paper leaves G's normalisation open.
    Its adjacency has a direction, which the symmetric normalisation of undirected graphs would mix up; its
    unit diagonal makes added loops needless.

    Args:
        in_features: features of each AU.
        widths: features of each AU after each layer, at least one.
        adjacency: (A, A) of 0 and 1, row i the AUs that AU i listens to (see `au_adjacency`); or the number
            of AUs, each of which then listens to itself alone until `set_adjacency`.

    Shape:
        features (N, A, in_features) -> (N, A, widths[-1]).

    Raises:
        ValueError: no layer, or an adjacency that is not square, holds other values or has an empty row.
    """

    adjacency: Tensor

    def __init__(self, in_features: int, widths: Sequence[int], adjacency: Tensor | int) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ValueError(f"AUGraph: widths must be at least one number of at least 1, got {list(widths)}")
        layers = zip((in_features, *widths), widths, strict=False)
        self.layers = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in layers)
        size = adjacency if isinstance(adjacency, int) else len(adjacency)
        self.register_buffer("adjacency", torch.eye(size))
        if isinstance(adjacency, Tensor):
            self.set_adjacency(adjacency)

    @torch.no_grad()
    def set_adjacency(self, adjacency: Tensor) -> None:
        """Take another adjacency for as many AUs."""
        size = len(self.adjacency)
        if adjacency.shape != (size, size):
            raise ValueError(f"AUGraph: adjacency must be ({size}, {size}), got {list(adjacency.shape)}")
        if not ((adjacency == 0) | (adjacency == 1)).all() or not adjacency.any(1).all():
            raise ValueError("AUGraph: adjacency must hold 0 and 1 only, at least one 1 in each row")
        self.adjacency.copy_(adjacency)

    def forward(self, features: Tensor) -> Tensor:
        graph = (self.adjacency / self.adjacency.sum(1, keepdim=True)).to(features.dtype)
        for layer in self.layers:
            features = F.relu(graph @ layer(features))
        return features

    def extra_repr(self) -> str:
        return "" if self.adjacency.is_meta else f"edges={int(self.adjacency.sum()) - len(self.adjacency)}"


def au_adjacency(labels: Any, threshold: float) -> Tensor:
    """Which AUs are likely where another is present: [P(AU j present | AU i present) >= threshold] (Eq. 2).

    Probabilities are taken over the frames in which both AUs have valid labels. The diagonal is 1, also for
    an AU that never occurs.

    Args:
        labels: (n, A) tensor or array of 1, 0 and -1 (missing).
        threshold: in (0, 1].

    Returns:
        (A, A) float32 of 0 and 1.

    Raises:
        ValueError: labels that are not (n, A) or hold another value, or a threshold out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"au_adjacency: threshold must be above 0 and up to 1, got {threshold:g}")
    present = conditional_probabilities(labels) >= threshold
    return (present | torch.eye(len(present), dtype=torch.bool, device=present.device)).float()


def conditional_probabilities(labels: Any) -> Tensor:
    """P(AU j present | AU i present) as (A, A) float64 at [i, j]; 0 where AU i never occurs beside a valid j.

    Args:
        labels: (n, A) tensor or array of 1, 0 and -1 (missing).

    Raises:
        ValueError: labels that are not (n, A) or hold another value.
    """
    labels = torch.as_tensor(labels)
    if labels.dim() != 2:
        raise ValueError(f"conditional_probabilities: labels must be (n, A), got {list(labels.shape)}")
    unknown = labels[(labels != 0) & (labels != 1) & (labels != -1)]
    if len(unknown):
        raise ValueError(
            f"conditional_probabilities: labels must be 1, 0 or -1 (missing), got {unknown[0].item():g}"
        )
    present, valid = (labels == 1).double(), (labels != -1).double()
    probabilities: Tensor = (present.T @ present) / (present.T @ valid).clamp_min(1)
    return probabilities
