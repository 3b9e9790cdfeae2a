"""Kinds of input that `jaa prepare` reads, and the folders that it writes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import h5py
import numpy as np
import scipy.io
from damage import NASTY, NUMBERS, damage_bytes, damage_table, damage_tree, to_json
from files import SIDE, Everywhere, Files, check_faces, prepare_and_check, releases

from jaa_ext import facs
from jaa_ext.data import PreparedFaces, prepare
from jaa_ext.data.preparation.folder import LANDMARK_COLUMNS
from jaa_ext.data.readers.affwild2 import read_affwild2
from jaa_ext.data.readers.bp4d import read_bp4d
from jaa_ext.data.readers.disfa import read_disfa
from jaa_ext.data.readers.lists import read_lists
from jaa_ext.data.readers.table import read_table


class LabelTable(Files):
    """Anybody's labels in a CSV file."""

    def make(self) -> None:
        self.table = self.folder / "labels.csv"
        lines = [",".join(("image", "subject", "task", "frame", "fold", "AU1", "AU12", *LANDMARK_COLUMNS))]
        for i, face in enumerate(releases.draw(1, 6, (1, 12), face_side=SIDE, width=80, height=SIDE)):
            releases.write_image(self.folder / f"{i}.png", face.picture)
            points = [""] * 98 if i == 4 else [f"{value:.2f}" for value in face.landmarks.T.ravel()]
            lines.append(
                ",".join((f"{i}.png", f"P{i // 2}", "", str(i), str(i // 2), *map(str, face.labels), *points))
            )
        self.table.write_text("\n".join(lines) + "\n")

    def change(self, random: Random) -> None:
        self.put(self.table, damage_table(self.valid[self.table], random))

    def take(self) -> None:
        prepare_and_check(read_table(self.table), self.out)

    def arguments(self) -> Iterable[object]:
        return "prepare", "csv", self.table, "--out", self.out, "--workers", 0, "--size", SIDE

    def names(self) -> Iterable[str]:
        return "labels", *(f"{i}.png" for i in range(6))


class Lists(Files):
    """The JAA-Net authors' lists."""

    def make(self) -> None:
        for part, subjects in (("BP4D_part1", ("F001", "F002")), ("BP4D_part2", ("F003",))):
            paths, points, labels = [], [], []
            for subject in subjects:
                for i, face in enumerate(
                    releases.draw(3, 3, facs.BP4D_AUS, face_side=SIDE, width=80, height=SIDE)
                ):
                    paths.append(f"{subject}/T1/{i}.jpg")
                    releases.write_image(self.folder / paths[-1], face.picture)
                    points.append(" ".join(f"{value:.3f}" for value in (face.landmarks + 1).ravel()))
                    labels.append(" ".join(map(str, face.labels)))
            for what, lines in (("path", paths), ("land", points), ("AUoccur", labels)):
                (self.folder / f"{part}_{what}.txt").write_text("\n".join(lines) + "\n")
        self.lists = sorted(self.folder.glob("*.txt"))

    def change(self, random: Random) -> None:
        for path in random.sample(self.lists, random.choice((1, 1, 2))):
            self.put(path, damage_table(self.valid[path], random, "/" if "_path" in path.name else " "))

    def take(self) -> None:
        prefixes = [self.folder / "BP4D_part1", self.folder / "BP4D_part2"]
        prepare_and_check(read_lists(prefixes, self.folder, landmarks="raw"), self.out)

    def arguments(self) -> Iterable[object]:
        prefixes = self.folder / "BP4D_part1", self.folder / "BP4D_part2"
        options = ("--images", self.folder, "--landmarks", "raw", "--workers", 0, "--size", SIDE)
        return "prepare", "lists", *prefixes, *options, "--out", self.out

    def names(self) -> Iterable[str]:
        return "BP4D_part1", "BP4D_part2", "lists", "BP4D"


class GraphAULists(Files):
    """ME-GraphAU's lists, which have no landmarks."""

    def make(self) -> None:
        lines: dict[str, list[tuple[str, str]]] = {}
        for fold, subject in (("1", "F001"), ("2", "F003"), ("3", "F004")):
            for i, face in enumerate(
                releases.draw(3, 2, facs.BP4D_AUS, face_side=SIDE, width=80, height=SIDE)
            ):
                path = f"{subject}/T1/{i}.jpg"
                releases.write_image(self.folder / path, face.picture)
                lines.setdefault(fold, []).append((path, " ".join(map(str, face.labels))))
        for fold, own in lines.items():
            others = [line for other in lines if other != fold for line in lines[other]]
            for part, some in (("test", own), ("train", others)):
                for what, place in (("img_path", 0), ("label", 1)):
                    text = "".join(f"{line[place]}\n" for line in some)
                    (self.folder / f"BP4D_{part}_{what}_fold{fold}.txt").write_text(text)
        self.lists = sorted(self.folder.glob("*.txt"))

    def change(self, random: Random) -> None:
        path = random.choice(self.lists)
        self.put(path, damage_table(self.valid[path], random, "/" if "_path" in path.name else " "))

    def take(self) -> None:
        prepare_and_check(read_lists([self.folder / "BP4D"], self.folder, landmarks="none"), self.out)

    def names(self) -> Iterable[str]:
        return "BP4D_test", "BP4D_train", "lists: wanted", "BP4D: wanted"


class BP4D(Files):
    """BP4D: the files of codes."""

    def make(self) -> None:
        releases.make_bp4d(self.folder, ("F001", "F003"), frames=3, before=1)
        self.codes = sorted(self.folder.rglob("*.csv"))
        self.landmarks = sorted(self.folder.rglob("*.mat"))

    def change(self, random: Random) -> None:
        path = random.choice(self.codes)
        self.put(path, damage_table(self.valid[path], random))

    def take(self) -> None:
        prepare_and_check(read_bp4d(self.folder), self.out)

    def arguments(self) -> Iterable[object]:
        return "prepare", "bp4d", self.folder, "--out", self.out, "--workers", 0, "--size", SIDE

    def names(self) -> Iterable[str]:
        # A folder without one usable frame is told of by the data set's name.
        return {path.name for path in self.changed} | {"BP4D: wanted frames"}


class BP4DLandmarks(BP4D):
    """BP4D: the files of landmarks, in HDF5."""

    def change(self, random: Random) -> None:
        path = random.choice(self.landmarks)
        if random.random() < 0.5:
            self.put(path, damage_bytes(self.valid[path], random)[0])
            return
        data = io.BytesIO(self.valid[path])
        with h5py.File(data, "r+") as file:
            _change_hdf5(file, random)
        self.put(path, data.getvalue())


def _change_hdf5(file: Any, random: Random) -> None:
    """Another thing in place of fit/pred, or of what one of its entries refers to."""
    name = random.choice(sorted(file["#refs#"]))
    entry, cells = f"#refs#/{name}", "fit/pred"
    value = random.choice(NUMBERS)
    match random.randrange(14):
        case 0:
            del file[entry]
        case 1:
            del file[entry]
            file.create_group(entry)
        case 2:
            del file[entry]
            shape = random.choice(((49, 2), (2, 66), (98,), (2, 49, 1), (), (0, 49), (2, 48)))
            _set(file, entry, np.full(shape, 3.0))
        case 3:
            del file[entry]
            kind = random.choice(
                ("S8", "i1", "u8", "f2", "c16", "?", h5py.string_dtype(), h5py.ref_dtype, "V8")
            )
            file.create_dataset(entry, (2, 49), kind)
        case 4:
            points = file[entry][()]
            points[random.randrange(2), random.randrange(49)] = float(value) if abs(value) < 1e308 else 1e308
            file[entry][...] = points
        case 5:
            file[entry][...] = random.choice((float("nan"), float("inf"), 0.0, -1e30, 1e30, 5.0))
        case 6:
            file[entry].attrs["MATLAB_empty"] = random.choice(
                (1, "yes", [0, 1], np.nan, b"no", np.zeros((2, 2)))
            )
        case 7:
            cell = random.randrange(len(file[cells]))
            file[cells][cell, 0] = random.choice(
                (file.ref, file["fit"].ref, file[cells].ref, h5py.Reference())
            )
        case 8:
            del file[cells]
            shape = random.choice(((0, 1), (1, 1), (7, 1), (), (4, 4), (2, 49)))
            _set(file, cells, np.full(shape, 7.0))
        case 9:
            del file[cells]
            file.create_dataset(cells, (4, 1), random.choice((h5py.ref_dtype, h5py.regionref_dtype, "S4")))
        case 10:
            del file[cells]
            file.create_group(cells)
        case 11:
            del file["fit"]
            file["fit"] = random.choice(
                (h5py.SoftLink("/nothing"), h5py.ExternalLink("none.mat", "/fit"), 1.0)
            )
        case 12:
            del file[entry]
            file[entry] = random.choice(
                (h5py.SoftLink(f"/{entry}"), h5py.SoftLink("/fit"), np.zeros((2, 49)))
            )
        case 13:
            del file[entry]
            file.create_dataset(entry, (2, 10**9), "f8", chunks=(1, 1000))


def _set(file: Any, name: str, value: Any) -> None:
    file.create_dataset(name, data=value)


class DISFA(Files):
    """DISFA: the files of intensities."""

    def make(self) -> None:
        releases.make_disfa(self.folder, ("SN001", "SN003"), frames=3)
        self.codes = sorted(self.folder.rglob("SN*_au*.txt"))
        self.videos = sorted(self.folder.rglob("*.avi"))
        self.landmarks = sorted(self.folder.rglob("*.mat"))

    def change(self, random: Random) -> None:
        path = random.choice(self.codes)
        self.put(path, damage_table(self.valid[path], random))

    def take(self) -> None:
        prepare_and_check(read_disfa(self.folder), self.out)

    def arguments(self) -> Iterable[object]:
        return "prepare", "disfa", self.folder, "--out", self.out, "--workers", 0, "--size", SIDE

    def names(self) -> Iterable[str]:
        return {path.name for path in self.changed} | {"DISFA: wanted frames"}


class DISFAVideos(DISFA):
    """DISFA: the videos."""

    def change(self, random: Random) -> None:
        path = random.choice(self.videos)
        self.put(path, damage_bytes(self.valid[path], random)[0])


class DISFALandmarks(DISFA):
    """DISFA: the files of landmarks, MATLAB's of version 5."""

    def change(self, random: Random) -> None:
        path = random.choice(self.landmarks)
        if random.random() < 0.6:
            self.put(path, damage_bytes(self.valid[path], random)[0])
            return
        data = io.BytesIO()
        scipy.io.savemat(data, _matlab(random), do_compression=random.random() < 0.5)
        self.put(path, damage_bytes(data.getvalue(), random)[0] if random.random() < 0.3 else data.getvalue())


def _matlab(random: Random) -> dict[str, Any]:
    """Something else where 66 points are wanted."""
    points = np.random.default_rng(random.randrange(1000)).uniform(40, 150, (66, 2))
    changed = points.copy()
    number = random.choice(NUMBERS)
    changed[random.randrange(66), random.randrange(2)] = float(number) if abs(number) < 1e308 else 1e308
    cells = np.empty((66, 2), object)
    cells[:] = 3.0
    struct = {"points": points, "next": {"points": points}}
    value = random.choice(
        (
            points[:49],
            points.T,
            points[None],
            changed,
            np.full((66, 2), np.nan),
            points.astype(np.float16),
            "points",
            points + 1j,
            points.astype(np.int8),
            points > 90,
            cells,
            np.zeros((0, 0)),
            np.array("ab" * 66),
            struct,
            scipy.sparse.csc_matrix(points),
            np.array([struct, struct]),
            66,
            points * 1e30,
            points * 0,
        )
    )
    return {random.choice(("pts", "pts", "pts", "pts", "Pts", "__header__")): value, "other": points}


class AffWild2(Files):
    """Aff-Wild2: the files of labels."""

    def make(self) -> None:
        releases.make_affwild2(self.folder, ("video1",), ("video2",), frames=4, side=SIDE)
        self.codes = sorted(self.folder.rglob("*.txt"))

    def change(self, random: Random) -> None:
        path = random.choice(self.codes)
        self.put(path, damage_table(self.valid[path], random))

    def take(self) -> None:
        prepare_and_check(read_affwild2(self.folder), self.out, align=False)

    def names(self) -> Iterable[str]:
        # A first line that is not Aff-Wild2's makes the folder another challenge's.
        return {path.name for path in self.changed} | {
            "Aff-Wild2: wanted frames",
            "wanted Train_Set and Validation_Set",
        }


class PreparedFolder(Files):
    """What `jaa prepare` wrote: index, pictures and prepare.json."""

    def make(self) -> None:
        for table in ("csv", "parquet"):
            (self.folder / "data").mkdir(exist_ok=True)
            releases.make_affwild2(self.folder / "data", ("video1",), ("video2",), frames=3, side=SIDE)
            prepare(
                read_affwild2(self.folder / "data"),
                self.folder / table,
                align=False,
                detector=Everywhere,
                table=table,
                workers=0,
            )
        shutil.rmtree(self.folder / "data")
        self.chosen = self.folder / "csv"

    def change(self, random: Random) -> None:
        self.chosen = self.folder / random.choice(("csv", "parquet"))
        path = random.choice([path for path in sorted(self.valid) if path.parent == self.chosen])
        if random.random() < 0.05:
            path = random.choice([path for path in sorted(self.valid) if path.suffix == ".jpg"])
        data = self.valid[path]
        if random.random() < 0.03:
            self.put(path, None)
        elif path.suffix == ".json":
            self.put(path, to_json(damage_tree(json.loads(data), random), random))
        elif path.suffix == ".csv":
            self.put(path, damage_table(data, random))
        elif path.suffix == ".parquet" and random.random() < 0.5:
            self.put(path, damage_parquet(data, random))
        else:
            self.put(path, damage_bytes(data, random)[0])

    def take(self) -> None:
        check_faces(PreparedFaces(self.chosen))

    def names(self) -> Iterable[str]:
        return {path.name for path in self.changed} | {f"in/{self.chosen.name}", "prepare.json"}


def damage_parquet(data: bytes, random: Random) -> bytes:
    """A whole Parquet file with other columns or values."""
    import pandas as pd

    table = pd.read_parquet(io.BytesIO(data))
    name = random.choice(list(table.columns))
    match random.randrange(7):
        case 0:
            table = table.drop(columns=name)
        case 1:
            table = table.rename(columns={name: f"{name}x"})
        case 2:
            table[name] = table[name].astype(str)
        case 3:
            table[name] = random.choice((None, np.nan, 1e300, -1, 999, "x", b"\xff", True, pd.Timestamp(0)))
        case 4:
            table[name] = [[1, 2]] * len(table)
        case 5:
            table = table.iloc[:0] if random.random() < 0.5 else pd.concat([table, table])
        case 6:
            table[name] = table[name].astype("category")
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


class Parts(Files):
    """A preparation that was interrupted, and goes on."""

    def make(self) -> None:
        source = self.folder / "data"
        releases.make_bp4d(source, ("F001", "F003"), frames=3, before=1)
        release = read_bp4d(source)
        begun = self.folder / "begun"
        first, second = release.clips
        try:
            prepare(
                replace(release, clips=(first, _Interrupted(second))),
                begun,
                size=SIDE,
                table="csv",
                workers=0,
            )
        except KeyboardInterrupt:
            self.release = release
        self.begun = [path for path in begun.rglob("*") if path.is_file()]

    def change(self, random: Random) -> None:
        path = random.choice(sorted(self.begun))
        data = self.valid[path]
        if random.random() < 0.1:
            self.put(path, None)
        elif path.suffix == ".json" and random.random() < 0.8:
            self.put(path, to_json(damage_tree(json.loads(data), random), random))
        elif path.suffix == ".npz" and random.random() < 0.5:
            self.put(path, _damage_npz(data, random))
        else:
            self.put(path, damage_bytes(data, random)[0])

    def take(self) -> None:
        shutil.copytree(self.folder / "begun", self.out)
        prepare(self.release, self.out, size=SIDE, table="csv", workers=0)
        check_faces(PreparedFaces(self.out))

    def names(self) -> Iterable[str]:
        return {path.name for path in self.changed} | {str(self.out)}


@dataclass(frozen=True)
class _Interrupted:
    """A clip during which Ctrl-C is pressed."""

    whole: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def read(self) -> Iterator[Any]:
        raise KeyboardInterrupt


def _damage_npz(data: bytes, random: Random) -> bytes:
    arrays = dict(np.load(io.BytesIO(data)))
    name = random.choice(sorted(arrays))
    value = arrays[name]
    match random.randrange(6):
        case 0:
            del arrays[name]
        case 1:
            arrays[name + "x"] = value
        case 2:
            arrays[name] = value[:-1]
        case 3:
            arrays[name] = np.array(random.choice(NASTY))
        case 4 if value.dtype.kind in "if":
            arrays[name] = value.astype(np.float64) * random.choice((np.nan, 1e30, -1, 0, 1000))
        case _:
            arrays[name] = np.concatenate([value, value])
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
