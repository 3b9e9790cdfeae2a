"""How fast `jaa predict` goes through a video of one face: frames a second, and how busy each stage was.

    python benchmarks/video_speed.py [--video FILE] [--out results/NAME.json]

The network has the papers' size (l = 176, c = 8, 12 AUs) and runs whole. Its weights are random, but for the
layer that gives the landmarks, which is fitted to the very face of the video, so that it is followed as by a
trained network. Without --video a photograph of an astronaut moves over 1280x720 pixels, 30 frames a second,
in MPEG-4 part 2, the only encoder that OpenCV's packages all have. In float32, and in bfloat16 where the
processor multiplies it natively.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from machine import processor, require_name
from numpy.typing import NDArray
from skimage import data

from jaa_ext import facs
from jaa_ext.data.faces import align_face, normalize
from jaa_ext.device import has_bfloat16
from jaa_ext.memory import keep_freed_memory
from jaa_ext.models import JAANet, JAANetConfig
from jaa_ext.predict import FaceDetector, Predictor, read_table
from jaa_ext.predict.job import predict_tables
from jaa_ext.predict.sources import find_sources

SIZE = (1280, 720)
FITTED_FACES = 512


def make_video(path: Path, frames: int) -> None:
    """The astronaut, whose face is about 130 pixels wide, moves, turns, comes nearer and goes away."""
    picture = data.astronaut()
    random = np.random.default_rng(0)
    noise = random.normal(0, 4, (SIZE[1], SIZE[0], 3))
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, SIZE)
    for i in range(frames):
        matrix = cv2.getRotationMatrix2D((224, 128), 8 * np.sin(i / 40), 1.5 + 0.2 * np.sin(i / 55))
        matrix[:, 2] += np.array(SIZE) / 2 - (224, 128) + (120 * np.sin(i / 35), 60 * np.sin(i / 25))
        frame = cv2.warpAffine(picture, matrix, SIZE, borderValue=(90, 90, 90))
        frame = np.clip(frame + np.roll(noise, i * 7, axis=1), 0, 255).astype(np.uint8)
        video.write(np.ascontiguousarray(frame[..., ::-1]))
    video.release()


def fitted_model(image: NDArray[np.uint8]) -> JAANet:
    """A network of the papers' size whose landmarks are those of the face in the image."""
    (face,) = FaceDetector(landmarks="dlib")(image)
    torch.manual_seed(0)
    model = JAANet(JAANetConfig.released(facs.BP4D_AUS)).to(memory_format=torch.channels_last)
    random = np.random.default_rng(0)
    crops, landmarks = [], []
    for _ in range(FITTED_FACES):
        # Aligned by landmarks that are off by some pixels, as those of the frame before are.
        centre = face.landmarks.mean(0)
        off = (face.landmarks - centre) * random.uniform(0.85, 1.15) + centre + random.normal(0, 4, 2)
        aligned, _, matrix = align_face(image, off)
        crops.append(aligned[12:188, 12:188])
        landmarks.append(face.landmarks @ matrix[:, :2].T + matrix[:, 2] - 12)
    batch = normalize(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))
    seen: list[torch.Tensor] = []
    with torch.inference_mode():
        model.train()
        for part in batch[:64].split(16):
            model(part)  # gives the batch norms their statistics
        model.eval()
        hook = model.alignment.landmarks.register_forward_hook(
            lambda _, inputs, output: seen.append(inputs[0])
        )
        for part in batch.split(16):
            model(part)
        hook.remove()
        features = torch.cat(seen).double()
        wanted = torch.from_numpy(np.stack(landmarks)).double().flatten(1)
        mean, off = features.mean(0), wanted.mean(0)
        centred = features - mean
        ridge = 1e-3 * centred.square().sum(0).mean() * torch.eye(features.shape[1], dtype=torch.float64)
        weight = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ (wanted - off)).T
        model.alignment.landmarks.weight.copy_(weight)
        model.alignment.landmarks.bias.copy_(off - weight @ mean)
    return model


def measure(model: JAANet, video: Path, precision: Any) -> dict[str, Any]:
    """One pass over the video, as the command makes it, without loading Python and the model."""
    predictor = Predictor(model, device="cpu", precision=precision)
    for _ in zip(range(30), predictor.frames(video), strict=False):  # warms up
        pass
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        summary = predict_tables(predictor, find_sources([video]), table)
        rows = read_table(table)
    return {
        "precision": predictor.precision,
        "frames": summary.frames,
        "faces": int(rows["success"].sum()),
        "ids": rows["face_id"].nunique(),
        "frames_per_second": summary.done_now / summary.seconds,
        "busy": {stage: spent / summary.seconds for stage, spent in summary.busy.items()},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--video", type=Path, help="of one face, in place of the moving astronaut")
    arguments.add_argument("--frames", type=int, default=600, help="of the moving astronaut")
    arguments.add_argument("--passes", type=int, default=3, help="of each precision, in turns")
    arguments.add_argument("--out", type=Path, help="a JSON file for the results")
    chosen = arguments.parse_args()
    if chosen.out:
        try:
            require_name(chosen.out)
        except ValueError as error:
            arguments.error(str(error))
    precisions = (["bfloat16"] if has_bfloat16(torch.device("cpu")) else []) + ["float32"]
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        video = chosen.video
        if video is None:
            video = Path(folder) / "astronaut.mp4"
            make_video(video, chosen.frames)
        capture = cv2.VideoCapture(str(video))
        image = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        capture.release()
        model = fitted_model(image)
        runs = [measure(model, video, precision) for _ in range(chosen.passes) for precision in precisions]
    for run in runs:
        shares = ", ".join(
            f"{stage} {100 * share:.0f} %" for stage, share in run["busy"].items() if share > 0.005
        )
        print(
            f"{run['precision']}: {run['frames_per_second']:.1f} frames/s ({run['faces']} faces in "
            f"{run['frames']} frames, {run['ids']} ids); busy: {shares}"
        )
    if chosen.out:
        about = {
            "video": chosen.video.name if chosen.video else f"moving astronaut, {SIZE[0]}x{SIZE[1]}, mp4v",
            **processor(),
        }
        chosen.out.write_text(json.dumps({**about, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
