"""Kinds of input that `jaa predict` and `jaa draw` read: photographs, videos, tables, interrupted jobs."""

from __future__ import annotations

import io
import re
import shutil
import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import get_args

import cv2
import numpy as np
import pandas as pd
from damage import damage_bytes, damage_table
from files import Everywhere, Files, require
from kinds_data import damage_parquet
from kinds_models import tiny_model
from numpy.typing import NDArray
from PIL import Image

from jaa_ext.data.video import Video
from jaa_ext.models import save_model
from jaa_ext.predict import (
    FacePrediction,
    FramePrediction,
    Predictor,
    compare_tables,
    convert_table,
    read_image,
    read_table,
    write_table,
)
from jaa_ext.predict import job as predict_job
from jaa_ext.predict.compare import By
from jaa_ext.predict.convert import Tool, convert_file
from jaa_ext.predict.drawings import draw_tables
from jaa_ext.predict.job import predict_tables
from jaa_ext.predict.other_tools import FaceTable, read_face_table
from jaa_ext.predict.sources import find_sources


def picture(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Something smooth, something sharp, some noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 30, (height, width))
    channels = (4 * x, 4 * y, 2 * (x + y) + noise)
    return np.stack(channels, -1).clip(0, 255).astype(np.uint8) // 2 + 60 * (x // 16 % 2)[..., None].astype(
        np.uint8
    )


class Photographs(Files):
    """Images in the formats that are read, in several of their forms."""

    def make(self) -> None:
        image = Image.fromarray(picture())
        exif = Image.Exif()
        exif[0x0112] = 6
        grey, clear = image.convert("L"), image.copy()
        clear.putalpha(grey)
        forms = {
            "rgb.png": (image, {}),
            "grey.png": (grey, {}),
            "palette.png": (image.quantize(16), {}),
            "clear.png": (clear, {}),
            "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 200), {}),
            "turned.png": (image, {"exif": exif}),
            "rgb.jpg": (image, {}),
            "grey.jpg": (grey, {}),
            "cmyk.jpg": (image.convert("CMYK"), {}),
            "progressive.jpg": (image, {"progressive": True}),
            "turned.jpg": (image, {"exif": exif}),
            "lossy.webp": (image, {}),
            "lossless.webp": (clear, {"lossless": True}),
            "moving.webp": (image, {"save_all": True, "append_images": [image.rotate(90)]}),
            "plain.tiff": (image, {}),
            "lzw.tiff": (image, {"compression": "tiff_lzw"}),
            "deflate.tiff": (clear, {"compression": "tiff_deflate"}),
            "jpeg.tiff": (image, {"compression": "jpeg"}),
            "pages.tiff": (grey, {"save_all": True, "append_images": [grey]}),
            "rgb.bmp": (image, {}),
            "palette.bmp": (image.quantize(16), {}),
            "still.gif": (image, {}),
            "moving.gif": (image, {"save_all": True, "append_images": [image.rotate(90)]}),
            "rgb.avif": (image, {}),
            "rgb.ppm": (image, {}),
            "rgb.jp2": (image, {}),
        }
        for name, (form, options) in forms.items():
            form.save(self.folder / name, **options)
        self.photograph = self.folder / "rgb.png"
        self.way = ""

    def change(self, random: Random) -> None:
        self.photograph = random.choice(sorted(self.valid))
        data, ending = self.valid[self.photograph], self.photograph.suffix
        if ending == ".png" and random.random() < 0.3:
            self.way = "png"
            self.put(self.photograph, damage_png(data, random))
            return
        others = tuple(self.valid[path] for path in sorted(self.valid) if path.suffix == ending)
        damaged, self.way = damage_bytes(data, random, others)
        self.put(self.photograph, damaged)

    def take(self) -> None:
        image = read_image(self.photograph)
        _check_image(image)
        if not self.changed:
            return
        again = read_image(self.photograph)
        require(np.array_equal(image, again), f"a second reading gives another picture, after {self.way}")
        if self.way == "cut":
            damaged = self.photograph.read_bytes()
            self.photograph.write_bytes(self.valid[self.photograph])
            whole = read_image(self.photograph)
            self.photograph.write_bytes(damaged)
            if not np.array_equal(image, whole):
                left = len(damaged) / len(self.valid[self.photograph])
                require(
                    False, f"{self.photograph.name}: cut to {100 * left:.0f} %, it is read as a whole picture"
                )


def damage_png(data: bytes, random: Random) -> bytes:
    """Chunks changed, with checksums that are right: sizes above all."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    place = random.randrange(len(chunks))
    kind, body = chunks[place]
    match random.randrange(5):
        case 0:
            sides = (0, 1, 2, 50, 5000, 20_000, 65_535, 2**20, 2**31 - 1)
            header = struct.pack(">II", random.choice(sides), random.choice(sides)) + chunks[0][1][8:]
            chunks[0] = b"IHDR", header
        case 1:
            depth = bytes(
                (random.choice((1, 2, 4, 8, 16, 3)), random.randrange(8), 0, 0, random.randrange(2))
            )
            chunks[0] = b"IHDR", chunks[0][1][:8] + depth
        case 2:
            del chunks[place]
        case 3:
            chunks.insert(place, chunks[random.randrange(len(chunks))])
        case 4:
            chunks[place] = kind, damage_bytes(body, random)[0] if body else b"x"
    parts = [data[:8]]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))]
    return b"".join(parts)


def _check_image(image: NDArray[np.uint8]) -> None:
    require(
        image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, f"{image.dtype} {image.shape}"
    )
    require(image.size > 0 and image.flags.c_contiguous, f"a picture of shape {image.shape}")


BITS, BAR = 6, 16
FRAMES, FPS = 24, 25


def numbered(number: int) -> NDArray[np.uint8]:
    """A picture that shows its number in bars, black or white, and once more, turned round, below."""
    bars = np.array([230 if number >> bit & 1 else 20 for bit in range(BITS)], np.uint8).repeat(BAR)
    upper = np.broadcast_to(bars, (24, BITS * BAR))
    return np.ascontiguousarray(np.concatenate([upper, 250 - upper])[..., None].repeat(3, 2))


FORMS = (
    *(
        ("mjpg.avi", "MJPG"),
        ("mpeg4.avi", "XVID"),
        ("ffv1.avi", "FFV1"),
        ("mpeg4.mp4", "mp4v"),
        ("mpeg4.mkv", "mp4v"),
    ),
    *(
        ("mjpg.mkv", "MJPG"),
        ("mjpg.mov", "MJPG"),
        ("vp8.webm", "VP80"),
        ("vp9.webm", "VP90"),
        ("mpeg2.ts", "mpg2"),
    ),
    *(
        ("mpeg2.m2ts", "mpg2"),
        ("mpeg1.mpg", "mpg1"),
        ("wmv2.wmv", "WMV2"),
        ("flv1.flv", "FLV1"),
        ("h263.3gp", "H263"),
    ),
)


class Videos(Files):
    """Videos as OpenCV writes them; every frame shows its number."""

    def make(self) -> None:
        for name, codec in FORMS:
            path = self.folder / name
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FPS, (BITS * BAR, 48))
            if not writer.isOpened():
                continue  # not every build of OpenCV has all encoders
            for number in range(1, FRAMES + 1):
                writer.write(numbered(number))
            writer.release()
        self.video = next(self.folder.glob("mjpg.avi"))

    def change(self, random: Random) -> None:
        self.video = random.choice(sorted(self.valid))
        data = self.valid[self.video]
        others = tuple(data for path, data in self.valid.items() if path.suffix == self.video.suffix)
        damaged, _ = damage_bytes(data, random, others)
        self.put(self.video, damaged)

    def take(self) -> None:
        film = Video(self.video)
        require(0 < film.fps <= 1000, f"{film.fps} frames a second")
        number, time = 0, -1.0
        for count, frame in enumerate(film.frames()):
            _check_image(frame.image)
            require(frame.number > number, f"frame {frame.number} after {number}")
            require(
                np.isfinite(frame.timestamp) and frame.timestamp >= time,
                f"{frame.timestamp} s after {time} s",
            )
            number, time = frame.number, frame.timestamp
            require(count < 50 * FRAMES, f"more than {count} frames of {FRAMES}")


def predictions(most_faces: int) -> list[FramePrediction]:
    """Of 15 frames of one video, with 0 to so many faces each."""
    random = np.random.default_rng(0)
    return [
        FramePrediction(
            "talk.mp4",
            number,
            number / 25,
            picture(),
            [some_face(i, random) for i in range(number % (most_faces + 1))],
        )
        for number in range(1, 16)
    ]


def some_face(face_id: int, random: np.random.Generator) -> FacePrediction:
    """Of AUs 1, 4 and 12."""
    landmarks = random.uniform(0, 64, (49, 2)).astype(np.float32)
    probabilities = random.random(3, np.float32)
    crop = picture()[:8, :8]
    present = probabilities > 0.5
    box, intensities = (1, 2, 30, 40), 4 * probabilities
    return FacePrediction(
        *(face_id, box, landmarks, landmarks, probabilities, present, crop, None, None),
        intensities=intensities,
    )


class TableFiles(Files):
    """Tables, of which one is damaged."""

    table: Path

    def change(self, random: Random) -> None:
        self.table = random.choice(sorted(self.valid))
        data = self.valid[self.table]
        if self.table.suffix == ".csv":
            self.put(self.table, damage_table(data, random))
        else:
            self.put(
                self.table,
                damage_parquet(data, random) if random.random() < 0.6 else damage_bytes(data, random)[0],
            )


class Tables(TableFiles):
    """Tables of predictions, which are drawn as time lines and converted."""

    def make(self) -> None:
        for name in ("table.csv", "table.parquet"):
            write_table(self.folder / name, predictions(2), (1, 4, 12), weights="a test")
        self.table = self.folder / "table.csv"

    def take(self) -> None:
        table = read_table(self.table)
        require(set(table["success"].dropna()) <= {0, 1}, f"success {set(table['success'])}")
        draw_tables([self.table], self.out)
        for to in get_args(Tool):
            made = self.out / f"{to}.csv"
            convert_file(self.table, to, made)
            if table["source"].nunique() == 1:
                check_face_table(read_face_table(made))

    def arguments(self) -> Sequence[object]:
        return "draw", self.table, "--out", self.out


class OtherTables(TableFiles):
    """Tables of other tools, which are compared with one of ours."""

    by: By = "frame"

    def make(self) -> None:
        self.ours = self.folder.parent / "ours.csv"
        write_table(self.ours, predictions(1), (1, 4, 12), weights="a test", intensity=True)
        ours = read_table(self.ours)
        for to in get_args(Tool):
            made = convert_table(ours, to).table
            made.to_csv(self.folder / f"{to}.csv", index=False)
            made.to_parquet(self.folder / f"{to}.parquet", index=False)
        video, photograph = libreface_tables(ours)
        openface3 = openface3_table(ours)
        for name, made in (("libreface", video), ("photograph", photograph), ("openface3", openface3)):
            made.to_csv(self.folder / f"{name}.csv", index=False)
        openface3.to_parquet(self.folder / "openface3.parquet", index=False)
        for table in self.folder.iterdir():
            compare_tables(self.ours, table)
        self.table = self.folder / "openface.csv"

    def change(self, random: Random) -> None:
        super().change(random)
        self.by = random.choice(get_args(By))

    def take(self) -> None:
        table = read_face_table(self.table)
        check_face_table(table)
        comparison = compare_tables(self.ours, self.table, by=self.by)
        pairs = comparison.pairs
        require(0 < pairs <= min(comparison.faces), f"{pairs} pairs of {comparison.faces}")
        for one in comparison.aus:
            shares = [one.present_a, one.present_b, one.f1]
            require(all(x is None or 0 <= x <= 1 for x in shares), f"{one.au}: shares {shares}")
            scores = [one.kappa, one.icc, one.pearson]
            require(all(x is None or abs(x) <= 1 + 1e-9 for x in scores), f"{one.au}: scores {scores}")
            require(max(one.frames, one.values) <= pairs, f"more than {pairs} pairs: {one}")
        comparison.write(self.out)

    def arguments(self) -> Sequence[object]:
        return "compare", self.ours, self.table, "--by", self.by, "--out", self.out


def libreface_tables(ours: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of a video and of a photograph, as LibreFace writes them; with two of its 478 landmarks."""
    faces = ours[ours["success"] == 1].reset_index(drop=True)
    of_video = pd.DataFrame({"frame_idx": faces["frame"] - 1, "frame_time_in_ms": (faces["frame"] - 1) / FPS})
    about = pd.DataFrame({name: 1.5 for name in ("pitch", "yaw", "roll")}, faces.index)
    points = {f"lm_mp_{i}_{axis}": 0.25 for i in range(2) for axis in "xyz"}
    aus = {"au_1": "AU01_c", "au_4": "AU04_c", "au_12_intensity": "AU12_r", "au_4_intensity": "AU04_r"}
    rated = pd.DataFrame({theirs: faces[name] for theirs, name in aus.items()})
    rest = pd.DataFrame({"facial_expression": "Neutral", "gaze_yaw": 2.5, "gaze_pitch": -1.0}, faces.index)
    where = pd.DataFrame(points, faces.index)
    video = pd.concat((of_video, about, where, rated, rest), axis=1)
    return video, pd.concat((about, where, rest, rated), axis=1).iloc[:1]


def openface3_table(ours: pd.DataFrame) -> pd.DataFrame:
    """Of a video, as OpenFace 3.0 writes it: lists are text."""
    found = ours["success"] == 1
    face_id = ours["face_id"].where(found)

    def text(lists: list[list]) -> list[str | None]:
        return [str(one) if seen else None for one, seen in zip(lists, found, strict=True)]

    boxes = ours[["left", "top", "right", "bottom"]].to_numpy().tolist()
    x, y = (ours[[f"{axis}_{i}" for i in range(49)]].to_numpy() for axis in "xy")
    points = np.stack((x, y), -1)
    landmarks = np.concatenate((points[:, :33], points, points[:, :16]), 1)  # 98, of which 33 to 81 are ours
    return pd.DataFrame(
        {
            "timestamp": "2026-11-30 12:00:00",
            "video_path": "talk.mp4",
            "frame_index": ours["frame"] - 1,
            "face_id": face_id,
            "face_detection": text([[*box, 0.75, *[1.5] * 10] for box in boxes]),
            "landmarks": text(landmarks.tolist()),
            "emotion": face_id,
            "gaze_yaw": face_id,
            "gaze_pitch": face_id,
            "action_units": text([[[p, 0.0, 0.25, 0.5, 0.75, 1 - p, 0.5, 1.0]] for p in ours["AU01_p"]]),
        }
    )


def check_face_table(table: FaceTable) -> None:
    """See that what was read of a table makes sense."""
    faces = len(table.frames)
    require(np.isin(table.frames, table.all_frames).all(), f"frames {table.frames}")
    require((np.diff(table.all_frames, prepend=0) > 0).all(), f"frames {table.all_frames}")
    require(table.boxes.shape == (faces, 4) and not np.isinf(table.boxes).any(), f"boxes {table.boxes}")
    for values, most in ((table.presence, 1), (table.probabilities, np.inf), (table.intensities, 5)):
        for au, column in values.items():
            require(re.fullmatch(r"AU\w+", au), f"an AU of the name {au}")
            least = -np.inf if most == np.inf else 0
            fine = np.isnan(column) | ((column >= least) & (column <= most))
            require(column.shape == (faces,) and fine.all(), f"{au}: {column}")
    for au, column in table.presence.items():
        require(np.isin(column[~np.isnan(column)], (0, 1)).all(), f"{au}: {column}")


class Unfinished(Files):
    """What an interrupted `jaa predict` left, with which it goes on."""

    def make(self) -> None:
        save_model(tiny_model(), self.folder / "model.safetensors")
        video = self.folder / "talk.avi"
        writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 64))
        for i in range(12):
            writer.write(np.full((64, 64, 3), 20 * i, np.uint8))
        writer.release()
        self.video = video
        self._predict(self.folder / "whole")
        self.whole = (self.folder / "whole" / "talk.csv").read_bytes()
        saved_every, predict_job.SAVED_EVERY = predict_job.SAVED_EVERY, 0.0
        try:
            self._predict(self.folder / "begun", stop_at=6)
        except KeyboardInterrupt:
            pass
        finally:
            predict_job.SAVED_EVERY = saved_every
        self.begun = sorted(path for path in (self.folder / "begun").rglob("*") if path.is_file())

    def _predict(self, out: Path, stop_at: int | None = None) -> None:
        detector = _Stopping(stop_at)
        predictor = Predictor(
            tiny_model().eval(), detector=detector, device="cpu", precision="float32", search_every=1
        )
        predict_tables(predictor, find_sources([self.video]), out)

    def change(self, random: Random) -> None:
        path = random.choice(self.begun)
        data = self.valid[path]
        if random.random() < 0.25:
            self.put(path, None)
        elif path.suffix in (".json", ".state", ".counts"):  # the digest of a JSON text, then the text
            self.put(path, damage_bytes(data, random)[0])
        else:
            self.put(path, data[: random.randrange(len(data) + 1)])

    def take(self) -> None:
        shutil.copytree(self.folder / "begun", self.out)
        self._predict(self.out)
        rows = (self.out / "talk.csv").read_bytes()
        if rows != self.whole:
            # Numbers that were changed to other sensible ones cannot be told; missing or torn rows can.
            table, whole = (read_table(io.StringIO(data.decode())) for data in (rows, self.whole))
            require(table["frame"].tolist() == whole["frame"].tolist(), f"frames {table['frame'].tolist()}")

    def names(self) -> Iterable[str]:
        return {path.name for path in self.changed} | {"unfinished"}


class _Stopping(Everywhere):
    """Ctrl-C is pressed when it is asked so often."""

    def __init__(self, stop_at: int | None) -> None:
        self.left = stop_at

    def __call__(self, image: NDArray[np.uint8]) -> list:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return super().__call__(image)
