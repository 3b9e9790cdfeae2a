"""The file that rendered faces are made of: whole, consistent, and the landmarks where `facs` says."""

from importlib.resources import files

import numpy as np
import pytest

from jaa_ext import _library, facs
from jaa_ext.data.rendered.head import head_model

FOLDER = files("jaa_ext.data") / "rendered"


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    with np.load(str(FOLDER / "head.npz"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def landmarks(head: dict[str, np.ndarray], vertices: np.ndarray) -> np.ndarray:
    return (vertices[head["landmark_vertices"]] * head["landmark_weights"][..., None]).sum(1)


def moved(head: dict[str, np.ndarray], action: str) -> np.ndarray:
    at = list(head["action_names"]).index(action)
    return head["vertices"] + head["actions"][at] * head["action_scale"][at]


def test_the_file_is_small_and_its_licence_lies_beside_it():
    assert len((FOLDER / "head.npz").read_bytes()) <= 6_000_000
    assert "CC0" in (FOLDER / "LICENSE.md").read_text()


def test_shapes_and_dtypes_agree(head):
    vertices, triangles = len(head["vertices"]), len(head["triangles"])
    components, people = len(head["identity"]), len(head["population"])
    actions = len(head["actions"])
    expected = {
        "vertices": ("float32", (vertices, 3)),
        "identity": ("float16", (components, vertices, 3)),
        "identity_variance": ("float32", ()),
        "population": ("float16", (people, components)),
        "attributes": ("float16", (people, 5)),
        "actions": ("int16", (actions, vertices, 3)),
        "action_scale": ("float32", (actions,)),
        "triangles": ("int32", (triangles, 3)),
        "part": ("uint8", (triangles,)),
        "uv": ("float16", (vertices, 2)),
        "masks": ("uint8", (len(head["mask_names"]), vertices)),
        "landmark_vertices": ("int32", (facs.NUM_LANDMARKS, 3)),
        "landmark_weights": ("float32", (facs.NUM_LANDMARKS, 3)),
        "eyes": ("float32", (2, 4)),
        "relief": ("uint8", (len(head["relief_names"]), 400, 400)),
        "paint": ("uint8", (len(head["paint_names"]), 400, 400)),
    }
    assert {name: (str(head[name].dtype), head[name].shape) for name in expected} == expected
    names = {"action_names", "part_names", "mask_names", "relief_names", "paint_names"}
    assert head.keys() == expected.keys() | names
    for name in names:
        assert len(set(head[name])) == len(head[name])
    assert len(head["action_names"]) == actions == 52 + 34
    assert head["triangles"].min() == 0 and head["triangles"].max() == vertices - 1
    assert set(head["part"]) == set(range(len(head["part_names"])))
    assert all(np.isfinite(array).all() for array in head.values() if array.dtype.kind == "f")


def test_people_are_spread_by_one_standard_deviation_about_the_average_head(head):
    population = head["population"].astype(float)
    np.testing.assert_allclose(population.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(population.std(0), 1, atol=0.01)
    assert 0.99 < head["identity_variance"] <= 1
    spread = np.sqrt((head["identity"].astype(float) ** 2).sum((0, 2)))
    tip = landmarks(head, spread[:, None])[facs.DLIB68_TO_49.index(30)]
    assert 3 < tip < 8  # millimetres at the tip of the nose


def test_the_head_looks_along_z_and_the_eyes_lie_about_the_origin(head):
    right, left = head["eyes"][:, :3]
    np.testing.assert_allclose((right + left) / 2, 0, atol=0.01)
    assert right[0] < -28 and left[0] > 28
    points = landmarks(head, head["vertices"])
    assert points[:, 2].argmax() == facs.DLIB68_TO_49.index(30)  # the tip of the nose
    for eye, mesh in (
        (facs.LEFT_EYE, right),
        (facs.RIGHT_EYE, left),
    ):  # left in the picture: the person's right
        assert np.abs(points[list(eye), :2].mean(0) - mesh[:2]).max() < 3


def test_solid_parts_are_wound_outwards(head):
    names = list(head["part_names"])
    for name in ("right_eye", "left_eye", "upper_teeth", "lower_teeth", "tongue", "skin"):
        corners = head["vertices"][head["triangles"][head["part"] == names.index(name)]].astype(float)
        a, b, c = (corners - corners.mean((0, 1))).transpose(1, 0, 2)
        assert (a * np.cross(b, c)).sum() > 0, name
    # Each edge of the skin is run through once in each direction, but for the rim below the shoulders.
    skin = head["triangles"][head["part"] == names.index("skin")]
    edges = np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]).tolist()
    pairs = {tuple(edge) for edge in edges}
    assert len(pairs) == len(edges)
    rim = {vertex for edge in pairs if edge[::-1] not in pairs for vertex in edge}
    assert head["vertices"][list(rim)][:, 1].max() < -204  # 130 mm below the mouth


def test_landmarks_are_points_of_the_skin_and_symmetric(head):
    np.testing.assert_allclose(head["landmark_weights"].sum(1), 1, atol=1e-6)
    assert head["landmark_weights"].min() >= 0
    skin = head["triangles"][head["part"] == list(head["part_names"]).index("skin")]
    assert set(map(tuple, head["landmark_vertices"].tolist())) <= set(map(tuple, skin.tolist()))
    points = landmarks(head, head["vertices"])
    mirrored = points[list(facs.FLIP)] * [-1, 1, 1]
    assert np.linalg.norm(points - mirrored, axis=1).max() < 1


def test_the_inner_lip_opens_with_the_jaw_and_the_lids_close(head):
    inner = [43, 44, 45], [48, 47, 46]
    closed, opened = (landmarks(head, v)[:, 1] for v in (head["vertices"], moved(head, "jawOpen")))
    assert np.abs(closed[inner[0]] - closed[inner[1]]).max() < 2
    assert (opened[inner[0]] - opened[inner[1]]).min() > 20
    shut = landmarks(head, moved(head, "eye-left-closure"))[:, 1]
    assert shut[[26, 27]].max() < shut[[30, 29]].max() < closed[[26, 27]].min()


def test_left_and_right_actions_mirror_each_other(head):
    names = [str(name) for name in head["action_names"]]
    pairs = {name: name.replace("Left", "Right").replace("-left-", "-right-") for name in names}
    pairs = {left: right for left, right in pairs.items() if left != right}
    assert len(pairs) == 20 + 9
    for left, right in pairs.items():
        a, b = (landmarks(head, moved(head, name) - head["vertices"]) for name in (left, right))
        assert np.abs(a[list(facs.FLIP)] * [-1, 1, 1] - b).max() < 0.15, left


def test_masks_and_maps_cover_what_they_name(head):
    masks = dict(zip(head["mask_names"], head["masks"] / 255, strict=True))
    at = {name: landmarks(head, mask[:, None])[:, 0] for name, mask in masks.items()}
    assert at["lips"][31:].min() > 0.2 and at["lips"][:31].max() < 0.1
    assert at["scalp"].max() == at["neck"].max() == 0
    assert masks["scalp"][head["vertices"][:, 1].argmax()] == 1
    assert masks["neck"][head["vertices"][:, 1].argmin()] == 1
    points = landmarks(head, head["vertices"])
    rows, columns = ((80 - points[:, 1]) * 2).astype(int), ((points[:, 0] + 100) * 2).astype(int)
    paint = {
        name: layer[rows, columns] / 255
        for name, layer in zip(head["paint_names"], head["paint"], strict=True)
    }
    assert paint["brow"][:10].min() > 0.2 and paint["brow"][10:].max() < 0.1
    assert paint["nose_red"].argmax() == 13
    for layer in (*head["relief"], *head["paint"]):
        np.testing.assert_allclose(layer.astype(int), layer[:, ::-1], atol=1)
        assert layer.max() > 100


def test_without_compiled_kernels_it_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(_library, "DEVICES", frozenset())
    with pytest.raises(RuntimeError, match="need the compiled part of jaa_ext"):
        head_model.__wrapped__()
