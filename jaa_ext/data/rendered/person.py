"""The person and the view of a rendered face: all that varies besides the expression."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaa_ext.data.rendered.head import head_model

Fields = dict[str, Any]
"""Fields of the compiled `Scene` by name, see `csrc/rendering/scene.h`. Colours are linear RGB, 0..1."""

# fmt: off
_SKINS = np.array((
    (250, 214, 196), (238, 190, 164), (224, 172, 140), (198, 142, 108), (160, 108, 78), (118, 76, 54),
    (82, 52, 38),
))
_TONES = np.array((5.0, 1.9, 0.9))
"""The mean row of `_SKINS` of people of African, Asian and European descent."""
_HAIRS = np.array((
    (22, 19, 18), (32, 25, 22), (54, 38, 28), (84, 58, 38), (124, 90, 54), (176, 140, 92), (116, 58, 34),
))
_IRISES = np.array(((52, 30, 18), (78, 48, 26), (92, 96, 62), (96, 122, 142), (116, 128, 134)))
# fmt: on


@dataclass(frozen=True)
class Person:
    """A person: the shape of the head, and the looks that are the same in every picture."""

    identity: NDArray[np.float32]
    """Weights of the head's identities, in standard deviations."""
    looks: Fields

    @staticmethod
    def random(rng: np.random.Generator) -> Person:
        model = head_model()
        chosen = int(rng.integers(len(model.population)))
        # Somebody of the population, changed so much that nobody is met twice.
        identity = model.population[chosen] * 0.85 + rng.normal(0, 0.5, model.population.shape[1])
        identity = identity.clip(-3, 3).astype(np.float32)
        female_share, age, *descent = model.attributes[chosen].tolist()
        female, old = female_share > 0.5, max(0.0, (age - 0.6) / 0.4)
        descent = np.array(descent) / sum(descent)
        tone = float((descent @ _TONES + rng.normal(0, 0.7)).clip(0, 6))
        skin = _linear(_between(_SKINS, tone)) * np.exp(rng.normal(0, 0.04, 3))
        fair = descent[2] > 0.5
        shade = float(rng.uniform(0.5, 6)) if fair else float(rng.uniform(0, 1.5))
        hair = _linear(_between(_HAIRS, shade)) * rng.uniform(0.7, 1.25)
        if rng.random() < 0.7 * old * old:
            hair = hair + (rng.uniform(0.18, 0.5) - hair) * rng.uniform(0.5, 0.95)
        brow = np.minimum(hair * 0.8, (0.12, 0.085, 0.06)) * rng.uniform(0.7, 1.1)
        iris = _linear(_IRISES[int(rng.integers(0, 5 if fair else 2))]) * rng.uniform(0.7, 1.3)
        lips = skin * np.array((0.82, 0.42, 0.42)) * rng.uniform(0.75, 1.1)
        lip_colour, lids, lid_colour = rng.uniform(0.55, 0.9), skin * (0.7, 0.6, 0.6), rng.uniform(0.05, 0.35)
        made_up = female and rng.random() < 0.4
        if made_up:
            lips = _linear(np.array((rng.uniform(120, 210), rng.uniform(30, 90), rng.uniform(45, 100)))) * 0.7
            lids, lid_colour = skin * rng.uniform(0.2, 0.8, 3), rng.uniform(0.2, 0.7)
        looks: Fields = {
            "skin": skin,
            "redness": rng.uniform(0.1, 1.2) * (1 - 0.08 * tone),
            "freckles": rng.uniform(0.2, 0.9) if fair and rng.random() < 0.15 else 0.0,
            "blotches": rng.uniform(0.2, 1.4),
            "pores": rng.uniform(0.2, 0.7) + 0.5 * old,
            "gloss": rng.uniform(0.05, 0.55),
            "under_eye": rng.uniform(0, 0.7) + 0.4 * old,
            "lips": lips,
            "lip_colour": lip_colour,
            "lids": lids,
            "lid_colour": lid_colour,
            "brow": brow,
            "brow_density": rng.uniform(0.55, 0.97),
            "brow_thickness": rng.uniform(0.6, 1.05) if female else rng.uniform(0.8, 1.35),
            "brow_shift": rng.normal(1 if female else 0, 0.7),
            "brow_gap": rng.normal(4.5, 1.5),
            "brow_arch": rng.normal(0.4 if female else 0, 0.8),
            "lashes": rng.uniform(0.6, 1) if made_up else rng.uniform(0.1, 0.6),
            "beard": np.minimum(brow * rng.uniform(0.8, 1.4), 0.3),
            "iris": iris,
            "sclera": np.array((0.58, 0.53, 0.50)) * rng.uniform(0.7, 1.1),
            "teeth": np.array((0.85, 0.79, 0.69)) * rng.uniform(0.75, 1.15),
            "hair": hair,
            "curl": rng.uniform(0, 0.4) if descent[0] < 0.5 else rng.uniform(0.4, 1),
            "hairline": rng.uniform(0, 4) if female else rng.uniform(0, 8) + 14 * old * rng.random(),
            **_beard(rng, female),
            **_hair(rng, female, descent[0] > 0.6),
            **(_glasses(rng) if rng.random() < 0.15 + 0.15 * old else {}),
        }
        # Wrinkles at rest.
        ageing = np.array((0.45, 0.35, 0.1, 0.5, 0.5, 0.6, 0.1, 0.1)) * old
        wrinkles = ageing * rng.uniform(0.3, 1.1, 8) + rng.uniform(0, 0.12, 8)
        looks["wrinkles"] = wrinkles.astype(np.float32)
        return Person(identity, looks)


@dataclass(frozen=True)
class View:
    """What varies between pictures besides person and expression; by default a plain frontal portrait."""

    yaw: float = 0.0
    """Yaw, as pitch and roll, in degrees as in `FaceSample.pose`."""
    pitch: float = 0.0
    roll: float = 0.0
    distance: float = 1200.0
    """From the camera to the head in millimetres."""
    gaze: tuple[float, float] = (0.0, 0.0)
    """Degrees to the right of the picture and up, relative to the head."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Error of the alignment: turn in radians, log scale, and shifts in inter-ocular distances."""
    surroundings: Fields = field(default_factory=lambda: dict(_PORTRAIT))

    @staticmethod
    def random(rng: np.random.Generator, person: Person) -> View:
        # One in four has turned away from the camera; most look at it.
        turned = rng.random() < 0.25
        yaw = rng.uniform(-45, 45) if turned else rng.normal(0, 9)
        pitch = rng.uniform(-25, 25) if turned else rng.normal(0, 6)
        at_camera = rng.random() < 0.6
        gaze = (-0.9 * yaw, -0.9 * pitch) if at_camera else (rng.normal(0, 12), rng.normal(-2, 7))
        gaze = (float(np.clip(gaze[0], -28, 28)), float(np.clip(gaze[1], -18, 14)))
        return View(
            yaw=float(np.clip(yaw, -45, 45)),
            pitch=float(np.clip(pitch, -25, 25)),
            roll=float(np.clip(rng.normal(0, 6), -25, 25)),
            distance=float(np.exp(rng.uniform(math.log(450), math.log(2500)))),
            gaze=gaze,
            jitter=tuple((rng.normal(0, 1, 4).clip(-2, 2) * (0.02, 0.025, 0.025, 0.025)).tolist()),
            surroundings={
                "seed": int(rng.integers(2**32)),
                "pupil": rng.uniform(0.25, 0.6),
                "cloth": _any_colour(rng),
                "neckline": rng.uniform(-215, -128),
                "stripes": rng.uniform(0.05, 1) if rng.random() < 0.2 else 0.0,
                **_light(rng),
                **_background(rng),
                **_camera(rng),
                **(_hat(rng) if rng.random() < 0.07 else {}),
                "rods": _rods(rng, person) if rng.random() < 0.08 else [],
            },
        )


def _hair(rng: np.random.Generator, female: bool, curly: bool) -> Fields:
    kind = rng.random()
    if not female and kind < 0.13:
        return {"hair_length": 0.0}
    if kind < (0.28 if female else 0.9):
        return {"hair_length": float(rng.uniform(1.5, 26 if curly else 18))}
    scarf = female and rng.random() < 0.07
    return {
        "hair_length": 0.0 if scarf else float(rng.uniform(5, 12)),
        "long_hair": True,
        "curtain_is_cloth": scarf,
        "curtain_bottom": float(rng.uniform(-190, -50)) if not scarf else -180.0,
        # A fringe comes down to the brows.
        "curtain_top": float(rng.uniform(26, 42)) if rng.random() < 0.25 else float(rng.uniform(52, 74)),
        "curtain_opening": tuple((rng.uniform(0.92, 1.3) + rng.normal(0, 0.1, 2)).clip(0.8, 1.5).tolist()),
        "curtain_volume": float(rng.uniform(5, 16) + (rng.uniform(0, 25) if curly else 0)),
        "curtain_taper": float(rng.uniform(0, 0.25)),
    }


def _beard(rng: np.random.Generator, female: bool) -> Fields:
    kind = rng.random()
    if female or kind < 0.3:
        return {}
    if kind < 0.6:  # a shadow
        density = float(rng.uniform(0.05, 0.3))
        return {"beard_density": density, "moustache_density": density}
    full, moustache = rng.uniform(0.4, 1, 2)
    return {
        "beard_density": float(full) if rng.random() < 0.8 else 0.0,
        "moustache_density": float(moustache) if rng.random() < 0.85 else 0.0,
    }


def _glasses(rng: np.random.Generator) -> Fields:
    dark = rng.random() < 0.08
    metal = rng.random() < 0.4
    rim = rng.uniform(0.05, 0.4) * np.ones(3) if metal else _any_colour(rng) * 0.25
    return {
        "glasses": True,
        "rim_width": float(rng.uniform(22, 29)),
        "rim_height": float(rng.uniform(14, 23)),
        "rim_power": float(rng.uniform(2, 5)),
        "rim_radius": float(rng.uniform(0.5, 1.0) if metal else rng.uniform(1, 2.4)),
        "rim": rim,
        "lens": (0.02, 0.02, 0.02) if dark else (0.9, 0.95, 0.95),
        "lens_opacity": float(rng.uniform(0.75, 0.97)) if dark else float(rng.uniform(0.0, 0.08)),
    }


def _hat(rng: np.random.Generator) -> Fields:
    return {
        "hat": True,
        "hat_line": float(rng.uniform(38, 66)),
        "hat_tilt": float(rng.uniform(0.2, 0.6)),
        "hat_thickness": float(rng.uniform(5, 14)),
        "brim": float(rng.uniform(45, 75)) if rng.random() < 0.5 else 0.0,
        "hat_colour": _any_colour(rng),
    }


def _rods(rng: np.random.Generator, person: Person) -> list[Fields]:
    """Draw fingers at the face, or a thing held before it."""
    side = 1 if rng.random() < 0.5 else -1
    x, y = side * rng.uniform(15, 75), rng.uniform(-120, -45)
    if rng.random() < 0.6:
        lean = rng.normal(0, 0.35)
        skin = {"colour": person.looks["skin"], "is_skin": True}
        rods = []
        for k in range(4):
            start = np.array((x + side * 16 * k * 0.9, y - 3 * k, 25 - 0.008 * x * x))
            along = np.array((math.sin(lean + 0.06 * k), math.cos(lean), -0.15))
            tip = start + along * rng.uniform(48, 65) * (1, 1.08, 1, 0.8)[k]
            rods.append({"start": start, "end": tip, "from_radius": 9.0, "to_radius": 7.0, **skin})
        palm = np.array((x + side * 22, y - 40, 18))
        wrist = palm + np.array((0, 30, 0))
        return [*rods, {"start": palm, "end": wrist, "from_radius": 34.0, "to_radius": 30.0, **skin}]
    colour = _any_colour(rng)
    end = np.array((x * 0.4, y - 10, rng.uniform(45, 80)))
    start = end + np.array((side * rng.uniform(-20, 90), -rng.uniform(60, 130), 20))
    radius = float(rng.uniform(6, 24))
    return [{"start": start, "end": end, "from_radius": radius * 0.8, "to_radius": radius, "colour": colour}]


def _light(rng: np.random.Generator) -> Fields:
    """Draw lights from soft daylight to one hard lamp."""
    key = rng.normal(0, 1, 3) * (1, 0.6, 1) + (0, 0.5, 0)
    key[2] = abs(key[2]) + 0.35
    warmth = rng.normal(0, 0.12)
    tint = np.exp(np.array((warmth, 0, -warmth)))
    hardness = rng.random()
    lights = [{"direction": key, "colour": tint * (0.15 + 1.1 * hardness)}]
    if rng.random() < 0.6:
        other = rng.normal(0, 1, 3) * (1, 0.5, 0.8) + (0, 0.2, 0.2)
        lights.append({"direction": other, "colour": np.exp(rng.normal(0, 0.12, 3)) * rng.uniform(0.05, 0.5)})
    sky = np.exp(np.array((-warmth, 0, warmth)) * 0.5 + rng.normal(0, 0.05, 3)) * (1.05 - 0.75 * hardness)
    return {
        "lights": lights,
        "shadow_softness": float(rng.uniform(0.5, 9)),
        "sky": sky,
        "ground": sky * rng.uniform(0.25, 0.9) * np.exp(rng.normal(0, 0.08, 3)),
        "side": sky * rng.normal(0, 0.22),
    }


def _background(rng: np.random.Generator) -> Fields:
    plain = rng.random() < 0.35
    return {
        "background": (_any_colour(rng), _any_colour(rng)),
        "background_shapes": 0 if plain else int(rng.integers(1, 12)),
        "background_clouds": float(rng.random()),
        "background_blur": float(rng.uniform(1, 12)),
    }


def _camera(rng: np.random.Generator) -> Fields:
    return {
        "exposure": float(np.exp(rng.normal(0, 0.25))),
        "contrast": float(rng.uniform(0.85, 1.2)),
        "saturation": 0.0 if rng.random() < 0.06 else float(rng.uniform(0.65, 1.3)),
        "white": np.exp(rng.normal(0, 0.05, 3)),
        "blur": float(rng.uniform(0.3, 1.6)) if rng.random() < 0.4 else 0.0,
        "noise": float(rng.uniform(0.5, 6)) if rng.random() < 0.7 else 0.0,
        "jpeg_quality": int(rng.integers(35, 96)) if rng.random() < 0.7 else 0,
    }


_PORTRAIT: Fields = {
    "lights": [{"direction": (-0.35, 0.45, 0.8), "colour": (0.75, 0.72, 0.7)}],
    "sky": (0.62, 0.64, 0.68),
    "ground": (0.4, 0.38, 0.36),
}


def _any_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a colour; greys and dull ones are more frequent than bright ones."""
    grey, colour, purity = rng.uniform(10, 245), rng.uniform(0, 255, 3), rng.random() ** 3
    return _linear(grey + (colour - grey) * purity)


def _between(table: NDArray[np.int64], place: float) -> NDArray[np.float64]:
    return np.array([np.interp(place, np.arange(len(table)), column) for column in table.T])


def _linear(levels: NDArray[Any]) -> NDArray[np.float64]:
    """Convert grey levels 0..255 to linear light 0..1."""
    return np.asarray((np.asarray(levels) / 255) ** 2.2, np.float64)
