"""Miniature releases of BP4D, DISFA and Aff-Wild2 in the published layouts, filled with drawn faces.

Each maker returns what a reader should find: ``{clip: {frame number: Face}}``. In every clip the AU
in place i of the data set's order is present in the frames whose place is i modulo `CYCLE`: from `CYCLE`
frames on each AU occurs, and none in all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
import scipy.io

from jaa_ext import facs
from jaa_ext.data import SyntheticFaces

CYCLE = 3
FACE_SIDE, WIDTH, HEIGHT = 160, 256, 208

BP4D_HEADER = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 27, 28)
DISFA_RELEASED = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


class Face(NamedTuple):
    picture: np.ndarray
    """(H, W, 3) RGB."""
    landmarks: np.ndarray
    """(49, 2) counted from 0."""
    labels: tuple[int, ...]
    """In the order of the data set's AUs."""


Contents = dict[str, dict[int, Face]]


def make_bp4d(
    folder: Path,
    subjects: Sequence[str] = ("F001", "F003", "F004"),
    tasks: Sequence[str] = ("T1",),
    frames: int = CYCLE,
    *,
    first: int = 197,
    before: int = 2,
    padding: int = 4,
    images: str = "Sequences(2D+3D)",
) -> Contents:
    """`frames` coded frames from number `first` on, after `before` frames of the video that are not coded."""
    contents: Contents = {}
    for subject in subjects:
        for task in tasks:
            numbers = range(first - before, first + frames)
            faces = dict(
                zip(numbers, draw(_person(subject), len(numbers), facs.BP4D_AUS, -before), strict=True)
            )
            for number, face in faces.items():
                write_image(folder / images / subject / task / f"{number:0{padding}d}.jpg", face.picture)
            write_bp4d_landmarks(
                folder / "2DFeatures" / f"{subject}_{task}.mat", [face.landmarks for face in faces.values()]
            )
            coded = {number: faces[number] for number in numbers if number >= first}
            write_bp4d_codes(folder / "AUCoding" / "AU_OCC" / f"{subject}_{task}.csv", coded)
            contents[f"{subject}/{task}"] = coded
    return contents


def make_disfa(
    folder: Path,
    subjects: Sequence[str] = ("SN001", "SN006", "SN003"),
    frames: int = CYCLE,
    *,
    plain_names: Sequence[str] = (),
    plain_first: int = 0,
) -> Contents:
    """`plain_names`: subjects whose landmark files are called l00000_lm.mat, counted from `plain_first`."""
    contents: Contents = {}
    for subject in subjects:
        faces = draw(_person(subject), frames, facs.DISFA_AUS)
        write_video(folder / "Videos_LeftCamera" / f"LeftVideo{subject}_comp.avi", [f.picture for f in faces])
        points = folder / "Landmark_Points" / subject / "tmp_frame_lm"
        points.mkdir(parents=True)
        jaw = np.column_stack([np.linspace(40, 200, 17), 120 + 80 * np.sin(np.linspace(0, np.pi, 17))])
        for place, face in enumerate(faces):
            plain = subject in plain_names
            name = f"l{place + plain_first:05d}" if plain else f"{subject}_{place:04d}"
            scipy.io.savemat(
                points / f"{name}_lm.mat", {"pts": np.concatenate([jaw, face.landmarks])}, do_compression=True
            )
        codes = folder / "ActionUnit_Labels" / subject
        codes.mkdir(parents=True)
        for au in DISFA_RELEASED:
            lines = []
            for place, face in enumerate(faces):
                present = au in facs.DISFA_AUS and face.labels[facs.DISFA_AUS.index(au)]
                # Both 0 and 1 mean absent, and all from 2 to 5 present.
                intensity = 2 + (place + au) % 4 if present else (place + au) % 2
                lines.append(f"{place + 1},{intensity}\n")
            (codes / f"{subject}_au{au}.txt").write_text("".join(lines))
        contents[subject] = dict(enumerate(faces, start=1))
    return contents


def make_affwild2(
    folder: Path,
    train: Sequence[str] = ("video1", "30-30-1920x1080_left", "30-30-1920x1080_right"),
    validation: Sequence[str] = ("video2",),
    frames: int = CYCLE,
    *,
    header: Sequence[int] = facs.AFFWILD2_AUS,
    labels: str = "AU_Set",
    side: int = 112,
) -> Contents:
    """Crops of `side` pixels, the face drawn to fill them; `header` is the order of the AUs in the files."""
    contents: Contents = {}
    for part, videos in (("Train_Set", train), ("Validation_Set", validation)):
        for video in videos:
            faces = draw(_person(video), frames, facs.AFFWILD2_AUS, face_side=side, width=side, height=side)
            lines = [",".join(f"AU{au}" for au in header)]
            for number, face in enumerate(faces, start=1):
                write_image(folder / "cropped_aligned" / video / f"{number:05d}.jpg", face.picture)
                lines.append(",".join(str(face.labels[facs.AFFWILD2_AUS.index(au)]) for au in header))
            path = folder / labels / part / f"{video}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
            contents[video] = dict(enumerate(faces, start=1))
    return contents


def face_points(seed: int, side: float) -> np.ndarray:
    """(49, 2) landmarks in the order of a face's, counted from 0, in a picture of `side` pixels."""
    jitter = np.random.default_rng(seed).uniform(-0.03, 0.03, (facs.NUM_LANDMARKS, 2))
    return (_FACE + jitter) * side


def _face() -> np.ndarray:
    def oval(x: float, y: float, width: float, height: float, count: int) -> np.ndarray:
        turn = np.linspace(-np.pi, np.pi, count, endpoint=False)
        return np.column_stack([x + width * np.cos(turn), y + height * np.sin(turn)])

    brows = np.column_stack([np.linspace(0.2, 0.8, 10), np.full(10, 0.3)])
    nose = np.column_stack([np.full(9, 0.5), np.linspace(0.4, 0.6, 9)])
    eyes = [oval(x, 0.4, 0.08, 0.03, 6) for x in (0.32, 0.68)]
    return np.concatenate([brows, nose, *eyes, oval(0.5, 0.78, 0.15, 0.06, 18)])


_FACE = _face()


def draw(
    person: int,
    frames: int,
    aus: Sequence[int],
    start: int = 0,
    *,
    face_side: int = FACE_SIDE,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> list[Face]:
    """A face in larger pictures, elsewhere in each; the labels' cycle begins at `start`."""
    data = SyntheticFaces(subjects=[person], samples_per_subject=1, size=face_side, aus=aus)
    faces = []
    for place in range(start, start + frames):
        rng = np.random.default_rng((person, place - start))
        labels = tuple(int((place - i) % CYCLE == 0) for i in range(len(aus)))
        sample = data.draw(person, {au: 0.9 * label for au, label in zip(aus, labels, strict=True)}, rng)
        assert tuple(sample.labels) == labels
        picture = np.full((height, width, 3), rng.integers(60, 200, 3), np.uint8)
        left = int(rng.integers(0, width - face_side + 1))
        top = int(rng.integers(0, height - face_side + 1))
        picture[top : top + face_side, left : left + face_side] = sample.image
        faces.append(Face(picture, sample.landmarks + np.array([left, top], np.float64), labels))
    return faces


def edit(path: Path, line: int, text: str | None) -> None:
    """Replace a line of a file, counted from 1; None leaves it out."""
    lines = path.read_text().splitlines()
    lines[line - 1 : line] = [] if text is None else [text]
    path.write_text("\n".join(lines))


def write_image(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1])


def write_video(path: Path, pictures: Sequence[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()


def write_bp4d_codes(path: Path, faces: dict[int, Face]) -> None:
    """All 23 AUs of the header row; those that are not among the 12 are coded 9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(str(column) for column in (0, *BP4D_HEADER))]
    for number, face in faces.items():
        label = dict(zip(facs.BP4D_AUS, face.labels, strict=True))
        lines.append(",".join(str(cell) for cell in (number, *(label.get(au, 9) for au in BP4D_HEADER))))
    path.write_text("\n".join(lines) + "\n")


def write_bp4d_landmarks(path: Path, landmarks: Sequence[np.ndarray | None]) -> None:
    """As MATLAB 7.3 stores a cell array: references to arrays that h5py reads transposed; None is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        cells = file.create_dataset("fit/pred", (len(landmarks), 1), h5py.ref_dtype)
        for k, points in enumerate(landmarks):
            if points is None:
                cell = file.create_dataset(f"#refs#/{k}", data=np.zeros(2, np.uint64))
                cell.attrs["MATLAB_empty"] = np.uint8(1)
            else:
                cell = file.create_dataset(f"#refs#/{k}", data=points.T + 1)
            cells[k, 0] = cell.ref


def _person(name: str) -> int:
    return sum(name.encode())
