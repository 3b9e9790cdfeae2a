"""Head pose from landmarks: where the head is before the camera, and how it is turned, as OpenFace 2 says it.

Camera coordinates: x to the right of the picture, y down, z away from the camera, in millimetres, with the
origin in the camera. A rotation R is told by three angles in radians, R = Rx Ry Rz, each by the usual matrix
of a turn about that axis: a positive Rx looks down, a positive Ry to the left of the picture, a positive Rz
tilts clockwise in the picture. Source: OpenFace's page "Output Format" ("positive Z is away from the camera";
"R = Rx * Ry * Rz, left-handed positive sign") and the function `Euler2RotationMatrix` of its sources, whose
matrix this is, entry by entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.rendered.expression import REST
from jaa_ext.data.rendered.head import FILE

FOCAL_LENGTH, FOCAL_SIZE = 500.0, (640, 480)
"""OpenFace's guess: a focal length of 500 pixels in pictures of this width and height."""
SHAPES = 30
"""Number of directions in which the head's landmarks may differ from the mean head's; they hold 99 % of the
variance."""
ACTION = 0.15
"""Standard deviation of each facial action of the head model, as a share of its full movement."""
LANDMARK_ERROR = 1.2
"""Standard deviation of landmarks in millimetres at the head, in x as in y. The shipped network errs by 1.5
on rendered faces, but in part moves neighbours alike. Of 0.5 to 2.2 the pitch of 1,000 people is nearest with
1, by 0.01 degrees; but then more faces are seen equally well in two poses. The covariance of the network's
errors, in place of one number, is no better."""
STEPS, AT_REST = 20, 0.002
"""Most Gauss-Newton steps from where `cv2.solvePnP` places the head, and the turn in radians that ends them.
Three suffice for most faces. But one that looks up a little is seen nearly as one that looks down: of two
frames alike `cv2.solvePnP` may place one so and the other so, and each step but halves what is between."""


@dataclass(frozen=True, eq=False)
class HeadPose:
    """Where a head is and how it is turned, in the coordinates of `jaa_ext.predict.pose`."""

    translation: NDArray[np.float64]
    """(3,) millimetres from the camera to the middle between the eyes: ``pose_Tx``, ``pose_Ty``,
    ``pose_Tz``."""
    rotation: NDArray[np.float64]
    """(3,) radians: ``pose_Rx``, ``pose_Ry``, ``pose_Rz``."""


def default_focal_length(width: int, height: int) -> float:
    """Guess the focal length of a camera in pixels, as OpenFace does, from the size of its pictures.

    Example:
        >>> default_focal_length(640, 480), default_focal_length(1280, 720)
        (500.0, 875.0)
    """
    return FOCAL_LENGTH * (width / FOCAL_SIZE[0] + height / FOCAL_SIZE[1]) / 2


def head_pose(
    landmarks: NDArray[np.float32], width: int, height: int, focal_length: float | None = None
) -> HeadPose | None:
    """Find the pose of a head by its landmarks.

    `cv2.solvePnP` places the mean head. Then pose and shape are fitted together by Gauss-Newton steps, since
    a long face that looks ahead and a short one that looks up or down differ little; the shape is held to
    what heads are like (`head_shapes`).

    Args:
        landmarks: (49, 2) x, y in pixels of the picture, counted from 0 at the centre of the top left one.
        width, height: of the picture in pixels; the camera looks at its middle.
        focal_length: of the camera in pixels; None for `default_focal_length`. A wrong one scales the
            distance ``pose_Tz`` in proportion and hardly changes the angles.

    Returns:
        The pose; None for landmarks that are not finite, or that no head before a camera can have.

    Raises:
        ValueError: a focal length that is not a positive number.

    Example:
        >>> from jaa_ext.predict.pose import head_shapes
        >>> ahead = 500 * head_shapes().mean[:, :2] / (800 + head_shapes().mean[:, 2:]) + (319.5, 239.5)
        >>> pose = head_pose(ahead, 640, 480)
        >>> (pose.translation.round() + 0).tolist(), (pose.rotation.round(2) + 0).tolist()
        ([0.0, 0.0, 800.0], [0.0, 0.0, 0.0])
    """
    focal_length = check_focal_length(
        default_focal_length(width, height) if focal_length is None else focal_length
    )
    if not np.isfinite(landmarks).all():
        return None
    points = (landmarks.astype(np.float64) - ((width - 1) / 2, (height - 1) / 2)) / focal_length
    try:
        placed, turn, shift = cv2.solvePnP(
            head_shapes().mean, points, np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP
        )
        if not placed:
            return None
        start = np.asarray(cv2.Rodrigues(turn)[0], np.float64), np.asarray(shift.ravel(), np.float64)
        with np.errstate(all="ignore"):  # of points that no head can have
            rotation, translation = _refine(points, *start)
    except (cv2.error, np.linalg.LinAlgError):
        return None
    angles = euler_angles(rotation)
    if not (np.isfinite(translation).all() and np.isfinite(angles).all() and translation[2] > 0):
        return None
    return HeadPose(translation, angles)


def check_focal_length(focal_length: float) -> float:
    """Return a focal length in pixels.

    Raises:
        ValueError: it is not a positive number.
    """
    if not 0 < focal_length < math.inf:
        raise ValueError(f"focal_length must be a number of pixels above 0, got {focal_length:g}")
    return float(focal_length)


def euler_angles(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the angles (3,) of a rotation matrix (3, 3) = Rx Ry Rz.

    Example:
        >>> euler_angles(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))[2].round(3)
        np.float64(1.571)
    """
    r = rotation
    x, y, z = (
        math.atan2(-r[1, 2], r[2, 2]),
        math.asin(min(1.0, max(-1.0, r[0, 2]))),
        math.atan2(-r[0, 1], r[0, 0]),
    )
    return np.array((x, y, z))


class HeadShapes(NamedTuple):
    """The landmarks of heads in 3D: the mean, and how people and expressions differ from it.

    Millimetres, in the axes of the camera (x right, y down, z away from it) for a head that looks straight
    into it; the origin lies in the middle between the eyeballs' centres.
    """

    mean: NDArray[np.float64]
    """(49, 3) the mean adult head at rest."""
    modes: NDArray[np.float64]
    """(`SHAPES`, 49, 3) independent directions, each as long as its standard deviation."""


@cache
def head_shapes() -> HeadShapes:
    """Take the landmarks' places and their variation from the head model of the rendered faces.

    Its file is in millimetres: the eyeballs' centres of the mean head are 62.5 mm apart, as adults' pupils
    are (63 mm on average: Dodgson, Variation and extrema of human interpupillary distance, 2004). People
    vary by its principal components of 600 adults, expressions by its facial actions.

    Example:
        >>> head_shapes().mean.shape, head_shapes().modes.shape
        ((49, 3), (30, 49, 3))
    """
    with np.load(FILE, allow_pickle=False) as file:
        vertices, weights = file["landmark_vertices"], file["landmark_weights"].astype(np.float64)

        def landmarks(values: NDArray[np.float64]) -> NDArray[np.float64]:
            corners = values[..., vertices, :].astype(np.float64)
            # From the head's axes, x to the person's left, y up, z to the camera, to those of the camera.
            return np.asarray(np.einsum("...kij,ki->...kj", corners, weights) * (1.0, -1.0, -1.0))

        mean, people = landmarks(file["vertices"]), landmarks(file["identity"])
        actions = landmarks(file["actions"]) * file["action_scale"][:, None, None]
        closed = actions[file["action_names"].tolist().index("mouthClose")]
    varied = np.concatenate((people, ACTION * actions)).reshape(-1, mean.size)
    _, sizes, directions = np.linalg.svd(varied, full_matrices=False)
    modes = (sizes[:, None] * directions)[:SHAPES].reshape(-1, *mean.shape)
    return HeadShapes(mean + REST * closed, modes)


@cache
def _shapes_by_axis() -> NDArray[np.float64]:
    """Give the mean and the modes of `head_shapes` as a row of x, of y and of z: (3, (1 + `SHAPES`) * 49)."""
    return np.stack((head_shapes().mean, *head_shapes().modes)).transpose(2, 0, 1).reshape(3, -1)


def _refine(
    points: NDArray[np.float64], rotation: NDArray[np.float64], translation: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Refine a pose by points (49, 2) of a camera with the focal length 1 and the origin in its middle.

    The most probable pose and shape, where landmarks have errors of `LANDMARK_ERROR`, the shape's weights are
    normal, and every pose is as probable as any other.
    """
    mean, modes = head_shapes()
    count, shapes = len(modes), _shapes_by_axis()
    weights = np.append(1.0, np.zeros(count))  # of the mean, and of each mode
    # How each unknown moves the points in x, y and z, millimetres: turns about these axes, shifts, shapes.
    moves = np.zeros((3, 6 + count, len(mean)))
    moves[:, 3:6] = np.eye(3)[:, :, None]
    slopes = np.empty((6 + count, 2, len(mean)))
    prior = np.diag(np.repeat((0.0, 1.0), (6, count)))
    for _ in range(STEPS):
        turned = (rotation @ shapes).reshape(3, 1 + count, -1)
        x, y, z = weights @ turned
        moves[1, 0], moves[2, 0] = -z, y
        moves[0, 1], moves[2, 1] = z, -x
        moves[0, 2], moves[1, 2] = -y, x
        moves[:, 6:] = turned[:, 1:]
        depth = z + translation[2]
        seen = (np.stack((x, y)) + translation[:2, None]) / depth
        unit = translation[2] / LANDMARK_ERROR
        for axis in (0, 1):
            np.multiply(moves[axis] - moves[2] * seen[axis], unit / depth, out=slopes[:, axis])
        flat = slopes.reshape(len(slopes), -1)
        gradient = flat @ ((points.T - seen) * unit).ravel()
        gradient[6:] -= weights[1:]
        step = np.linalg.solve(flat @ flat.T + prior, gradient)
        rotation = cv2.Rodrigues(step[:3])[0] @ rotation
        translation = translation + step[3:6]
        weights[1:] += step[6:]
        if np.abs(step[:3]).max() < AT_REST:
            break
    return rotation, translation
