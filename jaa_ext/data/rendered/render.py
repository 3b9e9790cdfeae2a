"""Rendering one face: a person with an expression, and a view of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.faces import alignment_matrix, transform
from jaa_ext.data.rendered.expression import Expression
from jaa_ext.data.rendered.head import head_model
from jaa_ext.data.rendered.person import Fields, Person, View

INNER_LIPS = (44, 47)
"""The landmarks in the middle of the inner edges of the upper and the lower lip."""


def render_face(
    person: Person, expression: Expression, view: View, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Render a face, aligned as by `align_face`.

    Args:
        person, expression, view: see their classes.
        size: side of the image in pixels.

    Returns:
        Image uint8 (size, size, 3) RGB; landmarks float32 (49, 2) in its pixels; pose float32 (3,), see
        `FaceSample.pose`.

    Raises:
        RuntimeError: jaa_ext has no compiled kernels, which draw.
    """
    from jaa_ext import _C

    model = head_model()
    actions = np.zeros(len(model.action_names), np.float32)
    for name, weight in (*expression.actions.items(), *_gaze_actions(view.gaze).items()):
        actions[model.action_names.index(name)] += weight
    rotation = _rotation(view.yaw, view.pitch, view.roll).ravel().tolist()
    posed = _C.pose(model.compiled, person.identity.tolist(), actions.tolist(), rotation, view.distance)
    points = posed.landmarks
    matrix = alignment_matrix(_jittered(points, view.jitter), size=size)
    landmarks = transform(points, matrix).astype(np.float32)

    rest = person.looks["wrinkles"][:, None]
    fields: Fields = {
        **person.looks,
        **view.surroundings,
        "size": size,
        "matrix": matrix.ravel(),
        "wrinkles": np.minimum(rest + expression.wrinkles * (1 - 0.4 * rest), 1.2).ravel(),
        "gaze": _direction(*view.gaze),
        "mouth_open": float(np.clip(np.diff(points[list(INNER_LIPS), 1])[0] / 16, 0, 1)),
    }
    image = _C.render(model.compiled, posed, _filled(_C.Scene(), fields))
    return image, landmarks, np.array((view.yaw, view.pitch, view.roll), np.float32)


def _filled(compiled: Any, fields: Fields) -> Any:
    """Set fields of a scene, a light or a rod of the compiled renderer."""
    from jaa_ext import _C

    for name, value in fields.items():
        if name in ("lights", "rods"):
            value = [_filled(_C.Light() if name == "lights" else _C.Rod(), each) for each in value]
        elif name == "direction":
            value = np.asarray(value) / np.linalg.norm(value)
        setattr(compiled, name, value.tolist() if isinstance(value, np.ndarray) else value)
    return compiled


def _rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Make a rotation matrix of angles in degrees, yaw first; x points right, y up, z to the camera."""
    (a, b, c), (sa, sb, sc) = np.cos(angles := np.radians((yaw, pitch, roll))), np.sin(angles)
    about_y = np.array(((a, 0, sa), (0, 1, 0), (-sa, 0, a)))
    about_x = np.array(((1, 0, 0), (0, b, sb), (0, -sb, b)))
    about_z = np.array(((c, sc, 0), (-sc, c, 0), (0, 0, 1)))
    rotation: NDArray[np.float64] = about_z @ about_x @ about_y
    return rotation


def _direction(right: float, up: float) -> tuple[float, float, float]:
    x, y = np.sin(np.radians((right, up))).tolist()
    return x, y, float(np.sqrt(1 - x * x - y * y))


def _gaze_actions(gaze: tuple[float, float]) -> dict[str, float]:
    """The actions of eyes and lids for a gaze in degrees; they are complete at 30 degrees."""
    right, up = gaze[0] / 30, gaze[1] / 30
    actions: dict[str, float] = {}
    for side, out in (("Left", right), ("Right", -right)):
        actions |= {f"eyeLookOut{side}": max(0.0, out), f"eyeLookIn{side}": max(0.0, -out)}
        actions |= {f"eyeLookUp{side}": max(0.0, up), f"eyeLookDown{side}": max(0.0, -up)}
    return actions


def _jittered(points: NDArray[np.float32], jitter: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Move landmarks a little, as by a detector's error, by a similarity transform about their mean."""
    turn, grow, *shift = jitter
    middle = points.mean(0)
    eyes = float(np.hypot(*(points[25:31].mean(0) - points[19:25].mean(0))))
    cos, sin = np.cos(turn), np.sin(turn)
    moved = (points - middle) @ np.array(((cos, sin), (-sin, cos))) * np.exp(grow)
    return np.asarray(moved + middle + np.array(shift) * eyes, np.float64)
