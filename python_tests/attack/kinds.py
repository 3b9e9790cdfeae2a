"""The kinds of input, and how often each is tried."""

from __future__ import annotations

from pathlib import Path

import kinds_data
import kinds_media
import kinds_models
from files import Files

KINDS: dict[str, tuple[type[Files], int]] = {
    "label CSV": (kinds_data.LabelTable, 4000),
    "lists": (kinds_data.Lists, 3200),
    "ME-GraphAU's lists": (kinds_data.GraphAULists, 1200),
    "BP4D codes": (kinds_data.BP4D, 1600),
    "BP4D landmarks": (kinds_data.BP4DLandmarks, 1600),
    "DISFA codes": (kinds_data.DISFA, 800),
    "DISFA landmarks": (kinds_data.DISFALandmarks, 1600),
    "DISFA videos": (kinds_data.DISFAVideos, 400),
    "Aff-Wild2": (kinds_data.AffWild2, 1600),
    "prepared folder": (kinds_data.PreparedFolder, 1200),
    "interrupted preparation": (kinds_data.Parts, 600),
    "recipes": (kinds_models.Recipes, 3200),
    "weights": (kinds_models.Weights, 800),
    "checkpoints": (kinds_models.Checkpoints, 150),
    "authors' weights": (kinds_models.AuthorsWeights, 400),
    "files of runs": (kinds_models.RunFiles, 2400),
    "photographs": (kinds_media.Photographs, 2400),
    "videos": (kinds_media.Videos, 2600),
    "prediction tables": (kinds_media.Tables, 400),
    "tables of other tools": (kinds_media.OtherTables, 1200),
    "interrupted prediction": (kinds_media.Unfinished, 250),
}
"""By name: the class, and its share of 30,000 inputs."""


def make(kind: str, folder: Path) -> Files:
    return KINDS[kind][0](folder)


def shares(inputs: int, kinds: list[str]) -> dict[str, int]:
    """So many inputs, divided among kinds; at least one each."""
    total = sum(KINDS[kind][1] for kind in kinds)
    return {kind: max(1, round(inputs * KINDS[kind][1] / total)) for kind in kinds}
