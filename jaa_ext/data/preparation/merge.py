"""From the parts of all clips to a finished folder: index, list of frames left out, and report."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.atomic import replacing
from jaa_ext.data.plausible import OUTSIDE, QUESTIONS
from jaa_ext.data.preparation.folder import (
    IMAGES,
    LANDMARK_COLUMNS,
    SETTINGS,
    FolderError,
    Preparation,
    au_columns,
    index_file,
    intensity_columns,
    sort_folds,
    write_preparation,
)
from jaa_ext.data.preparation.parts import PARTS, Part, part_file
from jaa_ext.data.preparation.report import Report
from jaa_ext.data.release import MISSING, Clip, Release, ReleaseError

MIN_CHECKED_FACES = 5
"""Faces that a checker must have found to stop a preparation; one or two may be a poster on the wall."""
MAX_LANDMARK_DISTANCE = 0.5
"""The largest mean distance, in eye distances, of a face's landmarks from those that a checker finds; two
ways of placing landmarks on the same face differ by 0.05."""


def merge(out: Path, known: Preparation, release: Release) -> Report:
    """Write the index of all parts; prepare.json, written last, says that the folder is finished.

    Raises:
        FolderError: a part is damaged.
        ReleaseError: no frame can be used, or most landmarks cannot be those of the faces.
    """
    parts = []
    for clip in release.clips:
        part = Part.load(part_file(out, clip))
        if part is None:
            raise FolderError(f"{part_file(out, clip)}: is damaged; the same command makes it anew")
        parts.append(part)
    _check_landmarks(out, release, parts)
    size = known.settings.size or _commonest(np.concatenate([part.side for part in parts]))
    skipped: list[tuple[str, int, str]] = []
    for place, (clip, part) in enumerate(zip(release.clips, parts, strict=True)):
        left_out = list(zip(part.skipped.tolist(), part.reason.tolist(), strict=True))
        other = part.side != size
        for number, path in zip(part.number[other].tolist(), part.path[other].tolist(), strict=True):
            left_out.append((number, "the picture has not the side of most pictures"))
            (out / path).unlink(missing_ok=True)
        skipped += [(clip.name, number, reason) for number, reason in left_out]
        parts[place] = part.kept(~other)
    clips = [clip for clip, part in zip(release.clips, parts, strict=True) for _ in range(len(part.number))]
    rows = Part(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    report = _report(release, clips, rows, Counter(reason for _, _, reason in skipped), size)
    if not report.kept:
        # The cure may be to put images where they belong, so every frame must be tried again.
        _clear(out)
        raise ReleaseError(
            f"{release.name}: wanted frames that can be used, got none: {_describe_skipped(skipped, report)}"
        )
    with replacing(out / "skipped.csv") as file, file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["sequence", "frame", "reason"])
        writer.writerows(skipped)
    _write_index(index_file(out, known.settings.table), release, clips, rows, report.aus_with_intensities)
    write_preparation(out, known.model_copy(update={"image_size": size, "report": report}))
    shutil.rmtree(out / PARTS)
    return report


def _check_landmarks(out: Path, release: Release, parts: list[Part]) -> None:
    """Raise a ReleaseError if most landmarks cannot be those of the faces in the images."""
    kept = sum(len(part.number) for part in parts)
    faults = Counter(reason for part in parts for reason in part.reason.tolist() if reason in QUESTIONS)
    if faults.total() > kept:
        ((reason, _),) = faults.most_common(1)
        of, question = f"{kept + faults.total():,} frames", QUESTIONS[reason]
        missed = [part.skipped[part.reason == reason] for part in parts]
        reach = np.concatenate([part.skipped_reach[part.reason == reason] for part in parts])
    else:
        reason, question = "they lie beside the face that a detector finds", QUESTIONS[OUTSIDE]
        frames = sum(int(np.isfinite(part.distance).sum()) for part in parts)
        missed = [part.number[part.distance > MAX_LANDMARK_DISTANCE] for part in parts]
        reach = np.concatenate([part.reach[part.distance > MAX_LANDMARK_DISTANCE] for part in parts])
        of = f"{frames:,} frames that were looked at"
        if frames < MIN_CHECKED_FACES or 2 * len(reach) <= frames:
            return
    name, number = next(
        (clip.name, int(number))
        for clip, numbers in zip(release.clips, missed, strict=True)
        for number in numbers
    )
    # The cure is another table of landmarks, and the parts hold those of this one.
    _clear(out)
    raise ReleaseError(
        f"{release.name}: wanted landmarks of the faces in the pictures, but in {len(reach):,} of {of}, "
        f"such as frame {number} of {name}, {reason}: {_describe_reach(reach)}; {question}"
    )


def _describe_reach(reach: NDArray[np.float64]) -> str:
    """Describe where landmarks lie, by rows of `Part.reach`."""
    (left, top), (right, bottom) = reach[:, :2].min(0), reach[:, 2:4].max(0)
    (((width, height), _),) = Counter(map(tuple, reach[:, 4:].astype(int).tolist())).most_common(1)
    return (
        f"they reach from x {left:.4g} to {right:.4g} and from y {top:.4g} to {bottom:.4g} "
        f"in pictures of {width} x {height}"
    )


def _clear(out: Path) -> None:
    """Delete what a preparation has written, so that the next one begins anew."""
    for folder in (PARTS, IMAGES):
        shutil.rmtree(out / folder)
    (out / SETTINGS).unlink()


def _describe_skipped(skipped: list[tuple[str, int, str]], report: Report) -> str:
    if not skipped:
        return "the clips have no frames"
    reason, times = next(iter(report.skipped.items()))
    clip, number = next((name, number) for name, number, given in skipped if given == reason)
    return f"{reason} in {times:,} of {len(skipped):,}, such as frame {number} of {clip}"


def _remarks(reach: NDArray[np.float64], distance: NDArray[np.float64]) -> tuple[str, ...]:
    """Say what is odd about all landmarks together, though each face's could be right."""
    right, bottom, width, height = reach[:, 2:].T
    # As landmarks of images of half the size do; in a data set, not all faces lie there.
    if len(reach) > 1 and (right <= width / 2).all() and (bottom <= height / 2).all():
        odd = "all landmarks lie in the upper left quarter of their pictures"
    elif 2 * (distance > MAX_LANDMARK_DISTANCE).sum() > np.isfinite(distance).sum():
        odd = "the landmarks lie beside the face that a detector finds"
    else:
        return ()
    return (f"{odd}: {_describe_reach(reach)}; look at some of the faces: are they of another resolution?",)


def _commonest(sides: NDArray[np.int64]) -> int:
    """The commonest side, of equally common ones the largest; 0 if there are none."""
    values, counts = np.unique(sides, return_counts=True)
    return int(values[counts == counts.max()].max()) if len(values) else 0


def _report(release: Release, clips: list[Clip], rows: Part, skipped: Counter[str], size: int) -> Report:
    valid, present = (rows.labels != MISSING).sum(0).tolist(), (rows.labels == 1).sum(0).tolist()
    rated = np.isfinite(rows.intensities).sum(0).tolist()
    frames = Counter(clip.fold for clip in clips)
    return Report(
        name=release.name,
        kept=len(clips),
        expected=release.expected,
        skipped=dict(skipped.most_common()),
        aus=release.aus,
        occurrence=tuple(p / v if v else None for p, v in zip(present, valid, strict=True)),
        valid=tuple(valid),
        subjects=len({clip.subject for clip in clips}),
        folds={fold: frames[fold] for fold in sort_folds(frames)},
        image_size=size,
        remarks=(*release.remarks, *_remarks(rows.reach, rows.distance)),
        intensities=tuple(rated) if any(rated) else (),
    )


def _write_index(
    path: Path, release: Release, clips: list[Clip], rows: Part, aus_with_intensities: tuple[facs.AU, ...]
) -> None:
    """Write the index; `clips` are those of the rows."""
    import pandas as pd

    columns: dict[str, Any] = {
        "subject": [clip.subject for clip in clips],
        "task": [clip.task for clip in clips],
        "frame": rows.number,
        "fold": [clip.fold for clip in clips],
        "path": rows.path.tolist(),
        "eye_distance": facs.eye_distance(torch.from_numpy(rows.landmarks)).numpy(),
    }
    columns |= zip(LANDMARK_COLUMNS, rows.landmarks.transpose(2, 1, 0).reshape(-1, len(clips)), strict=True)
    columns |= {
        name: pd.arrays.IntegerArray(values, values == MISSING)
        for name, values in zip(au_columns(release.aus), rows.labels.T.copy(), strict=True)
    }
    columns |= zip(
        intensity_columns(aus_with_intensities),
        (rows.intensities[:, release.aus.index(au)] for au in aus_with_intensities),
        strict=True,
    )
    index = pd.DataFrame(columns)
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            index.to_parquet(temporary, engine="pyarrow", index=False)
        else:
            index.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
