"""Predictions as CSV tables: one row a face."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence

from jaa_ext import facs
from jaa_ext.atomic import replacing
from jaa_ext.predict.prediction import FacePrediction


def write_csv(
    path: str | os.PathLike[str],
    images: Iterable[tuple[str | os.PathLike[str], Sequence[FacePrediction]]],
    aus: Sequence[int | facs.AURule],
    *,
    weights: str = "",
) -> None:
    """Write predictions, one row a face, under the columns of `columns`; an image without a face has no row.

    The file appears whole or not at all, and replaces an older one.

    Args:
        path: the CSV file.
        images: name and faces of each image; may be a generator, which is written as it goes.
        aus: the AUs of the probabilities, ``model.config.aus``.
        weights: what to say of the weights, ``model.note``; stands in every row.

    Raises:
        ValueError: a face with another number of probabilities than there are AUs.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns(aus))
        for image, faces in images:
            for face in faces:
                if len(face.probabilities) != len(aus):
                    raise ValueError(
                        f"{image}: got a face with {len(face.probabilities)} probabilities, wanted {len(aus)}"
                    )
                writer.writerow(
                    [
                        os.fspath(image),
                        face.face_id,
                        *(f"{edge:.2f}" for edge in face.box),
                        *(f"{x:.3f}" for x in face.landmarks[:, 0]),
                        *(f"{y:.3f}" for y in face.landmarks[:, 1]),
                        *(f"{p:.6f}" for p in face.probabilities),
                        *(int(c) for c in face.present),
                        weights,
                    ]
                )


def columns(aus: Sequence[int | facs.AURule]) -> list[str]:
    """The columns of a table of predictions.

    ``image``, ``face_id``; the box ``left``, ``top``, ``right``, ``bottom`` and the landmarks ``x_0`` to
    ``x_48``, ``y_0`` to ``y_48``, all in pixels of the photograph; the probability ``AU01_p`` of each AU; the
    presence ``AU01_c`` of each AU, 0 or 1; ``weights``.
    """
    names = au_columns(aus)
    return [
        *("image", "face_id", "left", "top", "right", "bottom"),
        *(f"{axis}_{i}" for axis in "xy" for i in range(facs.NUM_LANDMARKS)),
        *(f"{name}_p" for name in names),
        *(f"{name}_c" for name in names),
        "weights",
    ]


def au_columns(aus: Sequence[int | facs.AURule]) -> list[str]:
    """``AU01`` for AU 1; a rule of one's own without a number is ``AUrule3`` at place 3, from 0."""
    numbers = map(facs.au_number, aus)
    return [f"AUrule{i}" if number is None else f"AU{number:02d}" for i, number in enumerate(numbers)]
