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
from jaa_ext.models.config import MAX_HIDDEN_SIZE, JAANetConfig
from jaa_ext.models.jaanet import JAANet
from jaa_ext.nn import AUGraph, au_adjacency

MAX_GRAPH_LAYERS = 64


@dataclass(frozen=True)
class JAAGraphNetConfig(JAANetConfig):
    """A JAA-Net whose local features go through a graph over AUs before they enter the AU head.

    All AUs' features enter the head side by side: `local_pooling` has no effect here.

    Raises:
        ValueError: as `JAANetConfig`; no local features (attention=False), no graph layer, or a threshold or
            share out of range.

    Example:
        >>> JAAGraphNetConfig.graph(facs.BP4D_AUS, threshold=0.3).image_size
        112
    """

    graph_widths: tuple[int, ...] = (256,)
    """Features of each AU after each graph convolution. The paper leaves this field and the next two open;
    docs/graph.md says how they were chosen."""
    threshold: float = 0.4
    """The conditional probability, in (0, 1], from which on an AU listens to another (Eq. 2)."""
    neighbor_share: float = 0.2
    """Share, 0..1, of an AU's new features that comes from the AUs it listens to, see `AUGraph`; 0 ignores
    them."""

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
        if len(self.graph_widths) > MAX_GRAPH_LAYERS or max(self.graph_widths) > MAX_HIDDEN_SIZE:
            raise ValueError(
                f"JAAGraphNetConfig: graph_widths must be at most {MAX_GRAPH_LAYERS} numbers of at most "
                f"{MAX_HIDDEN_SIZE}, got {len(self.graph_widths)} up to {max(self.graph_widths)}"
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(f"JAAGraphNetConfig: threshold must be in (0, 1], got {self.threshold}")
        if not 0 <= self.neighbor_share <= 1:
            raise ValueError(f"JAAGraphNetConfig: neighbor_share must be in 0..1, got {self.neighbor_share}")

    @classmethod
    def graph(cls, aus: Sequence[facs.AU | facs.AURule], **changes: Any) -> JAAGraphNetConfig:
        """The paper's preset: the journal version of JAA-Net at l = 112."""
        config = cls.journal(aus, **{"image_size": 112, **changes})
        assert isinstance(config, JAAGraphNetConfig)
        return config


class JAAGraphNet(JAANet):
    """A JAA-Net with a graph over AUs, whose nodes are the AUs' local features, flattened.

    What the graph makes of them, flattened again, enters the AU head beside the features of alignment and of
    the whole face. All modules but `graph` and `au_head` are those of the `JAANet` of the same config.

    Shape:
        image (N, 3, l, l), floating, ``(x / 255 - 0.5) / 0.5`` -> `JAAOutput`.

    Example:
        >>> model = JAAGraphNet(JAAGraphNetConfig.graph((1, 12), image_size=64, width=1))
        >>> model.set_labels([[1, 1], [0, 1], [0, 0]])
        >>> model(torch.randn(2, 3, 64, 64)).logits.shape
        torch.Size([2, 2, 2])
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
            neighbor_share=config.neighbor_share,
            device=device,
            dtype=dtype,
        )

    def set_labels(self, labels: Any) -> None:
        """Make the graph's adjacency from the training set's labels, (n, A) of 1, 0 and -1 (missing)."""
        self.graph.set_adjacency(au_adjacency(labels, self.config.threshold))

    def _join(self, local: Tensor) -> Tensor:
        output: Tensor = self.graph(local.flatten(2))
        return output

    def _local_size(self, stacked: int) -> int:
        config = self.config
        return len(config.aus) * config.graph_widths[-1]
