"""What all kinds of input have in common: valid files that are damaged, read, and put back."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workers import Nonsense, Unclear, why_unclear

from jaa_ext import cli, facs
from jaa_ext.data import PreparedFaces, Release, prepare
from jaa_ext.predict import DetectedFace

sys.path.append(str(Path(__file__).parents[1] / "data"))
import releases as releases  # miniatures of the data sets, which other modules take from here

SIDE = 64
"""Pixels of prepared faces."""
AS_A_COMMAND = 0.02
"""Share of the inputs that the command `jaa` reads, where there is one; it takes longer than the function."""


class Files:
    """A kind whose input is a few files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder / "in", folder / "out"
        self.folder.mkdir(parents=True)
        self.make()
        self.valid = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        self.changed: set[Path] = set()
        self.command = False
        self.read()  # what is valid must be read

    def make(self) -> None:
        """Write the valid input into `folder`."""
        raise NotImplementedError

    def change(self, random: Random) -> None:
        """Damage it, with `put`."""
        raise NotImplementedError

    def take(self) -> None:
        """Read it, and raise `Nonsense` where what was accepted makes no sense."""
        raise NotImplementedError

    def arguments(self) -> Sequence[object]:
        """The command that reads it; empty where there is none."""
        return ()

    def put(self, path: Path, data: bytes | None) -> None:
        """In place of a file until the next input; None removes it."""
        self.changed.add(path)
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)

    def damage(self, random: Random) -> None:
        for path in self.changed:
            if path in self.valid:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.valid[path])
            else:
                path.unlink(missing_ok=True)
        self.changed.clear()
        self.command = random.random() < AS_A_COMMAND
        self.change(random)

    def read(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        if self.command and (arguments := self.arguments()):
            run_command(arguments, self.names())
        else:
            self.take()

    def names(self) -> Iterable[str]:
        """Of the files that are damaged, or those of the valid input."""
        return {path.name for path in self.changed or self.valid}


def run_command(arguments: Sequence[object], names: Iterable[str]) -> None:
    """`jaa` in this process; raises a ValueError with its sentence if it refuses as it should."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["jaa", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = argv
    if code == 2:
        sentence = err.getvalue().removeprefix("jaa: ").rstrip("\n")
        if wrong := why_unclear(sentence, names):
            raise Unclear(f"jaa {arguments[0]}: {wrong}: {' '.join(sentence.split())[:300]}")
        raise ValueError(sentence)
    if code:
        raise Unclear(f"jaa {arguments[0]} ended with {code}")


def require(fine: Any, otherwise: str) -> None:
    if not fine:
        raise Nonsense(otherwise)


def prepare_and_check(release: Release, out: Path, *, align: bool = True) -> None:
    """Prepare a release and look at what came of it."""
    prepare(
        release,
        out,
        size=SIDE,
        align=align,
        table="csv",
        workers=0,
        detector=Everywhere,
    )
    check_faces(PreparedFaces(out))


def check_faces(faces: PreparedFaces) -> None:
    """See that prepared faces make sense: labels, landmarks on the picture, ids, pictures."""
    labels = faces.label_matrix()
    require(labels.shape == (len(faces), len(faces.aus)), f"labels of shape {labels.shape}")
    require(np.isin(labels, (-1, 0, 1)).all(), f"labels {np.unique(labels).tolist()}")
    require(all(name.strip() for name in faces.subjects), f"subjects {faces.subjects}")
    ids = set()
    for i in range(len(faces)):
        sample = faces[i]
        ids.add(sample.id)
        side = len(sample.image)
        require(sample.image.shape == (side, side, 3), f"a picture of shape {sample.image.shape}")
        require(
            sample.landmarks.shape == (facs.NUM_LANDMARKS, 2), f"landmarks of shape {sample.landmarks.shape}"
        )
        check_landmarks(sample.landmarks, side)
    require(len(ids) == len(faces), "two faces of one id")


def check_landmarks(landmarks: NDArray[Any], side: int) -> None:
    """Finite, and half of them on the picture."""
    require(np.isfinite(landmarks).all(), "landmarks that are not finite")
    inside = ((landmarks > -0.5) & (landmarks < side - 0.5)).all(-1).mean()
    require(inside >= 0.5, f"only {100 * inside:.0f} % of the landmarks lie on the picture")


class Everywhere:
    """A detector that sees a face in every picture, in its middle, at once."""

    shape = np.random.default_rng(0).uniform(0.3, 0.7, (facs.NUM_LANDMARKS, 2))
    shape[list(facs.LEFT_EYE)] = (0.35, 0.4)
    shape[list(facs.RIGHT_EYE)] = (0.65, 0.4)

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        height, width = image.shape[:2]
        landmarks = (self.shape * (width, height)).astype(np.float32)
        return [DetectedFace((0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height), landmarks, 1.0)]

    def score(self, aligned: NDArray[np.uint8]) -> float:
        return 1.0
