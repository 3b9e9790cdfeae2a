"""attention_maps against the broadcast reference and against the rule written as nested loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jaa_ext import facs
from jaa_ext.ops import attention_maps, reference

ALL_AUS = tuple(facs.AU_RULES)


def random_landmarks(batch: int = 6, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Points in and around a crop of 176 pixels."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch, 49, 2, generator=generator, dtype=torch.float64) * 236 - 30).to(dtype)


def map_by_loops(
    face: Tensor, au: int, image_size: int, map_size: int, roi_ratio: float, decay: float
) -> Tensor:
    """One map from FACS rule and Eq. 3 in Python numbers."""
    rule = facs.AU_RULES[au]
    r = abs(face[22, 0].item() - face[25, 0].item())
    last, half = map_size - 1, round((map_size - 1) / 2 * roi_ratio)
    result = torch.zeros(map_size, map_size, dtype=torch.float64)
    for point in rule.points:
        cx = round(face[point, 0].item() * map_size / image_size)
        cy = round((face[point, 1].item() + rule.dy * r) * map_size / image_size)
        for y in range(min(max(cy - half, 0), last), min(max(cy + half, 0), last) + 1):
            for x in range(min(max(cx - half, 0), last), min(max(cx + half, 0), last) + 1):
                value = 1 - (abs(x - cx) + abs(y - cy)) * decay / (map_size * roi_ratio)
                result[y, x] = max(value, result[y, x].item())
    return result


@pytest.mark.parametrize("map_size", [52, 44])
@pytest.mark.parametrize("decay", [0.56, 0.0])
def test_matches_loops(map_size: int, decay: float, device: str) -> None:
    landmarks = random_landmarks(dtype=torch.float64)
    maps = attention_maps(landmarks.to(device), ALL_AUS, image_size=176, map_size=map_size, decay=decay).cpu()
    for n, face in enumerate(landmarks):
        for k, au in enumerate(ALL_AUS):
            expected = map_by_loops(face, au, 176, map_size, 0.14, decay)
            torch.testing.assert_close(maps[n, k], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_matches_reference(dtype: torch.dtype, device: str) -> None:
    landmarks = random_landmarks(40, dtype).to(device)
    maps = attention_maps(landmarks, facs.BP4D_AUS, image_size=176, map_size=52)
    expected = reference.attention_maps(landmarks, facs.BP4D_AUS, image_size=176, map_size=52)
    assert maps.dtype == dtype and maps.shape == (40, 12, 52, 52)
    # The same arithmetic: only the last bit of a weight may differ, never a centre.
    torch.testing.assert_close(maps, expected, rtol=0, atol=torch.finfo(dtype).eps)


def test_known_numbers(device: str) -> None:
    """At the paper's sizes the square is 9 wide and the slope 1/13 (FACTS of the released program)."""
    landmarks = torch.full((1, 49, 2), 88.0, device=device)
    (weights,) = attention_maps(landmarks, [12], image_size=176, map_size=52)[0].cpu()
    assert weights[26, 26] == 1 and torch.count_nonzero(weights) == 81
    assert weights[26, 30].item() == pytest.approx(1 - 4 / 13)
    assert weights[22, 22].item() == pytest.approx(1 - 8 / 13)
    assert weights[26, 31] == 0 and weights[21, 26] == 0


def test_halves_round_to_even(device: str) -> None:
    landmarks = torch.full((1, 49, 2), 20.0, device=device)
    landmarks[0, :, 0] = torch.arange(49) + 0.5
    rules = [facs.AURule((k, k)) for k in range(49)]
    maps = attention_maps(landmarks, rules, image_size=50, map_size=50)[0].cpu()
    columns = maps.amax(1).argmax(1).tolist()
    assert columns == [round(k + 0.5) for k in range(49)]


def test_rule_of_ones_own(device: str) -> None:
    landmarks = random_landmarks().to(device)
    known = attention_maps(landmarks, [6], image_size=176, map_size=52)
    own = attention_maps(landmarks, [facs.AURule((24, 29), dy=1.0)], image_size=176, map_size=52)
    assert torch.equal(known, own)


def test_the_maps_of_two_sides_make_that_of_both(device: str) -> None:
    """Both centres of an AU of one side are the same, and count once."""
    landmarks = random_landmarks().to(device)
    for au in facs.ONE_SIDED_AUS:
        aus = (f"{au}L", f"{au}R", au)
        maps = attention_maps(landmarks, aus, image_size=176, map_size=52)
        torch.testing.assert_close(maps[:, :2].amax(1), maps[:, 2], rtol=0, atol=0)
        expected = reference.attention_maps(landmarks, aus, image_size=176, map_size=52)
        torch.testing.assert_close(maps, expected, rtol=0, atol=torch.finfo(maps.dtype).eps)
    face = torch.full((1, 49, 2), 88.0, device=device)
    face[0, 37, 0] = 140
    left, right = attention_maps(face, ["12L", "12R"], image_size=176, map_size=52)[0].cpu()
    assert left.amax() == right.amax() == 1
    assert left.amax(0).argmax() == 41 and right.amax(0).argmax() == 26  # round(140 * 52 / 176)


def test_not_finite_gives_zero(device: str) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        landmarks = torch.full((2, 49, 2), 88.0, device=device)
        landmarks[1, 31, 0] = bad  # a centre of AUs 12, 14, 15 and 20
        for decay in (0.56, 0.0):
            maps = attention_maps(landmarks, ALL_AUS, image_size=176, map_size=52, decay=decay)
            zero = {au for k, au in enumerate(ALL_AUS) if maps[1, k].count_nonzero() == 0}
            assert zero == {12, 14, 15, 20} and maps.isfinite().all()
            expected = reference.attention_maps(landmarks, ALL_AUS, image_size=176, map_size=52, decay=decay)
            torch.testing.assert_close(maps, expected)
    landmarks = torch.full((1, 49, 2), 88.0, device=device)
    landmarks[0, 22, 0] = math.nan  # r: every AU with a shift, and 0 * NaN for those without
    assert attention_maps(landmarks, ALL_AUS, image_size=176, map_size=52).count_nonzero() == 0


def test_far_outside_the_crop(device: str) -> None:
    for far in (-1e6, 1e6, 1e30):
        landmarks = torch.full((1, 49, 2), far, device=device)
        maps = attention_maps(landmarks, ALL_AUS, image_size=176, map_size=52)
        expected = reference.attention_maps(landmarks, ALL_AUS, image_size=176, map_size=52)
        assert torch.equal(maps, expected) and maps.isfinite().all()


@settings(deadline=None, max_examples=60)
@given(
    image_size=st.integers(1, 300),
    map_size=st.integers(1, 80),
    roi_ratio=st.floats(0.01, 1),
    decay=st.floats(0, 3),
    batch=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_drawn_sizes(
    device: str, image_size: int, map_size: int, roi_ratio: float, decay: float, batch: int, seed: int
) -> None:
    options = dict(image_size=image_size, map_size=map_size, roi_ratio=roi_ratio, decay=decay)
    landmarks = (random_landmarks(batch, torch.float64, seed) * image_size / 176).to(device)
    maps = attention_maps(landmarks, ALL_AUS, **options)
    torch.testing.assert_close(
        maps, reference.attention_maps(landmarks, ALL_AUS, **options), rtol=0, atol=1e-12
    )


def test_any_strides_and_many_aus(device: str) -> None:
    landmarks = random_landmarks().to(device)
    strided = landmarks.transpose(1, 2).contiguous().transpose(1, 2)
    rules = [facs.AURule((k % 49, 5 * k % 49), dy=k / 100) for k in range(150)]
    maps = attention_maps(strided, rules, image_size=176, map_size=20)
    expected = reference.attention_maps(landmarks, rules, image_size=176, map_size=20)
    torch.testing.assert_close(maps, expected, rtol=0, atol=2e-7)
    assert attention_maps(landmarks, [], image_size=176, map_size=20).shape == (6, 0, 20, 20)


def test_maps_are_constants(device: str) -> None:
    landmarks = random_landmarks().to(device).requires_grad_()
    maps = attention_maps(landmarks, facs.BP4D_AUS, image_size=176, map_size=52)
    assert not maps.requires_grad
    assert not reference.attention_maps(landmarks, [1], image_size=176, map_size=52).requires_grad


def test_autocast_does_not_touch_it(device: str) -> None:
    landmarks = random_landmarks().to(device)
    expected = attention_maps(landmarks, facs.BP4D_AUS, image_size=176, map_size=52)
    with torch.autocast(device, torch.bfloat16):
        maps = attention_maps(landmarks, facs.BP4D_AUS, image_size=176, map_size=52)
    assert maps.dtype == torch.float32 and torch.equal(maps, expected)


def test_opcheck_compile_export(device: str, opcheck: Callable[..., Any]) -> None:
    landmarks = random_landmarks().to(device)
    opcheck(
        torch.ops.jaa_ext.attention_maps.default,
        (landmarks.requires_grad_(), [31, 37, 4, 5], [0.0, -0.5], 176, 52, 0.14, 0.56),
    )

    class Module(torch.nn.Module):
        def forward(self, landmarks: Tensor) -> Tensor:
            return 2 * attention_maps(landmarks, facs.BP4D_AUS, image_size=176, map_size=52)

    expected = Module()(landmarks.detach())
    compiled = torch.compile(Module(), fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.equal(compiled(landmarks.detach()), expected)
    program = torch.export.export(Module(), (landmarks.detach(),))
    assert torch.equal(program.module()(landmarks.detach()), expected)


MISTAKES = {
    "shape": (dict(landmarks=torch.zeros(2, 68, 2)), ValueError, r"must be \(N, 49, 2\), got \[2, 68, 2\]"),
    "dtype": (dict(landmarks=torch.zeros(2, 49, 2, dtype=torch.int64)), TypeError, "landmarks .* got int64"),
    "image size": (dict(image_size=0), ValueError, "image_size must be at least 1, got 0"),
    "map size": (dict(map_size=-3), ValueError, "map_size must be at least 1, got -3"),
    "ratio": (dict(roi_ratio=1.5), ValueError, r"roi_ratio must be in \(0, 1\], got 1.5"),
    "decay": (dict(decay=-0.5), ValueError, "decay must be at least 0, got -0.5"),
    "NaN decay": (dict(decay=math.nan), ValueError, "decay must be at least 0, got nan"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_alike(mistake: str, refused_alike: Callable[..., None]) -> None:
    changes, error, message = MISTAKES[mistake]
    arguments = dict(landmarks=torch.zeros(2, 49, 2), aus=[1, 2], image_size=176, map_size=52) | changes
    refused_alike(attention_maps, arguments, error, message)


def test_unknown_au() -> None:
    with pytest.raises(ValueError, match="no rule for AU 3: known are"):
        attention_maps(torch.zeros(1, 49, 2), [1, 3], image_size=176, map_size=52)
    with pytest.raises(ValueError, match=r"points .*0\.\.48, got \(3, 49\)"):
        facs.AURule((3, 49))
