"""Image files and arrays in all forms."""

import cv2
import numpy as np
import pytest
from skimage import data

from jaa_ext.data import images
from jaa_ext.data.images import ImageError, as_rgb, read_image


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


def write(path, image, *options):
    assert cv2.imwrite(str(path), image, list(options))
    return path


class TestReadImage:
    def test_colour(self, tmp_path, astronaut):
        path = write(tmp_path / "a.png", astronaut[..., ::-1])
        assert np.array_equal(read_image(path), astronaut)
        assert np.array_equal(read_image(str(path)), astronaut)

    def test_grey(self, tmp_path, astronaut):
        grey = astronaut[..., 1]
        assert np.array_equal(read_image(write(tmp_path / "a.png", grey)), np.dstack([grey] * 3))

    def test_16_bits(self, tmp_path, astronaut):
        path = write(tmp_path / "a.png", astronaut[..., ::-1].astype(np.uint16) * 257)
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == np.uint16
        assert np.array_equal(read_image(path), astronaut)

    def test_transparency_shows_mid_grey(self, tmp_path):
        pixels = np.zeros((1, 3, 4), np.uint8)
        pixels[0] = [(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 255, 51)]  # BGRA; 51 is a fifth
        expected = [[(30, 20, 10), (128, 128, 128), (153, 102, 102)]]
        assert read_image(write(tmp_path / "a.png", pixels)).tolist() == np.array(expected).tolist()

    def test_palette(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        path = tmp_path / "a.png"
        picture = image.fromarray(np.array([[0, 1]], np.uint8), "P")
        picture.putpalette([1, 2, 3, 250, 251, 252])
        picture.save(path)
        assert read_image(path).tolist() == [[[1, 2, 3], [250, 251, 252]]]

    def test_cmyk(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
        assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 100, 50)).max() < 8

    def test_exif_orientation(self, tmp_path, astronaut):
        path = write(tmp_path / "a.jpg", astronaut[:, ::-1, ::-1][:400], cv2.IMWRITE_JPEG_QUALITY, 95)
        stored = read_image(path)
        # EXIF by hand: one entry, tag 0x0112 (orientation), a short, 6: turn by 90 degrees clockwise.
        tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
        body = b"Exif\0\0" + tiff
        jpeg = path.read_bytes()
        path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:])
        assert np.array_equal(read_image(path), np.rot90(stored, -1))

    def test_opaque_files_are_decoded_once(self, tmp_path, astronaut, monkeypatch):
        decoded = []
        decode = images._decode
        monkeypatch.setattr(images, "_decode", lambda *given: decoded.append(given) or decode(*given))
        for name in ("a.png", "a.jpg"):
            read_image(write(tmp_path / name, astronaut))
        assert len(decoded) == 2

    def test_a_transparent_colour(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        picture = image.fromarray(np.array([[(1, 2, 3), (9, 8, 7)]], np.uint8))
        picture.save(tmp_path / "a.png", transparency=(9, 8, 7))
        assert read_image(tmp_path / "a.png").tolist() == [[[1, 2, 3], [128, 128, 128]]]

    @pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
    def test_a_file_cut_short(self, tmp_path, astronaut, ending, capfd):
        path = write(tmp_path / f"a.{ending}", astronaut)
        whole = path.read_bytes()
        for length in (len(whole) // 2, len(whole) - 20):
            path.write_bytes(whole[:length])
            with pytest.raises(ImageError, match=f"a.{ending}: (the image is cut short|is damaged)"):
                read_image(path)
        assert capfd.readouterr().err == ""

    def test_a_jpeg_cut_behind_its_thumbnail_and_one_with_a_trailer(self, tmp_path, astronaut):
        path = write(tmp_path / "a.jpg", astronaut)
        whole = path.read_bytes()
        thumbnail = cv2.imencode(".jpg", astronaut[:16, :16])[1].tobytes()
        header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
        path.write_bytes(whole[:2] + header + whole[2 : len(whole) // 2])
        with pytest.raises(ImageError, match="cut short"):
            read_image(path)
        path.write_bytes(whole[:2] + header + whole[2:] + b"appended by a camera \xff\xda ...")
        assert read_image(path).shape == astronaut.shape

    def test_what_is_no_image(self, tmp_path):
        text, empty = tmp_path / "text.png", tmp_path / "empty.png"
        text.write_text("no image")
        empty.touch()
        floats = write(tmp_path / "floats.tiff", np.ones((4, 4, 3), np.float32))
        for path, message in (
            (text, "text.png: is damaged, or not an image"),
            (empty, "empty.png: the file is empty"),
            (tmp_path, f"{tmp_path.name}: is a folder"),
            (tmp_path / "none.png", "none.png: there is no such file"),
            (floats, "floats.tiff: got an image of dtype float32, wanted uint8 or uint16"),
        ):
            with pytest.raises(ImageError, match=message):
                read_image(path)


class TestAsRgb:
    def test_one_channel_is_repeated(self):
        grey = np.array([[1, 2]], np.uint8)
        for image in (grey, grey[..., None]):
            assert as_rgb(image).tolist() == [[[1, 1, 1], [2, 2, 2]]]

    def test_16_bits_are_rounded(self):
        values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        assert np.array_equal(as_rgb(values)[..., 0], np.rint(values / 65535 * 255))

    @pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 5), (1, 4, 4, 3), (0, 4, 3)])
    def test_a_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"got an image of shape \(.*wanted"):
            as_rgb(np.zeros(shape, np.uint8))

    def test_a_wrong_dtype(self):
        with pytest.raises(TypeError, match="dtype float64, wanted uint8 or uint16"):
            as_rgb(np.zeros((4, 4, 3)))
