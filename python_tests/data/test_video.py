import numpy as np
import pytest

from jaa_ext.data.video import VideoError, read_frames

COLORS = [(200, 30, 60), (20, 180, 90), (60, 90, 230), (128, 128, 128)]


def test_frames_come_in_order_and_in_rgb(releases, tmp_path):
    releases.write_video(tmp_path / "video.avi", [np.full((48, 64, 3), color, np.uint8) for color in COLORS])
    frames = list(read_frames(tmp_path / "video.avi"))
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 4
    assert all(frame.dtype == np.uint8 and frame.flags.c_contiguous for frame in frames)
    # Flat pictures lose only roundings in JPEG, of the colour conversion there and back.
    for frame, color in zip(frames, COLORS, strict=True):
        np.testing.assert_allclose(frame.reshape(-1, 3).mean(0), color, atol=4)


def test_files_that_are_no_video_are_named(tmp_path):
    with pytest.raises(VideoError, match=r"none.avi: there is no such file"):
        next(read_frames(tmp_path / "none.avi"))
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(VideoError, match=r"text.avi: is damaged, or not a video that OpenCV can decode"):
        next(read_frames(tmp_path / "text.avi"))
