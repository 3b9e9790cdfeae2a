"""Rendered faces as a release, so that `jaa prepare` can render them once, before training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jaa_ext.data.release import Frame, Release
from jaa_ext.data.rendered.dataset import RenderedFaces
from jaa_ext.data.rendered.expression import AUS
from jaa_ext.data.rendered.labels import Mix

RENDERED = "rendered faces"
"""The name of the data set."""

SUBJECTS_PER_TEST_SUBJECT = 10
"""One subject in so many, rounded up, is in the fold "test"; the others are in "train"."""


def rendered_release(
    *, subjects: int, samples_per_subject: int, seed: int = 0, size: int = 200, mix: Mix = "natural"
) -> Release:
    """Make a release of `RenderedFaces` with these arguments; each subject is a clip.

    The faces are aligned, so `prepare` should have ``align=False``.

    Raises:
        ValueError: arguments out of range.
    """
    faces = RenderedFaces(
        subjects=range(subjects), samples_per_subject=samples_per_subject, seed=seed, size=size, mix=mix
    )
    train_subjects = subjects - math.ceil(subjects / SUBJECTS_PER_TEST_SUBJECT)
    return Release(
        name=RENDERED,
        aus=AUS,
        clips=tuple(
            RenderedSubject(
                number,
                name,
                samples_per_subject,
                seed,
                size,
                mix,
                "train" if number < train_subjects else "test",
            )
            for number, name in enumerate(faces.subjects)
        ),
        source=f"seed {seed}, {samples_per_subject} a subject, {size} pixels, mix {mix}",
    )


@dataclass(frozen=True)
class RenderedSubject:
    """The faces of a subject (`Clip`)."""

    number: int
    name: str
    length: int
    seed: int
    size: int
    mix: Mix
    fold: str
    task: str = ""

    @property
    def subject(self) -> str:
        return self.name

    def read(self) -> Iterator[Frame]:
        faces = RenderedFaces(
            subjects=[self.number],
            samples_per_subject=self.length,
            seed=self.seed,
            size=self.size,
            mix=self.mix,
        )
        for number in range(len(faces)):
            face = faces[number]
            assert face.intensities is not None
            labels, intensities = face.labels.tolist(), face.intensities.tolist()
            yield Frame(number, face.image, face.landmarks, tuple(labels), tuple(intensities))
