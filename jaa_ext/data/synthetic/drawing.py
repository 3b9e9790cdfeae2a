"""Drawing one face by rule: a person, their AUs, and a view of them.

A face is drawn as `align_face` would place it. The model's unit is the inter-ocular distance; x points right
and y down from the point between the eyes. Tables give the left half of the picture, which is mirrored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from jaa_ext import facs
from jaa_ext.data.faces import alignment_matrix, transform

Points = NDArray[np.float64]
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]

AUS = (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24, 25, 26)
"""The AUs that are drawn, in the order of intensities."""


@dataclass(frozen=True)
class View:
    """What varies between pictures of a person besides the AUs; by default a plain frontal portrait."""

    yaw: float = 0.0
    pitch: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Error of the alignment: turn in radians, log scale, and shifts in inter-ocular distances."""
    gaze: tuple[float, float] = (0.0, 0.0)
    light: tuple[float, float] = (0.0, -0.04)
    """Change of brightness from the middle to the right edge and to the lower edge."""
    tint: Colour = (1.0, 1.0, 1.0)
    backdrop: int = 0
    """Seed of the background."""
    noise: tuple[float, int, int] = (0.0, 0, 0)
    """Standard deviation in grey values; x and y of the part of the tile of noise that is used."""

    @staticmethod
    def random(rng: np.random.Generator) -> View:
        a, b, c, d, e, f, g, h, i = rng.normal(0, 1, 9).clip(-2, 2).tolist()
        gain, *cast = rng.uniform((0.8, 0.95, 0.97, 0.93), (1.15, 1.05, 1.03, 1.07)).tolist()
        backdrop, x, y = rng.integers(0, _TILE_SPARE, 3).tolist()
        return View(
            yaw=0.12 * a,
            pitch=0.08 * b,
            jitter=(0.02 * c, 0.02 * d, 0.03 * e, 0.03 * f),
            gaze=(0.035 * g, 0.012 * h),
            light=(0.14 * i, float(rng.uniform(-0.15, 0.1))),
            tint=(gain * cast[0], gain * cast[1], gain * cast[2]),
            backdrop=backdrop,
            noise=(float(rng.uniform(1, 6)), x, y),
        )


@dataclass(frozen=True)
class Person:
    """A person: landmarks and outlines at rest, colours, hair, beard and glasses."""

    landmarks: Points
    """(49, 2) in inter-ocular distances."""
    outline: Points
    """Closed contour of the face, from the middle of the forehead via the left cheek to the chin and back."""
    hair: Points
    """Closed contour of the hair in front, as `_HAIR` has it."""
    skin: NDArray[np.float64]
    hair_colour: NDArray[np.float64]
    iris: Colour
    lips: NDArray[np.float64]
    shirt: Colour
    brow_width: float
    hair_style: str
    beard: float
    """Darkness of the beard, 0 for none."""
    glasses: str
    age: float
    """0..1: how visible wrinkles are at rest."""

    @staticmethod
    def random(rng: np.random.Generator) -> Person:
        shape = rng.normal(0, 1.3, len(_SHAPES)).clip(-2.2, 2.2)
        landmarks = _LANDMARKS + np.tensordot(shape, _SHAPES, 1)
        least, most = (-0.05, -0.1, -0.07, -0.08), (0.06, 0.08, 0.08, 0.12)
        wide, jaw, chin, hairline = rng.uniform(least, most).tolist()
        outline = _OUTLINE.copy()
        lower = _lower(outline[:, 1])
        outline[:, 0] *= 1 + wide + jaw * lower
        outline[:, 1] += chin * lower
        hair = _HAIR.copy()
        hair[:, 0] *= 1 + wide
        fringe = rng.random() < 0.3
        hair[_HAIRLINE, 1] += hairline + (0.12 if fringe else 0.0)
        tone = float(rng.random()) ** 1.3
        skin = _blend(_SKINS, tone) - 6 + rng.normal(0, 7) + rng.normal(0, 2.5, 3)
        # Fair hair goes with fair skin; grey hair with age.
        age = float(rng.random()) ** 2
        shade = float(rng.uniform(0, 1 - 0.9 * min(1, 1.6 * tone)))
        hair_colour = _blend(_HAIRS, shade)
        if age > 0.6:
            hair_colour = hair_colour + (150 - hair_colour) * rng.uniform(0.4, 0.9)
        man = rng.random() < 0.5
        styles, chances = ("short", "long", "bald"), ((0.78, 0.07, 0.15) if man else (0.3, 0.68, 0.02))
        lips = skin * (0.8, 0.6, 0.6) + (12, 2, 8)
        if not man and rng.random() < 0.5:
            lips = lips * 0.45 + np.array((176, 38, 62)) * 0.55
        eyes = ((74, 46, 28), (96, 66, 36), (88, 108, 70), (82, 120, 156))
        return Person(
            landmarks=landmarks,
            outline=outline,
            hair=hair,
            skin=skin,
            hair_colour=hair_colour,
            iris=eyes[int(rng.integers(0, 2 if tone > 0.5 else 4))],
            lips=lips,
            shirt=_colour(rng.uniform(30, 215, 3)),
            brow_width=float(rng.uniform(0.085, 0.12) if man else rng.uniform(0.06, 0.09)),
            hair_style=str(rng.choice(styles, p=chances)),
            beard=float(rng.uniform(0.12, 0.5)) if man and rng.random() < 0.45 else 0.0,
            glasses=str(rng.choice(("", "round", "square"), p=(0.75, 0.12, 0.13))),
            age=age,
        )


def draw_face(
    person: Person, intensity: NDArray[np.float64], view: View, size: int
) -> tuple[Image, NDArray[np.float32]]:
    """Draw a picture.

    Args:
        intensity: (15,) strength 0..1 of each of `AUS`.
        size: side of the picture in pixels.

    Returns:
        Image (size, size, 3) and landmarks (49, 2) in its pixels.
    """
    face = _pose(person, intensity, view, size)
    image = _background(view, size)
    _draw_head(image, person, face)
    _draw_eyes(image, person, face, view)
    _draw_mouth(image, person, face)
    _shade(image, person, face, intensity, view)
    if person.hair_style != "bald":
        _fill(image, _curve(face.hair, closed=True), person.hair_colour)
    _draw_glasses(image, person, face)
    sigma, x, y = view.noise
    if sigma:
        tile = _noise_tile(size)[y : y + size, x : x + size]
        cv2.addWeighted(image, 1, tile, sigma / _TILE_SIGMA, -128 * sigma / _TILE_SIGMA, image)
    return image, face.landmarks.astype(np.float32)


class _Face(NamedTuple):
    """The geometry of one picture in pixels."""

    unit: float
    """Inter-ocular distance."""
    landmarks: Points
    outline: Points
    hair: Points
    body: Points
    strokes: Points
    """(strokes, 3, 2) control points of Bezier curves."""


def _pose(person: Person, intensity: NDArray[np.float64], view: View, size: int) -> _Face:
    landmarks = person.landmarks + np.tensordot(intensity, _MOVES, 1)
    _keep_order(landmarks)
    strokes = landmarks[_STROKES.anchor][:, None] + _STROKES.points
    outline = person.outline.copy()
    chin = float(intensity @ _CHIN)
    outline[:, 1] += chin * _lower(outline[:, 1]) ** 2
    points = np.concatenate((landmarks, outline, person.hair, _BODY, strokes.reshape(-1, 2)))

    # The head is a paraboloid with a nose on it, seen from far away: turning moves a point by its depth.
    depth = np.maximum(-0.45 * points[:, 0] ** 2 - 0.12 * (points[:, 1] - 0.4) ** 2, -0.8)
    depth[: len(landmarks)] += _RELIEF
    depth[-3 * len(strokes) :] += np.repeat(_RELIEF[_STROKES.anchor], 3)
    points = points * (np.cos(view.yaw), np.cos(view.pitch))
    points += depth[:, None] * (np.sin(view.yaw), np.sin(view.pitch))

    matrix = alignment_matrix(points[: facs.NUM_LANDMARKS], size=size)
    unit = float(np.hypot(*matrix[:, 0]))
    angle, log_scale, dx, dy = view.jitter
    cos, sin = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
    middle = (size - 1) / 2
    points = (transform(points, matrix) - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle
    points += (dx * unit, dy * unit)
    lengths = (len(landmarks), len(outline), len(person.hair), len(_BODY))
    landmarks, outline, hair, body, control = np.split(points, np.cumsum(lengths))
    return _Face(unit, landmarks, outline, hair, body, control.reshape(-1, 3, 2))


def _keep_order(p: Points) -> None:
    """Keep lids and lips from crossing, whichever AUs meet; they may touch."""
    for upper, lower, gap in ((20, 24, 0.045), (21, 23, 0.045), (26, 30, 0.045), (27, 29, 0.045)):
        excess = max(0.0, gap - (p[lower, 1] - p[upper, 1])) / 2
        p[upper, 1] -= excess
        p[lower, 1] += excess
    p[46:49, 1] = np.maximum(p[46:49, 1], p[45:42:-1, 1] + 0.01)
    p[33:36, 1] = np.minimum(p[33:36, 1], p[43:46, 1] - 0.03)
    p[39:42, 1] = np.maximum(p[39:42, 1], p[46:49, 1] + 0.04)


def _background(view: View, size: int) -> Image:
    rng = np.random.default_rng(view.backdrop)
    coarse = rng.uniform(70, 210) + rng.normal(0, 14, (3, 3, 1)) + rng.normal(0, 12, 3)
    return _resize(coarse, size)


def _draw_head(image: Image, person: Person, face: _Face) -> None:
    shoulders, neck, left_ear, right_ear, locks = np.split(face.body, np.cumsum(_BODY_PARTS)[:-1])
    if person.hair_style == "long":
        _fill(image, _curve(locks, closed=True), person.hair_colour * 0.75)
    _fill(image, shoulders, person.shirt)
    _fill(image, neck, person.skin * 0.78)
    for ear in (left_ear, right_ear):
        _fill(image, _curve(ear, closed=True), person.skin * 0.88)
    _fill(image, _curve(face.outline, closed=True), person.skin)


def _draw_eyes(image: Image, person: Person, face: _Face, view: View) -> None:
    p, unit = face.landmarks, face.unit
    lid, dark = person.skin * 0.9, person.skin * (0.28, 0.2, 0.18)
    for a, b, c, d, e, f in (facs.LEFT_EYE, facs.RIGHT_EYE):
        upper, lower = _curve(p[[a, b, c, d]]), _curve(p[[d, e, f, a]])
        _fill(image, np.concatenate((upper, lower)), (238, 236, 232))
        iris = p[[b, c, e, f]].mean(0) + np.multiply(view.gaze, unit)
        _disc(image, iris, 0.105 * unit, person.iris)
        _disc(image, iris, 0.05 * unit, (16, 14, 14))
        _disc(image, iris - 0.035 * unit, 0.022 * unit, (250, 250, 250))
        # The lids cover the part of the iris that lies outside the opening.
        overhang = np.array((0, 0.11 * unit))
        _fill(image, np.concatenate((upper, (upper - overhang)[::-1])), lid)
        _fill(image, np.concatenate((lower, (lower + overhang)[::-1])), person.skin)
        _fill(image, _ribbon(upper, 0.045 * unit), dark)
        _fill(image, _ribbon(lower, 0.018 * unit), dark * 1.5)
    brow = person.hair_colour * 0.6 + person.skin * 0.12
    for points in (p[:5], p[9:4:-1]):
        _fill(image, _ribbon(_curve(points), person.brow_width * unit, end=0.75), brow)


def _draw_mouth(image: Image, person: Person, face: _Face) -> None:
    p, unit = face.landmarks, face.unit
    left, right = p[31] * 0.92 + p[37] * 0.08, p[37] * 0.92 + p[31] * 0.08
    inner_upper = _curve(np.stack((left, *p[43:46], right)))
    inner_lower = _curve(np.stack((right, *p[46:49], left)))
    _fill(image, np.concatenate((_curve(p[31:38]), inner_lower)), person.lips * 0.86)
    _fill(image, np.concatenate((_curve(p[[37, 38, 39, 40, 41, 42, 31]]), inner_upper)), person.lips)
    _fill(image, np.concatenate((inner_upper, inner_lower)), (58, 18, 22))
    gap = float((p[46:49, 1] - p[45:42:-1, 1]).mean())
    if gap > 0.06 * unit:
        # Narrowed to a point at both ends, so that the teeth stay inside the mouth.
        drop = min(0.075 * unit, 0.5 * gap) * np.sin(np.linspace(0, np.pi, len(inner_upper)))
        teeth = inner_upper + np.column_stack((np.zeros_like(drop), drop))
        _fill(image, np.concatenate((inner_upper, teeth[::-1])), (240, 236, 226))
    middle = np.concatenate((p[31:32], (p[43:46] + p[48:45:-1]) / 2, p[37:38]))
    if gap < 0.04 * unit:
        _fill(image, _ribbon(_curve(middle), 0.022 * unit), person.lips * 0.42)
    for x in (15, 17):
        nostril = _oval(p[x] - (0, 0.025 * unit), 0.062 * unit, 0.03 * unit)
        _fill(image, nostril, person.skin * (0.4, 0.3, 0.28))


def _shade(image: Image, person: Person, face: _Face, intensity: NDArray[np.float64], view: View) -> None:
    """Multiply the picture by light, soft shadows, beard and wrinkles; 128 stands for 1."""
    size, unit = len(image), face.unit
    present = np.append(intensity, 1.0)[_STROKES.au]
    present = np.maximum(present, 0.16 * person.age * _STROKES.ages)
    seen = np.flatnonzero(present > 0.02)
    values = (128 * (1 - _STROKES.depth * present))[seen].tolist()
    ribbons = _ribbons(_BEZIER @ face.strokes[seen], _STROKES.width[seen] * unit)
    fine = np.full((size, size), 128, np.uint8)
    coarse_size = -(-size // 4)  # a quarter of the resolution is enough for what is soft
    soft = np.full((coarse_size, coarse_size), 128, np.uint8)
    for ribbon, value, is_soft in zip(ribbons, values, _STROKES.soft[seen], strict=True):
        if is_soft:
            _fill(soft, ribbon * 0.25 - 0.375, value)
        else:
            _fill(fine, ribbon, value)
    fine = cv2.GaussianBlur(fine, (3, 3), size / 250).astype(np.uint8, copy=False)
    if person.beard:
        cv2.multiply(soft, _beard(person, face, coarse_size), soft, 1 / 128)
    soft = cv2.blur(soft, (3, 3)).astype(np.uint8, copy=False)

    ramp = np.linspace(-1, 1, coarse_size)
    light = 1 + view.light[0] * ramp[None, :] + view.light[1] * ramp[:, None]
    lit = (128 + (soft[..., None] - 128.0) * _WARM) * light[..., None] * view.tint
    cv2.multiply(image, _resize(lit, size), image, 1 / 128)
    red = cv2.convertScaleAbs(fine, alpha=_WARM[0], beta=128 * (1 - _WARM[0]))
    cv2.multiply(image, cv2.merge((red, fine, fine)), image, 1 / 128)


def _beard(person: Person, face: _Face, coarse_size: int) -> Image:
    p, unit = face.landmarks, face.unit
    corners = p[[37, 31]] + (p[[37, 31]] - p[34]) * 0.5
    under_nose = p[[18, 14]] + (0, 0.1 * unit)
    layer = np.full((coarse_size, coarse_size), 128, np.uint8)
    jaw = face.outline[_BEARD] * 0.95 + p[40] * 0.05  # soft edges stay inside the face
    contour = np.concatenate((jaw, corners[:1], under_nose, corners[1:]))
    _fill(layer, contour * 0.25 - 0.375, 128 * (1 - person.beard))
    return layer


def _draw_glasses(image: Image, person: Person, face: _Face) -> None:
    if not person.glasses:
        return
    p, unit = face.landmarks, face.unit
    power = 1.0 if person.glasses == "round" else 0.55
    width = max(1, len(image) // 90)
    drop = np.array((0, 0.05 * unit))
    left, right = (p[list(eye)].mean(0) + drop for eye in (facs.LEFT_EYE, facs.RIGHT_EYE))
    x = (right - left) / np.hypot(*(right - left)) * unit
    y = np.array((-x[1], x[0]))
    for centre, outward in ((left, -x), (right, x)):
        _line(image, _oval(centre, 0.37 * unit, 0.29 * unit, power), _RIM, width, closed=True)
        _line(image, np.stack((centre + 0.37 * outward, centre + 0.62 * outward - 0.05 * y)), _RIM, width)
    bridge = np.stack((left + 0.36 * x, (left + right) / 2 - 0.06 * y, right - 0.36 * x))
    _line(image, bridge, _RIM, width)


def _resize(coarse: Points, size: int) -> Image:
    bytes_ = coarse.clip(0, 255).astype(np.uint8)
    return cv2.resize(bytes_, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _fill(image: Image, points: Points, colour: Any) -> None:
    """Fill a polygon, antialiased; OpenCV gets coordinates in 16ths of a pixel."""
    cv2.fillPoly(image, [np.rint(points * 16).astype(np.int32)], _colour(colour), cv2.LINE_AA, 4)


def _line(image: Image, points: Points, colour: Any, width: int, closed: bool = False) -> None:
    polygon = np.rint(points * 16).astype(np.int32)
    cv2.polylines(image, [polygon], closed, _colour(colour), width, cv2.LINE_AA, 4)


def _disc(image: Image, centre: Points, radius: float, colour: Any) -> None:
    x, y = np.rint(centre * 16).astype(int).tolist()
    cv2.circle(image, (x, y), round(radius * 16), _colour(colour), -1, cv2.LINE_AA, 4)


def _oval(centre: Points, a: float, b: float, power: float = 1.0) -> Points:
    """Make an ellipse with half axes a and b; a power below 1 makes it a rounded rectangle."""
    oval: Points = centre + np.sign(_CIRCLE) * np.abs(_CIRCLE) ** power * (a, b)
    return oval


def _ribbon(centre: Points, width: float, end: float = 0.0) -> Points:
    ribbon: Points = _ribbons(centre[None], np.array([width]), end)[0]
    return ribbon


def _ribbons(centre: Points, width: Points, end: float = 0.0) -> Points:
    """Make contours (K, 2m, 2) of lines (K, m, 2), widest in the middle, or nearer the end if ``end`` > 0."""
    along = centre[:, _neighbours(centre.shape[1], 1)] - centre[:, _neighbours(centre.shape[1], -1)]
    half = width[:, None] * _profile(centre.shape[1], end) / (2 * np.sqrt((along**2).sum(-1)) + 1e-9)
    offset = along[..., ::-1] * (-1, 1) * half[..., None]
    return np.concatenate((centre + offset, (centre - offset)[:, ::-1]), 1)


@lru_cache
def _neighbours(n: int, step: int) -> NDArray[np.int64]:
    return (np.arange(n) + step).clip(0, n - 1)


@lru_cache
def _profile(n: int, end: float) -> Points:
    profile: Points = np.sin(np.pi * np.linspace(0.04, 0.96, n) / (1 + end)) ** 0.6
    return profile


def _curve(points: Points, closed: bool = False) -> Points:
    """Draw a smooth line through points (Catmull-Rom), with five points for each of theirs."""
    line: Points = _catmull_rom(len(points), closed) @ points
    return line


@lru_cache
def _catmull_rom(n: int, closed: bool) -> Points:
    rows = []
    for i in range(n if closed else n - 1):
        for t in np.arange(5) / 5:
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
            row = np.zeros(n)
            for j, weight in zip(range(i - 1, i + 3), weights, strict=True):
                row[j % n if closed else min(max(j, 0), n - 1)] += weight / 2
            rows.append(row)
    return np.array(rows if closed else [*rows, np.eye(n)[-1]])


@lru_cache
def _noise_tile(size: int) -> Image:
    """Make noise around grey 128, of which each picture uses another part."""
    tile = np.random.default_rng(0).normal(128, _TILE_SIGMA, (size + _TILE_SPARE, size + _TILE_SPARE, 3))
    return tile.clip(0, 255).astype(np.uint8)


def _colour(values: Any) -> Colour:
    """Convert a grey value, a triple or an array to what OpenCV takes."""
    r, g, b = (values,) * 3 if isinstance(values, (int, float)) else values
    return (float(r), float(g), float(b))


def _blend(table: Points, position: float) -> Points:
    """Interpolate a colour of a table (n, 3) at a position 0..1 between its first and last row."""
    at = position * (len(table) - 1)
    row = min(int(at), len(table) - 2)
    colour: Points = table[row] + (table[row + 1] - table[row]) * (at - row)
    return colour


def _lower(y: Points) -> Points:
    """Compute how far down a point is: 0 at the eyes, 1 at the chin."""
    share: Points = ((y - 0.2) / 1.6).clip(0, 1.05)
    return share


def _both_sides(left: Mapping[int, tuple[float, float]]) -> Points:
    """Make (49, 2) of the left half, which is mirrored."""
    full = np.zeros((facs.NUM_LANDMARKS, 2))
    for i, (x, y) in left.items():
        full[facs.FLIP[i]] = (-x, y)
        full[i] = (x, y)
    return full


def _closed(left: Sequence[tuple[float, float]]) -> Points:
    """Make a closed contour of its left half, whose ends lie on the axis."""
    return np.array([*left, *((-x, y) for x, y in left[-2:0:-1])])


_TILE_SPARE, _TILE_SIGMA = 64, 32
_RIM = (34, 30, 30)
_WARM = np.array((0.8, 1.0, 1.0))
"""How much of a shadow each colour gets: less of the red, since shadows on skin are reddish."""
_CIRCLE = np.column_stack([f(np.arange(20) * np.pi / 10) for f in (np.cos, np.sin)])
_BEZIER = np.array([((1 - t) ** 2, 2 * t * (1 - t), t**2) for t in np.linspace(0, 1, 8)])
_SKINS = np.array(
    [(252, 224, 202), (240, 200, 170), (224, 176, 140), (190, 136, 100), (146, 98, 70), (98, 64, 48)], float
)
_HAIRS = np.array([(28, 24, 24), (62, 42, 32), (112, 74, 46), (176, 132, 76), (214, 180, 122)], float)

# fmt: off
_LANDMARKS = _both_sides({
    0: (-.92, -.22), 1: (-.79, -.35), 2: (-.61, -.39), 3: (-.42, -.36), 4: (-.23, -.29),
    10: (0, -.02), 11: (0, .18), 12: (0, .38), 13: (0, .57), 14: (-.21, .68), 15: (-.11, .72), 16: (0, .745),
    19: (-.725, .015), 20: (-.60, -.08), 21: (-.42, -.08), 22: (-.275, .03), 23: (-.42, .08), 24: (-.58, .08),
    31: (-.40, 1.10), 32: (-.25, 1.025), 33: (-.10, .985), 34: (0, 1.0), 40: (0, 1.265), 41: (-.12, 1.255),
    42: (-.26, 1.195), 43: (-.13, 1.085), 44: (0, 1.095), 47: (0, 1.11), 48: (-.13, 1.10),
})
_RELIEF = np.zeros(facs.NUM_LANDMARKS)
_RELIEF[10:19] = (.05, .16, .28, .38, .10, .18, .22, .18, .10)
"""Depth of each landmark: how far the nose stands out."""

_SHAPES = np.stack([_both_sides(shape) for shape in (
    {i: (0, -.03) for i in range(5)},  # brow height
    {0: (0, .03), 2: (0, -.012), 4: (0, .008)},  # brow arch
    {4: (.02, 0), 3: (.01, 0)},  # distance of the brows
    {20: (0, -.013), 21: (0, -.013), 23: (0, .006), 24: (0, .006)},  # eye opening
    {19: (-.02, -.008), 22: (.012, .004)},  # eye width and slant
    {14: (-.025, 0), 15: (-.012, 0)},  # nose width
    {12: (0, .012), 13: (0, .022), 14: (0, .025), 15: (0, .025), 16: (0, .025)},  # nose length
    {i: (0, .035) for i in (31, 32, 33, 34, 40, 41, 42, 43, 44, 47, 48)},  # mouth height
    {31: (-.03, 0), 32: (-.018, 0), 33: (-.006, 0), 41: (-.008, 0), 42: (-.018, 0), 43: (-.008, 0),
     48: (-.008, 0)},  # mouth width
    {32: (0, -.006), 33: (0, -.012), 34: (0, -.01)},  # upper lip
    {40: (0, .014), 41: (0, .013), 42: (0, .007)},  # lower lip
)])
"""How people differ: in each row the landmarks' displacements for one standard deviation."""

_MOUTH_DOWN = {40: (0, .11), 41: (0, .11), 42: (.01, .075), 47: (0, .11), 48: (0, .10)}
_ACTIONS: dict[int, dict[int, tuple[float, float]]] = {
    1: {4: (.01, -.15), 3: (0, -.12), 2: (0, -.04)},
    2: {0: (-.01, -.12), 1: (0, -.16), 2: (0, -.11), 3: (0, -.03)},
    4: {4: (.07, .11), 3: (.06, .11), 2: (.04, .09), 1: (.02, .06), 0: (.01, .03), 20: (0, .015),
        21: (0, .02)},
    6: {23: (0, -.025), 24: (0, -.03), 19: (.01, -.005), 31: (-.01, -.015)},
    7: {20: (0, .04), 21: (0, .04), 23: (0, -.03), 24: (0, -.03)},
    9: {14: (-.02, -.06), 15: (-.01, -.05), 16: (0, -.03), 13: (0, -.025), 33: (0, -.04), 32: (0, -.04),
        34: (0, -.03), 4: (.03, .05), 3: (.02, .04), 23: (0, -.01)},
    10: {32: (-.02, -.09), 33: (-.01, -.10), 34: (0, -.085), 43: (0, -.03), 44: (0, -.03), 47: (0, -.02),
         48: (0, -.02), 14: (-.025, -.025)},
    12: {31: (-.14, -.14), 32: (-.08, -.06), 33: (-.025, .01), 34: (0, .02), 42: (-.085, -.055),
         41: (-.04, 0), 43: (-.05, 0), 48: (-.05, 0), 40: (0, .01)},
    14: {31: (-.03, .0), 32: (-.02, .02), 42: (-.02, -.02)},
    15: {31: (-.02, .11), 32: (-.01, .045), 42: (-.01, .055), 43: (0, .005), 48: (0, .01)},
    17: {40: (0, -.07), 41: (0, -.07), 42: (0, -.05), 47: (0, -.035), 48: (0, -.035), 43: (0, -.03),
         44: (0, -.035), 33: (0, -.035), 34: (0, -.035), 31: (0, .025)},
    23: {31: (.05, 0), 32: (.04, .02), 33: (.015, .035), 34: (0, .035), 42: (.04, -.02), 41: (.015, -.045),
        40: (0, -.045)},
    24: {32: (0, .03), 33: (0, .05), 34: (0, .045), 42: (0, -.035), 41: (0, -.055), 40: (0, -.055)},
    25: {**_MOUTH_DOWN, 43: (0, -.02), 44: (0, -.02), 31: (.01, .02)},
    26: {40: (0, .18), 41: (0, .18), 42: (.02, .12), 47: (0, .17), 48: (.01, .15), 43: (.01, .02),
         44: (0, .02), 31: (.05, .05), 32: (.02, .01)},
}
_MOVES = np.stack([_both_sides(_ACTIONS[au]) for au in AUS])
_CHIN = np.array([{17: -.07, 25: .05, 26: .24, 15: .02}.get(au, 0) for au in AUS])

_OUTLINE = _closed([(0, -1.5), (-.5, -1.4), (-.86, -1.1), (-1.01, -.65), (-1.06, -.2), (-1.05, .25),
                    (-.99, .75), (-.85, 1.22), (-.58, 1.6), (-.26, 1.82), (0, 1.87)])
_BEARD = slice(6, 15)
_HAIR = _closed([(0, -.98), (-.36, -.96), (-.7, -.82), (-.88, -.52), (-.97, -.18), (-1.02, .08), (-1.1, 0),
                 (-1.2, -.4), (-1.16, -.9), (-.95, -1.35), (-.5, -1.65), (0, -1.75)])
_HAIRLINE = [0, 1, 2, -1, -2]
_EARS = [(-1.1, -.12), (-1.2, -.08), (-1.22, .1), (-1.16, .35), (-1.06, .42), (-1.02, .1)]
_BODY_LIST = (
    [(-3, 2.25), (-1.5, 2.1), (-.75, 1.9), (.75, 1.9), (1.5, 2.1), (3, 2.25), (3, 4), (-3, 4)],
    [(-.68, 1.1), (-.68, 1.95), (0, 2.3), (.68, 1.95), (.68, 1.1)],
    _EARS, [(-x, y) for x, y in _EARS],
    _closed([(0, -1.8), (-.7, -1.65), (-1.2, -1.1), (-1.32, -.2), (-1.34, .9), (-1.3, 2.2), (-.5, 2.5),
             (0, 2.5)]),
)
_BODY_PARTS = [len(part) for part in _BODY_LIST]
_BODY = np.concatenate([np.array(part, float) for part in _BODY_LIST])
# fmt: on


class _Strokes(NamedTuple):
    """The K wrinkles and shadows on both halves of the face, of AUs and of the face at rest."""

    au: NDArray[np.int64]
    """The AU's place in `AUS`; 15 for those at rest."""
    anchor: NDArray[np.int64]
    """The landmark with which it moves."""
    points: Points
    """(K, 3, 2) control points of a quadratic Bezier curve, relative to the anchor."""
    width: Points
    depth: Points
    """The share of light that it takes; negative for one that is lighter."""
    soft: NDArray[np.bool_]
    ages: NDArray[np.bool_]
    """Whether it also comes with age."""


_L = tuple[float, float, float, float, float, float]
# fmt: off
_CUES: tuple[tuple[int, int, _L, float, float, bool], ...] = (
    # AU (0: always), anchor, x and y of three points, width, depth, soft
    (0, 11, (-.12, -.22, -.10, .1, -.13, .38), .10, .10, True),  # side of the nose
    (0, 13, (-.05, 0, 0, .01, .05, 0), .14, -.16, True),
    (0, 14, (.03, .03, -.06, -.04, .02, -.13), .03, .25, False),
    (0, 16, (-.11, 0, 0, .03, .11, 0), .035, .25, False),
    (0, 40, (-.15, .12, 0, .09, .15, .12), .09, .12, True),
    (0, 24, (-.3, .5, -.2, .75, -.12, .95), .14, .06, True),
    (0, 21, (-.28, -.02, -.08, -.13, .13, .0), .025, .22, False),  # crease of the lid
    (1, 4, (-.14, -.12, .05, -.21, .23, -.17), .045, .5, False),
    (1, 4, (-.10, -.25, .05, -.32, .23, -.29), .045, .5, False),
    (2, 1, (-.06, -.06, .04, -.16, .22, -.14), .045, .5, False),
    (2, 1, (-.03, -.17, .07, -.25, .24, -.23), .045, .5, False),
    (4, 4, (.06, -.14, .11, .0, .06, .17), .055, .6, False),
    (4, 2, (-.22, .11, .0, .08, .28, .15), .09, .4, True),
    (6, 19, (-.06, -.05, -.13, -.09, -.20, -.15), .035, .55, False),
    (6, 19, (-.07, .02, -.15, .02, -.23, .01), .035, .55, False),
    (6, 19, (-.06, .09, -.13, .13, -.20, .18), .035, .55, False),
    (6, 24, (-.20, .17, .02, .31, .30, .17), .05, .45, False),
    (6, 24, (-.20, .42, -.02, .50, .16, .40), .24, -.2, True),
    (6, 24, (-.24, .60, .0, .74, .16, .58), .09, .28, True),
    (7, 24, (-.15, .0, .07, .10, .28, .0), .04, .5, False),
    (7, 21, (-.29, .02, -.09, -.13, .14, .03), .045, .55, False),
    (9, 12, (-.17, .12, -.12, .02, -.02, .0), .04, .55, False),
    (9, 12, (-.19, .0, -.12, -.10, -.02, -.11), .04, .55, False),
    (9, 12, (-.19, -.13, -.12, -.22, -.02, -.22), .04, .55, False),
    (10, 14, (-.03, -.16, -.17, -.06, -.22, .17), .05, .55, False),
    (10, 33, (-.14, .015, -.02, -.055, .10, -.01), .05, -.22, False),
    (12, 31, (-.02, -.30, -.21, -.16, -.17, .10), .05, .55, False),
    (12, 31, (-.04, -.03, -.01, .0, .03, .01), .04, .5, False),
    (14, 31, (-.085, -.07, -.115, .0, -.085, .07), .09, .75, False),
    (15, 31, (-.01, .04, -.08, .13, -.04, .25), .055, .6, False),
    (15, 31, (-.14, .08, -.17, .16, -.13, .26), .09, -.13, True),
    (17, 40, (-.22, .21, 0, .06, .22, .21), .05, .5, False),
    (17, 41, (-.03, .27, -.02, .29, -.01, .31), .06, .55, False),
    (17, 41, (.06, .32, .07, .34, .08, .36), .06, .55, False),
    (17, 41, (-.07, .38, -.06, .40, -.05, .42), .06, .55, False),
    (17, 41, (.05, .22, .06, .24, .07, .26), .05, .5, False),
    (23, 33, (.04, -.13, .045, -.07, .05, -.01), .035, .55, False),
    (23, 33, (-.07, -.13, -.065, -.07, -.05, .0), .035, .55, False),
    (23, 32, (-.04, -.13, -.025, -.07, .0, .0), .035, .55, False),
    (23, 41, (.05, .01, .055, .06, .055, .11), .035, .5, False),
    (23, 41, (-.06, .0, -.07, .05, -.075, .10), .035, .5, False),
    (24, 44, (-.36, .0, 0, .01, .36, .0), .07, .75, False),
    (24, 34, (-.24, -.05, 0, -.08, .24, -.05), .07, -.16, False),
    (24, 40, (-.22, .03, 0, .07, .22, .03), .06, -.16, False),
    (26, 41, (-.12, .04, -.17, .13, -.10, .26), .10, .3, True),
    (26, 31, (-.34, -.30, -.34, .0, -.26, .2), .14, .14, True),
)
# fmt: on


def _both_halves() -> _Strokes:
    rows: list[tuple[int, int, Points, float, float, bool, bool]] = []
    for au, anchor, coordinates, width, depth, soft in _CUES:
        points = np.reshape(coordinates, (3, 2))
        column = AUS.index(au) if au else len(AUS)
        row = (column, anchor, points, width, depth, soft, au in (1, 2, 6, 10, 12))
        rows.append(row)
        if facs.FLIP[anchor] != anchor or points[0, 0] != -points[2, 0]:
            rows.append((row[0], facs.FLIP[anchor], points * (-1, 1), *row[3:]))
    return _Strokes(*(np.array(column) for column in zip(*rows, strict=True)))


_STROKES = _both_halves()
