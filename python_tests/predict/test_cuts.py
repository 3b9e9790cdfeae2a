"""Cuts between parts of photographs, and what is none: motion, light, flashes."""

import cv2
import numpy as np
import pytest
from skimage import data

from jaa_ext.predict.cuts import is_blank, is_cut, thumbnail

PHOTOGRAPHS = {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}


def part(name, left=0.1, top=0.1, share=0.6):
    """A part of a photograph in 320x240, from shares of its size."""
    image = PHOTOGRAPHS[name]
    height, width = image.shape[:2]
    wide = share * min(width, 4 / 3 * height)
    x, y = round(left * (width - wide)), round(top * (height - 0.75 * wide))
    return cv2.resize(image[y : y + round(0.75 * wide), x : x + round(wide)], (320, 240))


def cut(before, after):
    return is_cut(thumbnail(before), thumbnail(after))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
class TestPhotographs:
    def test_to_another_one_and_back(self, name):
        for other in set(PHOTOGRAPHS) - {name}:
            assert cut(part(name), part(other)) and cut(part(other), part(name))

    def test_the_camera_turns(self, name):
        assert not cut(part(name, share=0.7), part(name, left=0.25, share=0.7))
        assert not cut(part(name, share=0.7), part(name, top=0.25, share=0.7))

    def test_it_comes_nearer(self, name):
        assert not cut(part(name, 0.5, 0.5, share=0.7), part(name, 0.5, 0.5, share=0.63))

    @pytest.mark.parametrize("light", [0.4, 1.5])
    def test_in_another_light(self, name, light):
        image = part(name)
        assert not cut(image, np.clip(image * light, 0, 255).astype(np.uint8))

    def test_a_flash(self, name):
        image = part(name)
        flash = np.clip(image * 1.5 + 60.0, 0, 255).astype(np.uint8)
        assert not cut(image, flash) and not cut(flash, image)

    def test_somebody_covers_a_third(self, name):
        image = part(name)
        near = image.copy()
        near[40:, :130] = part("coffee" if name == "astronaut" else "astronaut")[40:, :130]
        assert not cut(image, near) and not cut(near, image)


def test_the_same_face_before_another_background():
    def picture(background):
        image = np.full((240, 320, 3), background, np.uint8)
        image[50:180, 100:210] = cv2.resize(PHOTOGRAPHS["astronaut"][0:260, 120:340], (110, 130))
        return image

    backgrounds = {"wall": (128, 128, 128), "bright": (200, 200, 200), "brown": (128, 90, 60)}
    for one in backgrounds:
        for other in backgrounds:
            assert cut(picture(backgrounds[one]), picture(backgrounds[other])) == (one != other), (one, other)


def test_noise_in_the_dark_is_none():
    random = np.random.default_rng(0)
    dark = part("coffee") // 20
    assert not cut(*(np.clip(dark + random.normal(0, 4, dark.shape), 0, 255).astype(np.uint8) for _ in "ab"))


def test_blank_ones():
    random = np.random.default_rng(0)
    for colour in (0, 90, 255):
        noisy = np.clip(colour + random.normal(0, 3, (240, 320, 3)), 0, 255).astype(np.uint8)
        for tint in (1, (1, 0, 0), (0, 0.5, 1)):
            flat = np.zeros((240, 320, 3)) + colour * np.array(tint)
            assert is_blank(thumbnail(flat.astype(np.uint8))), (colour, tint)
        assert is_blank(thumbnail(noisy)) or colour == 0  # noise of nothing is all that is there
    assert not any(is_blank(thumbnail(part(name))) for name in PHOTOGRAPHS)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 700, 3), (2160, 3840, 3)])
def test_pictures_of_any_size(shape):
    assert thumbnail(np.zeros(shape, np.uint8)).shape == (24, 32, 3)
