"""DISFA as released: for each subject a video, files of each AU's intensities, of each frame's landmarks."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.errors import require_package, wrap_errors
from jaa_ext.data.readers import files
from jaa_ext.data.readers.files import frame_numbers, numbered_folds
from jaa_ext.data.release import Frame, Release, ReleaseError, Skipped
from jaa_ext.data.video import Video, VideoError

DISFA_FOLDS = numbered_folds(
    "SN001 SN002 SN009 SN010 SN016 SN026 SN027 SN030 SN032",
    "SN006 SN011 SN012 SN013 SN018 SN021 SN024 SN028 SN031",
    "SN003 SN004 SN005 SN007 SN008 SN017 SN023 SN025 SN029",
)
"""The subjects of each fold in the papers' three-fold protocol."""

DISFA_EXCLUDED: dict[str, frozenset[int]] = {
    "SN001": frame_numbers("398-420 3190-3243"),
    "SN002": frame_numbers("800-826"),
    "SN004": frame_numbers("4541-4555"),
    "SN006": frame_numbers("1349-1405"),
    "SN009": frame_numbers("1736-1808 1851-1885"),
    "SN011": frame_numbers("4529-4533 4830-4845"),
    "SN021": frame_numbers("574-616 985-1164 1190-1205 1305-1338 1665-1710 1862-2477 2554-4657 4710-4722"),
    "SN023": frame_numbers("1021-1049 3378-3557 3584-3668 4547-4621 4741-4772 4825-4845"),
    "SN025": frame_numbers("4596-4662 4816-4835"),
    "SN027": frame_numbers("3461-3494 4738-4785"),
    "SN028": frame_numbers("1875-1885 4571-4690"),
    "SN029": frame_numbers("4090-4543"),
    "SN030": frame_numbers("939-962 1406-1422 2100-2132 2893-2955"),
}
"""The frames of each subject, counted from 1, that the papers' lists leave out."""

DISFA_FRAMES = 126_144
"""Number of frames that the papers' lists keep: 43,173, 40,344 and 42,627 in the three folds."""

DISFA_PRESENT = 2
"""The lowest intensity, of 0..5, at which an AU counts as present."""


def read_disfa(source: str | PathLike[str]) -> Release:
    """Find the videos of DISFA whose subject has a folder of labels; the whole data set has 27 subjects.

    Looks in `source` and up to two levels below it for

    - ``ActionUnit_Labels/SN001/SN001_au1.txt``: lines ``frame,intensity``, frames counted from 1;
    - ``Videos_LeftCamera/LeftVideoSN001_comp.avi``;
    - ``Landmark_Points/SN001/tmp_frame_lm/SN001_0000_lm.mat``, key ``pts``: 66 points in pixels of the
      video. The file 0000 belongs to frame 1. Files ``l00000_lm.mat`` are read alike; they count from 1 if
      one has the number of the last labelled frame and none has the number 0.

    Raises:
        ReleaseError: folders or files are missing, or a subject is not one of DISFA.
        ImportError: scipy is not installed.
    """
    source = Path(source)
    require_package("scipy", "the landmarks of DISFA need")
    labels, videos, landmarks = (
        files.find_folders(source, name)[0]
        for name in ("ActionUnit_Labels", "Videos_LeftCamera", "Landmark_Points")
    )
    folds = {subject: fold for fold, subjects in DISFA_FOLDS.items() for subject in subjects}
    found = []
    for folder in sorted(path for path in labels.glob("SN*") if path.is_dir()):
        subject = folder.name
        if subject not in folds:
            raise ReleaseError(f"{folder}: wanted one of the 27 subjects of DISFA, got {subject}")
        video = videos / f"LeftVideo{subject}_comp.avi"
        points = landmarks / subject / "tmp_frame_lm"
        needed = {video: video.is_file(), points: points.is_dir()} | {
            path: path.is_file() for path in _label_files(folder).values()
        }
        for path, there in needed.items():
            if not there:
                raise ReleaseError(f"{path}: wanted it for subject {subject}, got no such file or folder")
        found.append(DISFAVideo(subject, folds[subject], folder, video, points))
    if not found:
        raise ReleaseError(f"{labels}: wanted one folder a subject, such as SN001, got none")
    return Release("DISFA", facs.DISFA_AUS, tuple(found), DISFA_FRAMES, str(source.resolve()))


@dataclass(frozen=True)
class DISFAVideo:
    """The video of a subject (`Clip`)."""

    subject: str
    fold: str
    labels: Path
    video: Path
    landmarks: Path
    task: str = ""
    """Empty, since everybody watches the same film."""

    @property
    def name(self) -> str:
        return self.subject

    @property
    def length(self) -> int:
        return files.estimate_lines(next(iter(_label_files(self.labels).values())))

    def read(self) -> Iterator[Frame | Skipped]:
        """Read the frames of the video in order, counted from 1; see `Clip.read`."""
        intensities = [_intensities(path) for path in _label_files(self.labels).values()]
        last = max((max(frames, default=0) for frames in intensities), default=0)
        landmarks = _landmark_files(self.landmarks, self.subject, last)
        excluded = DISFA_EXCLUDED.get(self.subject, frozenset())
        labelled = {number for frames in intensities for number in frames}
        for number, picture in self._pictures(labelled):
            if number in excluded:
                yield Skipped(number, "left out by the papers' lists")
            elif isinstance(picture, str):
                yield Skipped(number, picture)
            elif not all(number in frames for frames in intensities):
                yield Skipped(number, "no label")
            elif number not in landmarks:
                yield Skipped(number, "no landmarks")
            else:
                of_frame = tuple(frames[number] for frames in intensities)
                labels = tuple(int(intensity >= DISFA_PRESENT) for intensity in of_frame)
                yield Frame(number, picture, _points(landmarks[number]), labels, of_frame)

    def _pictures(self, labelled: set[int]) -> Iterator[tuple[int, NDArray[np.uint8] | str]]:
        """Read number and picture of each frame; for a labelled frame without one, why there is none."""
        waiting = deque(sorted(labelled))
        last = 0
        try:
            video = Video(self.video)
            for frame in video.frames():
                while waiting and waiting[0] <= frame.number:
                    if (number := waiting.popleft()) < frame.number:
                        yield number, "no picture: the video is damaged there"
                last = frame.number
                yield last, frame.image
        except VideoError as error:
            raise ReleaseError(str(error)) from None
        if video.numbers_are_low:
            raise ReleaseError(
                f"{self.video}: wanted {video.count} frames, as its header says, got {last} and nothing "
                "that tells which are missing, so that labels could meet the wrong frames"
            )
        for number in waiting:
            yield number, "no picture: the video ends before the labels"


def _label_files(folder: Path) -> dict[int, Path]:
    """The file of labels of each AU, in the order of `facs.DISFA_AUS`."""
    return {au: folder / f"{folder.name}_au{au}.txt" for au in facs.DISFA_AUS}


def _intensities(path: Path) -> dict[int, int]:
    """Read the intensity of an AU in each frame."""
    intensities: dict[int, int] = {}
    for line, number, text in files.intensity_lines(path):
        intensity = files.whole_number(text, path, line, "an intensity of 0..5")
        if not 0 <= intensity <= 5:
            raise ReleaseError(f"{path}, line {line}: wanted an intensity of 0..5, got {intensity}")
        if number < 1 or number in intensities:
            raise ReleaseError(
                f"{path}, line {line}: wanted each frame once, counted from 1, got frame {number}"
            )
        intensities[number] = intensity
    return intensities


def _landmark_files(folder: Path, subject: str, last: int) -> dict[int, Path]:
    """Find the file of landmarks of each frame; `last` is the last labelled frame."""
    own, plain = {}, {}
    for path in sorted(folder.iterdir()):
        if match := re.fullmatch(rf"{subject}_(\d+)_lm\.mat", path.name):
            own[int(match[1])] = path
        elif match := re.fullmatch(r"l(\d+)_lm\.mat", path.name):
            plain[int(match[1])] = path
    # Where files count from 0, that of the last frame has the number last - 1, and none has the number last.
    first = 1 if last in plain and 0 not in plain else 0
    files = {number + 1 - first: path for number, path in plain.items()}
    return files | {number + 1: path for number, path in own.items()}


def _points(path: Path) -> NDArray[np.float64]:
    """Read (49, 2) landmarks."""
    from scipy.io import loadmat, whosmat

    with wrap_errors(f"{path}: wanted a MATLAB file with 66 x 2 numbers, got one that cannot be read"):
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ReleaseError(
                f"{path}: wanted a MATLAB file with 66 x 2 numbers, got one of over {_MAX_FILE_BYTES:,} bytes"
            )
        # Checked first, since scipy would allocate memory for any size that a damaged file claims.
        kinds = {name: (shape, kind) for name, shape, kind in whosmat(io.BytesIO(content))}
        if "pts" not in kinds:
            raise ReleaseError(f"{path}: wanted the key pts, got a file without it")
        shape, kind = kinds["pts"]
        if shape != (66, 2) or kind not in _NUMBERS:
            raise ReleaseError(f"{path}, key pts: wanted 66 x 2 numbers, got shape {shape} of {kind}")
        points = loadmat(io.BytesIO(content), variable_names=["pts"])["pts"]
        if points.shape != (66, 2) or points.dtype.kind not in "iuf":
            raise ReleaseError(
                f"{path}, key pts: wanted 66 x 2 numbers, got shape {points.shape} of {points.dtype}"
            )
        return np.asarray(points[list(facs.DISFA66_TO_49)], np.float64)


_MAX_FILE_BYTES = 1_000_000
"""66 points take 1,100 bytes; this many compressed ones unpack to a thousand times as many at most."""
_NUMBERS = {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
"""MATLAB's names of types of numbers."""
