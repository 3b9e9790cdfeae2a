"""JAA-Net with a graph over AUs.

Zhang, Song, Zhang, Dong, Ding, Liu: Action Unit Detection with Joint Adaptive Attention and Graph Relation,
ABAW 2021. N is the batch, A the number of AUs, l the side of the input image, c the unit width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jaa_ext import facs
from jaa_ext.models.config import WIDEST, JAANetConfig
from jaa_ext.models.jaanet import JAANet
from jaa_ext.nn import AUGraph, au_adjacency

MOST_LAYERS = 64
"""Number of the graph's layers at most."""


@dataclass(frozen=True)
class JAAGraphNetConfig(JAANetConfig):
    """A JAA-Net whose local features go through a graph over AUs before they enter the AU head. They are not
    assembled: `assemble` has no meaning here.

    Raises:
        ValueError: as `JAANetConfig`; no local features (attention=False), no graph layer, or a threshold out
            of range.
    """

    graph_widths: tuple[int, ...] = (256,)
    """Features of each AU after each graph convolution. The paper leaves this and the next two open; how they
    were chosen: docs/graph.md."""
    threshold: float = 0.4
    """From which conditional probability on, in (0, 1], an AU listens to another (Eq. 2)."""
    neighbours: float = 0.2
    """Share, 0..1, of those it listens to in an AU's new features, see `AUGraph`; 0 leaves the edges out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph_widths", tuple(self.graph_widths))
        super().__post_init__()
        if not self.attention:
            raise ValueError("JAAGraphNetConfig: graph_widths needs attention=True, the local features")
        if not self.graph_widths or min(self.graph_widths) < 1:
            raise ValueError(
                "JAAGraphNetConfig: graph_widths must be at least one number of at least 1, "
                f"got {list(self.graph_widths)}"
            )
        if len(self.graph_widths) > MOST_LAYERS or max(self.graph_widths) > WIDEST**2:
            raise ValueError(
                f"JAAGraphNetConfig: graph_widths must be at most {MOST_LAYERS} numbers of at most "
                f"{WIDEST**2}, got {len(self.graph_widths)} up to {max(self.graph_widths)}"
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(f"JAAGraphNetConfig: threshold must be in (0, 1], got {self.threshold}")
        if not 0 <= self.neighbours <= 1:
            raise ValueError(f"JAAGraphNetConfig: neighbours must be in 0..1, got {self.neighbours}")

    @classmethod
    def graph(cls, aus: Sequence[int | facs.AURule], **changes: Any) -> JAAGraphNetConfig:
        """The paper's: the journal version of JAA-Net at l = 112."""
        config = cls.journal(aus, **{"image_size": 112, **changes})
        assert isinstance(config, JAAGraphNetConfig)
        return config


class JAAGraphNet(JAANet):
    """JAA-Net with a graph over AUs: their local features, flattened, are its nodes; what comes out,
    flattened, enters the AU head beside the features of alignment and of the whole face.

    All modules but `graph` and `au_head` are those of the `JAANet` of the same config.

    Shape:
        image (N, 3, l, l), floating, ``(x / 255 - 0.5) / 0.5`` -> `JAAOutput`.
    """

    config: JAAGraphNetConfig

    def __init__(
        self,
        config: JAAGraphNetConfig,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(config, device=device, dtype=dtype)
        side = config.map_size // 8
        self.graph = AUGraph(
            20 * config.width * side * side,
            config.graph_widths,
            len(config.aus),
            neighbours=config.neighbours,
            device=device,
            dtype=dtype,
        )

    def set_labels(self, labels: Any) -> None:
        """Make the adjacency from labels of the training set, (n, A) of 1, 0 and -1 (missing)."""
        self.graph.set_adjacency(au_adjacency(labels, self.config.threshold))

    def _join(self, local: Tensor) -> Tensor:
        output: Tensor = self.graph(local.flatten(2))
        return output

    def _local_size(self, stacked: int) -> int:
        config = self.config
        return len(config.aus) * config.graph_widths[-1]
