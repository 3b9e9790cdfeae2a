"""Measure head poses on rendered faces: the table of `docs/predict.md`.

For maintainers, when the weights or `jaa_ext.predict.pose` change::

    python scripts/pose_table.py --faces 2000
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from jaa_ext import _C
from jaa_ext.data.faces import alignment_matrix
from jaa_ext.data.rendered import AUS, Expression, RenderedFaces
from jaa_ext.data.rendered.head import head_model
from jaa_ext.data.rendered.person import Person, View
from jaa_ext.data.rendered.render import _gaze_actions, _jittered, _rotation, render_face
from jaa_ext.predict import Predictor, head_pose
from jaa_ext.predict.pose import euler_angles

WIDTH, HEIGHT = 640, 480
SCALE = 1.6
"""Pixels of the picture for a millimetre at the head."""
FIRST = 50_000
"""The first person's number, whom no training set holds."""
SIDE = 400
FLIP = np.diag((1.0, -1.0, -1.0))
"""From the renderer's axes to the camera's."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=int, default=2000)
    count = parser.parse_args().faces
    torch.set_num_threads(1)
    predictor = Predictor(device="cpu", precision="float32")
    people = RenderedFaces(subjects=range(FIRST, FIRST + count), samples_per_subject=1, seed=11)
    rng = np.random.default_rng(4)
    rows: dict[str, list[NDArray[np.float64]]] = {
        name: [] for name in ("true", "network", "found", "found, 500 pixels")
    }
    for subject in range(FIRST, FIRST + count):
        person, manner = people._person(subject)
        sides = people._intensities(subject)[0].tolist()
        expression = Expression.random(rng, dict(zip(AUS, map(tuple, sides), strict=True)), manner)
        view = replace(View.random(rng, person), yaw=rng.uniform(-45, 45))
        image, landmarks = picture(person, expression, view)

        # The network's landmarks after two rounds, from where the true ones align the face.
        predicted = landmarks
        for _ in range(2):
            (predicted,) = predictor._predict_landmarks([(image, predicted)])
        middle = landmarks.mean(0)
        found = [
            face.landmarks
            for face in predictor.faces(image)
            if face.settled and np.abs(face.landmarks.mean(0) - middle).max() < 60
        ]
        focal_length = SCALE * view.distance
        rows["true"].append(errors(landmarks, view, focal_length))
        rows["network"].append(errors(predicted, view, focal_length))
        for points in found[:1]:
            rows["found"].append(errors(points, view, focal_length))
            rows["found, 500 pixels"].append(errors(points, view, 500.0))
    for name, errors_of in rows.items():
        pitch, yaw, roll, distance = np.mean(errors_of, axis=0)
        print(
            f"| {name} | {len(errors_of)} | {pitch:.2f} | {yaw:.2f} | {roll:.2f} | {100 * distance:.1f} % |"
        )


def picture(
    person: Person, expression: Expression, view: View
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A rendered face as a camera sees it whose axis goes through the head, and its landmarks."""
    rendered, _, _ = render_face(person, expression, view, SIDE)
    model = head_model()
    actions = np.zeros(len(model.action_names))
    for name, weight in (*expression.actions.items(), *_gaze_actions(view.gaze).items()):
        actions[model.action_names.index(name)] += weight
    rotation = _rotation(view.yaw, view.pitch, view.roll).ravel().tolist()
    posed = _C.pose(model.compiled, person.identity.tolist(), actions.tolist(), rotation, view.distance)
    to_picture = np.array(((SCALE, 0, (WIDTH - 1) / 2), (0, SCALE, (HEIGHT - 1) / 2), (0, 0, 1)))
    to_rendered = np.vstack((alignment_matrix(_jittered(posed.landmarks, view.jitter), size=SIDE), (0, 0, 1)))
    image = cv2.warpAffine(
        rendered,
        (to_picture @ np.linalg.inv(to_rendered))[:2],
        (WIDTH, HEIGHT),
        flags=cv2.INTER_AREA,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(128, 128, 128),
    )
    landmarks = posed.landmarks * SCALE + to_picture[:2, 2]
    return image, landmarks.astype(np.float32)


def errors(landmarks: NDArray[np.float32], view: View, focal_length: float) -> NDArray[np.float64]:
    """Absolute errors: degrees about x, y and z, and of the distance as a share of it."""
    pose = head_pose(landmarks, WIDTH, HEIGHT, focal_length)
    assert pose is not None
    truth = euler_angles(FLIP @ _rotation(view.yaw, view.pitch, view.roll) @ FLIP)
    angles = np.degrees(np.abs(pose.rotation - truth))
    return np.append(angles, abs(pose.translation[2] / view.distance - 1))


if __name__ == "__main__":
    main()
