"""Image files and arrays in all forms."""

import errno
import io
from pathlib import Path
from unittest import mock
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, features
from skimage import data

from jaa_ext.data import images
from jaa_ext.data.images import ImageError, as_rgb, count_pixels, read_image

STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: np.rot90(image, -1),
}
"""How a camera held in that EXIF orientation stores what stood upright before it."""
QUALITY = {"webp": {"lossless": True, "exact": True}, "jpg": {"quality": 95}, "avif": {"quality": 95}}
AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


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
        path = tmp_path / "a.png"
        picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        picture.putpalette([1, 2, 3, 250, 251, 252])
        picture.save(path)
        assert read_image(path).tolist() == [[[1, 2, 3], [250, 251, 252]]]

    def test_cmyk(self, tmp_path):
        Image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
        assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 100, 50)).max() < 8

    def test_opaque_files_are_decoded_once(self, tmp_path, astronaut, monkeypatch):
        decoded = []
        decode = cv2.imdecode
        monkeypatch.setattr(cv2, "imdecode", lambda *given: decoded.append(given) or decode(*given))
        for name in ("a.png", "a.jpg"):
            read_image(write(tmp_path / name, astronaut))
        assert len(decoded) == 2

    def test_a_transparent_colour(self, tmp_path):
        picture = Image.fromarray(np.array([[(1, 2, 3), (9, 8, 7)]], np.uint8))
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

    def test_a_chunk_of_a_png_that_says_that_it_has_gigabytes(self, tmp_path, astronaut):
        path = write(tmp_path / "a.png", astronaut)
        whole = path.read_bytes()
        path.write_bytes(whole[:33] + b"\x7f" + whole[34:])  # the length of what follows the header
        with (
            mock.patch("cv2.imdecode") as decode,
            pytest.raises(ImageError, match=r"a\.png: the image is cut"),
        ):
            read_image(path)
        assert not decode.called  # it would make room for them

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


class TestOrientation:
    """Of five formats in eight orientations, opaque and transparent."""

    @pytest.fixture
    def upright(self):
        """Four colours, which no turn or flip leaves where they are."""
        image = np.zeros((32, 48, 4), np.uint8)
        image[:16, :24], image[:16, 24:] = (230, 30, 30, 255), (30, 200, 30, 255)
        image[16:, :24], image[16:, 24:] = (30, 30, 220, 255), (240, 240, 240, 0)
        return image

    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize(
        ("ending", "channels"),
        [
            *(("jpg", 3), ("png", 3), ("webp", 3), ("tiff", 3), ("png", 4), ("webp", 4), ("tiff", 4)),
            *(pytest.param("avif", channels, marks=AVIF) for channels in (3, 4)),
        ],
    )
    def test_it_is_followed(self, tmp_path, upright, ending, channels, orientation):
        path, exif = tmp_path / f"a.{ending}", Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright[..., :channels])))
        stored.save(path, exif=exif, **QUALITY.get(ending, {}))
        # For which Pillow writes boxes of AVIF, the only ones that count there.
        boxes = [box for box in (b"irot", b"imir") if box in path.read_bytes()]
        assert bool(boxes) == (ending == "avif" and orientation > 1)
        seen = upright[..., :3].copy()
        if channels == 4:
            seen[16:, 24:] = 128
        read = read_image(path)
        assert read.shape == seen.shape
        inner = np.ones((32, 48), bool)  # JPEG and AVIF blur edges
        inner[12:20], inner[:, 20:28] = False, False
        assert np.abs(read.astype(int) - seen)[inner].max() <= (12 if ending in ("jpg", "avif") else 0)

    def test_a_damaged_one_is_none(self, tmp_path, upright):
        Image.fromarray(upright).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        assert read_image(tmp_path / "a.png").shape == (32, 48, 3)


class TestFormats:
    @pytest.mark.parametrize(
        "ending",
        [
            *("png", "apng", "bmp", "tif", "tiff", "webp", "gif", "ppm", "pnm", "jp2", "j2k", "jpx"),
            *("jpg", "jpe", "jfif", "mpo", pytest.param("avif", marks=AVIF)),
        ],
    )
    def test_it_is_read_by_what_it_holds(self, tmp_path, astronaut, ending):
        path, picture = tmp_path / f"a.{ending}", astronaut[100:164, 200:280]
        written = Image.fromarray(picture)
        written = written.quantize(256) if ending == "gif" else written
        lossy = ending in ("jpg", "jpe", "jfif", "mpo", "avif")
        written.save(path, **({"quality": 95} if lossy else QUALITY.get(ending, {})))
        nameless = path.rename(tmp_path / "nameless")
        read = read_image(nameless).astype(int)
        wanted = np.asarray(written.convert("RGB"))
        assert np.abs(read - wanted).mean() <= (3 if lossy else 0)
        assert count_pixels(nameless) == 64 * 80

    def test_of_several_pictures_the_first(self, tmp_path):
        first, second = Image.new("RGB", (20, 10), (200, 0, 0)), Image.new("RGB", (20, 10), (0, 200, 0))
        for ending in ("gif", "webp", "tiff", "png"):
            path = tmp_path / f"a.{ending}"
            first.save(path, save_all=True, append_images=[second], **QUALITY.get(ending, {}))
            assert (read_image(path) == (200, 0, 0)).all(), ending

    @pytest.mark.parametrize("ending", ["png", "tiff", "jp2"])
    def test_grey_with_transparency(self, tmp_path, ending):
        grey, alpha = np.full((2, 8, 8), 100, np.uint8)
        alpha[:, :4], alpha[:, 4:] = 0, 255
        path = tmp_path / f"a.{ending}"
        Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))).save(path)
        read = read_image(path)
        assert (read[:, :4] == 128).all() and (read[:, 4:] == 100).all()

    def test_half_transparent_tiff(self, tmp_path):
        """OpenCV multiplies its colours by the transparency, which then counts twice."""
        Image.new("RGBA", (8, 8), (200, 100, 0, 51)).save(tmp_path / "a.tiff")
        assert (read_image(tmp_path / "a.tiff") == (142, 122, 102)).all()  # a fifth, and 4/5 of 128

    @pytest.mark.parametrize("white", [1, 100, 255, 1023, 65535])
    def test_pnm_of_any_range(self, tmp_path, white):
        pixels = [0, white // 2, white]
        size = "u1" if white < 256 else ">u2"
        wanted = np.rint(np.array(pixels) / white * 255)
        for magic, channels in (("P5", 1), ("P6", 3)):
            body = np.repeat(pixels, channels).astype(size).tobytes()
            (tmp_path / "a").write_bytes(f"{magic}\n3 1\n{white}\n".encode() + body)
            assert np.abs(read_image(tmp_path / "a")[0, :, 0] - wanted).max() <= 1
        (tmp_path / "a").write_text(f"P2 # as text\n3 1 {white}\n{' '.join(map(str, pixels))}\n")
        assert np.abs(read_image(tmp_path / "a")[0, :, 0] - wanted).max() <= 1

    def test_white_of_16_bits_stays_white_in_jpeg_2000(self, tmp_path, astronaut):
        picture = astronaut[:64, :64]
        picture[:8] = 255
        path = write(tmp_path / "a.jp2", picture[..., ::-1].astype(np.uint16) * 257)
        assert np.abs(read_image(path).astype(int) - picture).max() <= 4

    def test_what_is_not_read_is_told(self, tmp_path, monkeypatch):
        path = tmp_path / "a.heic"
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        with pytest.raises(ImageError, match=r"a\.heic: .*HEIF, .* to JPEG"):
            read_image(path)
        path.write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif")
        monkeypatch.setattr(features, "check", lambda codec: False)
        with pytest.raises(ImageError, match=r"AVIF, .*Pillow [0-9.]+ cannot"):
            read_image(path)
        # OpenCV would take red for blue there.
        path.write_bytes(b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n\1\2\3")
        with pytest.raises(ImageError, match="not an image that can be read"):
            read_image(path)


class TestTooLarge:
    @pytest.mark.parametrize(
        "ending", ["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm", "jp2", pytest.param("avif", marks=AVIF)]
    )
    def test_it_is_told_before_anything_is_decoded(self, tmp_path, monkeypatch, ending):
        path = tmp_path / f"a.{ending}"
        Image.new("RGB", (40, 30)).save(path)
        monkeypatch.setenv("JAA_MAX_PIXELS", "2400")  # JPEG 2000 counts twice
        assert read_image(path).shape == (30, 40, 3)
        monkeypatch.setenv("JAA_MAX_PIXELS", "1199")
        monkeypatch.setattr(images, "as_rgb", Mock(side_effect=AssertionError("decoded")))
        monkeypatch.setattr(cv2, "imdecode", Mock(side_effect=AssertionError("decoded")))
        with pytest.raises(ImageError, match=rf"a\.{ending}: has 40 x 30 pixels, more than [0-9,]+; JAA_MAX"):
            read_image(path)

    def test_what_a_few_bytes_can_claim(self, tmp_path):
        header = cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()
        claimed = b"".join(side.to_bytes(4, "big") for side in (20000, 16000))
        (tmp_path / "a.png").write_bytes(header[:16] + claimed + header[24:])
        with pytest.raises(ImageError, match=r"20000 x 16000 pixels, .*120,000,000"):
            read_image(tmp_path / "a.png")
        assert count_pixels(tmp_path / "a.png") == 320_000_000

    def test_a_file_too_long_for_its_pixels(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.bmp", np.zeros((4, 4, 3), np.uint8))
        with path.open("r+b") as file:
            file.truncate(1 << 31)  # takes no room on the disk
        with pytest.raises(ImageError, match=r"2,147,483,648 bytes, .*120,000,000 pixels"):
            read_image(path)

    @pytest.mark.parametrize("text", ["", "0", "-1", "1e6", "many", "²"])
    def test_a_limit_that_is_none(self, tmp_path, monkeypatch, text):
        path = write(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
        monkeypatch.setenv("JAA_MAX_PIXELS", text)
        with pytest.raises(RuntimeError, match=f'JAA_MAX_PIXELS .*got "{text}"'):
            read_image(path)

    def test_memory_that_does_not_suffice(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
        lacking = cv2.error("Failed to allocate")
        lacking.code = cv2.Error.StsNoMem
        for error in (MemoryError(), lacking):
            monkeypatch.setattr(images, "as_rgb", Mock(side_effect=error))
            with pytest.raises(ImageError, match=r"a\.png: .*4 x 4 pixels .*memory"):
                read_image(path)


def test_a_disk_that_fails_while_it_is_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))

    class Failing(io.BytesIO):
        def read(self, *size):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda *_: Failing())
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(Input/output error\)"):
        read_image(path)
    assert count_pixels(path) == 0


class TestAsRgb:
    def test_one_channel_is_repeated(self):
        grey = np.array([[1, 2]], np.uint8)
        for image in (grey, grey[..., None]):
            assert as_rgb(image).tolist() == [[[1, 1, 1], [2, 2, 2]]]

    def test_16_bits_are_rounded(self):
        values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        assert np.array_equal(as_rgb(values)[..., 0], np.rint(values / 65535 * 255))

    def test_transparency_of_many_rows(self):
        image = np.random.default_rng(0).integers(0, 256, (150, 3, 4), np.uint8)
        alpha = image[..., 3:] / 255
        assert np.array_equal(as_rgb(image), np.rint(image[..., :3] * alpha + 128 * (1 - alpha)))

    @pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 5), (1, 4, 4, 3), (0, 4, 3)])
    def test_a_wrong_shape(self, shape):
        with pytest.raises(ValueError, match=r"got an image of shape \(.*wanted"):
            as_rgb(np.zeros(shape, np.uint8))

    def test_a_wrong_dtype(self):
        with pytest.raises(TypeError, match="dtype float64, wanted uint8 or uint16"):
            as_rgb(np.zeros((4, 4, 3)))
