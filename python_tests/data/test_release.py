"""What all readers return: the clips of a release, in the form that a preparation takes."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from jaa_ext.data.readers.affwild2 import read_affwild2
from jaa_ext.data.readers.bp4d import read_bp4d
from jaa_ext.data.readers.disfa import read_disfa
from jaa_ext.data.release import MISSING, Frame, Skipped
from jaa_ext.data.rendered.release import rendered_release

NAMES = ("BP4D", "DISFA", "Aff-Wild2", "rendered faces")


@pytest.fixture(scope="module", params=NAMES)
def release(request, releases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    if request.param == "BP4D":
        releases.make_bp4d(folder)
        return read_bp4d(folder)
    if request.param == "DISFA":
        releases.make_disfa(folder, ["SN001", "SN002"])
        return read_disfa(folder)
    if request.param == "Aff-Wild2":
        releases.make_affwild2(folder)
        return read_affwild2(folder)
    return rendered_release(subjects=2, samples_per_subject=2, size=73)


def test_clips_are_named_by_their_subjects(release):
    names = [clip.name for clip in release.clips]
    assert len(set(names)) == len(names) >= 2
    for clip in release.clips:
        assert clip.subject and "/" not in clip.subject
        assert clip.name.startswith(clip.subject) and not Path(clip.name).is_absolute()
        assert isinstance(clip.task, str) and isinstance(clip.fold, str)
    assert release.name in NAMES and len(set(release.aus)) == len(release.aus)


def test_no_subject_is_in_two_folds(release):
    folds = {(clip.subject, clip.fold) for clip in release.clips}
    assert len(folds) == len({subject for subject, _ in folds})


def test_frames_fit_the_release(release):
    for clip in release.clips:
        frames = list(clip.read())
        assert len(frames) == clip.length == len({frame.number for frame in frames})
        for frame in frames:
            if isinstance(frame, Skipped):
                assert frame.reason
                continue
            assert len(frame.labels) == len(release.aus) and set(frame.labels) <= {0, 1, MISSING}
            assert frame.landmarks is None or frame.landmarks.shape == (49, 2)
            assert isinstance(frame.image, Path) or frame.image.dtype == np.uint8
            if frame.intensities is not None:
                rated = [x for x in frame.intensities if not np.isnan(x)]
                assert len(frame.intensities) == len(release.aus) and all(0 <= x <= 5 for x in rated)


def test_a_pickled_clip_reads_the_same(release):
    """So it comes to a worker."""
    clip = release.clips[0]
    for frame, same in zip(clip.read(), pickle.loads(pickle.dumps(clip)).read(), strict=True):
        assert type(frame) is type(same)
        if isinstance(frame, Frame):
            assert (frame.number, frame.labels) == (same.number, same.labels)
            assert np.array_equal(frame.landmarks, same.landmarks)
            assert np.array_equal(frame.image, same.image)
