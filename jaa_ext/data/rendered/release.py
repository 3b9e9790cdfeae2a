"""Rendered faces as a release, so that `jaa prepare` can render them once, before training."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from jaa_ext.data.release import Frame, Release
from jaa_ext.data.rendered.dataset import RenderedFaces
from jaa_ext.data.rendered.expression import AUS
from jaa_ext.data.rendered.labels import LABELLED_AUS, Mix

RENDERED = "rendered faces"
"""The name of the data set."""

SUBJECTS_PER_TEST_SUBJECT = 10
"""One subject in so many, rounded up, is in the fold "test"; the others are in "train"."""


def rendered_release(
    *,
    subjects: int,
    samples_per_subject: int,
    seed: int = 0,
    size: int = 200,
    mix: Mix = "natural",
    sides: bool = False,
) -> Release:
    """Make a release of `RenderedFaces` with these arguments; each subject is a clip.

    The faces are aligned, so `prepare` should have ``align=False``. With `sides` there are also the labels of
    each side of the face.

    Raises:
        ValueError: arguments out of range.
    """
    aus = LABELLED_AUS if sides else AUS
    faces = partial(
        RenderedFaces, samples_per_subject=samples_per_subject, seed=seed, size=size, mix=mix, aus=aus
    )
    faces(subjects=range(subjects))  # checks the arguments
    labels = ", with sides" if sides else ""
    train_subjects = subjects - math.ceil(subjects / SUBJECTS_PER_TEST_SUBJECT)
    return Release(
        name=RENDERED,
        aus=aus,
        clips=tuple(
            RenderedSubject(faces(subjects=[number]), "train" if number < train_subjects else "test")
            for number in range(subjects)
        ),
        source=f"seed {seed}, {samples_per_subject} a subject, {size} pixels, mix {mix}{labels}",
    )


def rendered_seed(source: str) -> int:
    """Read the seed, which decides who is seen, from `Release.source`; folders of early versions have none.

    Example:
        >>> rendered_seed(rendered_release(subjects=2, samples_per_subject=3, seed=4).source)
        4
    """
    seed = re.match(r"seed (\d+),", source)
    return int(seed[1]) if seed else 0


@dataclass(frozen=True)
class RenderedSubject:
    """The faces of a subject (`Clip`)."""

    faces: RenderedFaces
    fold: str
    task: str = ""

    @property
    def name(self) -> str:
        return self.faces.subjects[0]

    @property
    def subject(self) -> str:
        return self.name

    @property
    def length(self) -> int:
        return len(self.faces)

    def read(self) -> Iterator[Frame]:
        for number in range(self.length):
            face = self.faces[number]
            assert face.intensities is not None
            labels, intensities = face.labels.tolist(), face.intensities.tolist()
            yield Frame(number, face.image, face.landmarks, tuple(labels), tuple(intensities))
