"""Results that the papers report, in percent, to be printed beside those measured here."""

from __future__ import annotations

from typing import NamedTuple

from jaa_ext import facs


class PublishedTable(NamedTuple):
    """Results of JAA-Net on one data set, ECCV 2018, and of the methods it is compared with."""

    title: str
    f1: tuple[float, ...]
    """F1 of each AU in percent."""
    accuracy: tuple[float, ...]
    f1_mean: float
    accuracy_mean: float
    others_f1: dict[str, float]
    """Means over the AUs; the journal version of JAA-Net, IJCV 2021, among them."""
    others_accuracy: dict[str, float]
    mean_error: float | None = None
    """Landmark error, Table 4."""
    failure_rate: float | None = None
    """Failure rate, Table 4."""

    def is_of(self, data_set: str) -> bool:
        """Tell whether these are results on that data set; the authors' lists do not say what they are of."""
        return data_set in (self.title.split(" (")[0], "lists")


BY_AUS: dict[tuple[facs.AU, ...], PublishedTable] = {
    facs.BP4D_AUS: PublishedTable(
        "BP4D (ECCV 2018, Table 1)",
        (47.2, 44.0, 54.9, 77.5, 74.6, 84.0, 86.9, 61.9, 43.6, 60.3, 42.7, 41.9),
        (74.7, 80.8, 80.4, 78.9, 71.0, 80.2, 85.4, 64.8, 83.1, 73.5, 82.3, 85.4),
        60.0,
        78.4,
        {
            "LSVM": 35.3, "JPML": 45.9, "DRML": 48.3, "CPM": 50.0, "EAC-Net": 55.9, "ROI": 56.4,
            "JAA-Net (IJCV)": 62.4,
        },
        {"LSVM": 32.2, "JPML": 50.5, "DRML": 56.0, "EAC-Net": 75.2},
        mean_error=6.38,
        failure_rate=3.27,
    ),
    facs.DISFA_AUS: PublishedTable(
        "DISFA (ECCV 2018, Table 2)",
        (43.7, 46.2, 56.0, 41.4, 44.7, 69.6, 88.3, 58.4),
        (93.4, 96.1, 86.9, 91.4, 95.8, 91.2, 93.4, 93.2),
        56.0,
        92.7,
        {"LSVM": 21.8, "APL": 23.8, "DRML": 26.7, "EAC-Net": 48.5, "JAA-Net (IJCV)": 63.5},
        {"LSVM": 27.5, "APL": 46.0, "DRML": 52.3, "EAC-Net": 80.6},
    ),
}  # fmt: skip
"""Published results by the AUs of a model."""


class PublishedVariant(NamedTuple):
    """A row of the ablation on BP4D, ECCV 2018, Tables 3 and 4; None where the table has no figure."""

    name: str
    recipe: str
    f1: float | None
    mean_error: float | None = None
    failure_rate: float | None = None


ABLATION = (
    PublishedVariant("R-Net", "r-net", 54.9),
    PublishedVariant("HMR-Net", "hmr-net", 55.8),
    PublishedVariant("HMR-Net+D", "hmr-net-d", 56.6),
    PublishedVariant("HMR-Net+DW", "hmr-net-dw", 57.4),
    PublishedVariant("HMR-Net+DWA", "hmr-net-dwa", 58.0, 11.86, 65.84),
    PublishedVariant("JAA-Net", "paper", 60.0, 6.38, 3.27),
    PublishedVariant("JAA-Net w/o AR", "no-ar", 57.4, 12.32, 53.48),
    PublishedVariant("JAA-Net w/o BE", "no-be", 59.1, 9.21, 34.46),
    PublishedVariant("JAA-Net w/o GA", "no-ga", 57.3, 14.14, 76.04),
    PublishedVariant("JAA-Net w/o AU", "no-au", None, 12.23, 66.85),
)


class PublishedABAW(NamedTuple):
    """A row of Table 1 of ABAW 2021 (Zhang et al.), on the validation set of Aff-Wild2."""

    name: str
    recipe: str | None
    """None for a system that is not of that paper."""
    f1: float | None
    accuracy_total: float | None
    score: float | None


ABAW = (
    PublishedABAW("Baseline", None, 40.0, 22.0, 31.0),
    PublishedABAW("JAA-Net", "abaw-1", 44.4, 87.9, 66.2),
    PublishedABAW("JAA-Net, second stage", "abaw-2-no-graph", None, None, None),
    PublishedABAW("JAA-Net with the graph", "abaw-2", 46.7, 88.0, 67.4),
)
"""The third row is our own control, trained as the fourth but without the graph."""
