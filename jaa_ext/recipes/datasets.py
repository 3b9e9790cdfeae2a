"""The data section of a recipe: the faces that train a model and those that test it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from jaa_ext import facs
from jaa_ext.data import (
    CombinedFaces,
    FaceDataset,
    PreparedFaces,
    RenderedFaces,
    SyntheticFaces,
    aligned_size,
)
from jaa_ext.data.combined import require_one_size, union_of_aus
from jaa_ext.data.generated import GeneratedFaces
from jaa_ext.data.preparation.folder import SETTINGS, FolderError, read_settings
from jaa_ext.data.prepared import read_folds, require_known, subject_folds
from jaa_ext.data.rendered.labels import Mix
from jaa_ext.data.rendered.release import RENDERED, rendered_seed
from jaa_ext.models import JAANetConfig

DEMONSTRATION = "Demonstration weights, trained on drawn faces: not for real use."
"""Note of weights that were trained on `SyntheticFaces`."""

OF_RENDERED_FACES = "Trained on rendered faces: AUs are actions of a face rig, not coded by people."
"""Note of weights that were trained on `RenderedFaces`, or on a folder of them."""

TEST_FOLDS = ("validation", "val", "test")
"""Names of folds that are for testing only. Without such a fold, each fold is tested and the others train."""

_SAME_PART = {"val": "validation", "validation": "val"}

DEALT_FOLDS = ("1", "2", "3")
"""Folds into which the subjects of built-in faces, or of a folder without folds, are divided: as many as in
the papers."""

NAME = r"[\w.+-]+"
"""Pattern of a data set's name, which ids begin with, and names of files end with."""

LARGEST_SEED = 2**63 - 1
"""Largest seed that every random generator takes."""

MOST_FACES = 10_000_000
"""Largest number of faces of a built-in data set, and of other things that a recipe counts: more is a mistake
and would fill the memory."""

Count = Annotated[int, Field(ge=1, le=MOST_FACES, description="a whole number of at least 1")]
Whole = Annotated[int, Field(ge=0, le=MOST_FACES, description="a whole number of at least 0")]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, description="a whole number of at least 0")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number above 0")]


class Section(BaseModel):
    """A section of a recipe; unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Single(Section):
    """One data set."""

    called: Annotated[
        str | None, Field(pattern=f"^{NAME}$", description="letters, digits and . _ + - alone")
    ] = None
    """Name of the data set among others, see `data_set`; None for its own."""

    @property
    def own_name(self) -> str:
        """Name of the data set wherever it is used."""
        raise NotImplementedError

    @property
    def data_set(self) -> str:
        """Name of the data set among others."""
        return self.called or self.own_name


class BuiltIn(Single):
    """Faces that the package makes itself; no test subject is a training subject."""

    KIND: ClassVar[type[GeneratedFaces]]
    """The class of the faces."""

    name: str
    train_subjects: Count
    test_subjects: Count
    samples_per_subject: Count
    seed: Seed = 0
    """Seed of the faces, on which the recipe's own seed has no influence."""
    test_fold: Literal["1", "2", "3"] | None = None
    """The third of all subjects that is tested; None for the last `test_subjects`."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        faces = (self.train_subjects + self.test_subjects) * self.samples_per_subject
        if faces > MOST_FACES:
            raise ValueError(f"subjects and their samples should be at most {MOST_FACES} faces, got {faces}")
        return self

    @property
    def title(self) -> str:
        """Description for headings."""
        raise NotImplementedError

    @property
    def own_name(self) -> str:
        return self.name

    def people(self) -> tuple[str, int]:
        """Tell who is seen: alike where data sets show the same people, see `GeneratedFaces`."""
        return self.name, self.seed

    def known_aus(self) -> tuple[facs.AU, ...]:
        """List the AUs that the faces can have labels of."""
        return self.KIND.KNOWN_AUS

    def faces(self, subjects: list[int], config: JAANetConfig) -> FaceDataset:
        """Make the faces of some subjects for a model."""
        raise NotImplementedError

    def folds(self) -> tuple[str, ...]:
        """List the values that `test_fold` can have."""
        return DEALT_FOLDS

    def build(self, config: JAANetConfig) -> tuple[FaceDataset, FaceDataset]:
        """Make the training and the test set for a model."""
        subjects = range(self.train_subjects + self.test_subjects)
        first, last = self.train_subjects, len(subjects)
        if self.test_fold is not None:
            first, last = (
                round(len(subjects) * k / 3) for k in (int(self.test_fold) - 1, int(self.test_fold))
            )
            if first == last:
                raise ValueError(
                    f"fold {self.test_fold} of the {self.title} is empty: wanted at least 3 subjects, "
                    f"got {len(subjects)}"
                )
        train = [*subjects[:first], *subjects[last:]]
        return self.faces(train, config), self.faces(list(subjects[first:last]), config)

    def every(self, config: JAANetConfig) -> FaceDataset:
        """Make the faces of all subjects for a model."""
        return self.faces(list(range(self.train_subjects + self.test_subjects)), config)


class Synthetic(BuiltIn):
    """Drawn faces, `SyntheticFaces`."""

    KIND = SyntheticFaces

    name: Literal["synthetic"] = "synthetic"
    co_occurrence: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="a number of at least 0")
    ] = 1.0
    """See `SyntheticFaces`."""

    @property
    def title(self) -> str:
        return "drawn faces"

    def faces(self, subjects: list[int], config: JAANetConfig) -> FaceDataset:
        return SyntheticFaces(
            subjects=subjects,
            samples_per_subject=self.samples_per_subject,
            seed=self.seed,
            size=aligned_size(config.image_size),
            aus=facs.au_numbers(config.aus),
            co_occurrence=self.co_occurrence,
        )


class Rendered(BuiltIn):
    """Rendered faces, `RenderedFaces`."""

    KIND = RenderedFaces

    name: Literal["rendered"]
    mix: Mix = "natural"
    """See `RenderedFaces`."""

    @property
    def title(self) -> str:
        return "rendered faces"

    def faces(self, subjects: list[int], config: JAANetConfig) -> FaceDataset:
        return RenderedFaces(
            subjects=subjects,
            samples_per_subject=self.samples_per_subject,
            seed=self.seed,
            size=aligned_size(config.image_size),
            aus=facs.au_numbers(config.aus),
            mix=self.mix,
        )


class Prepared(Single):
    """A data set that `jaa prepare` made.

    Where it has no folds of its own, its subjects are dealt into three of about as many frames each.
    """

    name: Literal["prepared"]
    folder: str | None = None
    """The folder that `jaa prepare` wrote; None if `--data` names it."""
    test_fold: str | None = None
    """The fold that is tested, whose subjects are not trained on; None for the only one there is."""

    @property
    def title(self) -> str:
        return str(self._folder())

    @property
    def own_name(self) -> str:
        """Name that the folder knows, in letters of file names."""
        name = read_settings(self._folder()).settings.name
        return "rendered" if name == RENDERED else re.sub(r"[^\w.+-]+", "-", name)

    def people(self) -> tuple[str, int | str]:
        """Tell who is seen: the people of a seed, or of the folder, however its path is written."""
        settings = read_settings(self._folder()).settings
        if settings.name == RENDERED:
            return "rendered", rendered_seed(settings.source)
        return "prepared", os.path.realpath(self._folder())

    def known_aus(self) -> tuple[facs.AU, ...]:
        """List the AUs that the folder has labels of."""
        return tuple(read_settings(self._folder()).settings.aus)

    def folds(self) -> tuple[str, ...]:
        """List the values that `test_fold` can have."""
        return _to_test(read_folds(self._folder()))

    def build(self, config: JAANetConfig) -> tuple[FaceDataset, FaceDataset]:
        """Make the training and the test set for a model.

        Raises:
            ValueError: no folder or fold is chosen, or the folder has no such fold or not these AUs.
        """
        folder = self._folder()
        folds = read_folds(folder)
        choice = _to_test(folds)
        test = self.test_fold or (choice[0] if len(choice) == 1 else None)
        if test is None:
            raise ValueError(f"{folder}: no test fold is chosen, wanted one of {', '.join(choice)}")
        require_known([test], choice, "test fold", self.title)
        faces = partial(PreparedFaces, folder, aus=facs.au_numbers(config.aus))
        if not folds:
            dealt = subject_folds(faces().frame_subjects, len(DEALT_FOLDS))
            tested = [subject for subject, fold in dealt.items() if fold == test]
            others = [subject for subject in dealt if subject not in tested]
            return faces(subjects=others), faces(subjects=tested)
        train = [fold for fold in folds if fold != test and fold not in TEST_FOLDS]
        if not train:
            raise ValueError(f'{folder}: has the fold "{test}" alone, and nothing else to train on')
        return faces(folds=train), faces(folds=[test])

    def every(self, config: JAANetConfig) -> FaceDataset:
        """Read all faces of the folder, for a model."""
        return PreparedFaces(self._folder(), aus=facs.au_numbers(config.aus))

    def _folder(self) -> Path:
        if self.folder is None:
            raise ValueError(
                "the recipe leaves open where its data lies: give --data with a folder of `jaa prepare`, "
                "or --data synthetic for drawn faces"
            )
        return Path(self.folder)


def _to_test(folds: tuple[str, ...]) -> tuple[str, ...]:
    """List the folds of a folder that can be tested."""
    return tuple(fold for fold in folds if fold in TEST_FOLDS) or folds or DEALT_FOLDS


def _came_divided(folds: Collection[str]) -> bool:
    """Tell from the folds that can be tested whether a data set came with a test part of its own."""
    return set(folds) <= set(TEST_FOLDS)


def _test_part(folds: Sequence[str]) -> str:
    """Choose a fold of a data set that came divided."""
    return "test" if "test" in folds else folds[0]


def _name(data: Any) -> str:
    """Give the name of the section that is meant."""
    name = data.get("name", "synthetic") if isinstance(data, dict) else getattr(data, "name", "synthetic")
    return str(name)


OneSet = Annotated[
    Annotated[Synthetic, Tag("synthetic")]
    | Annotated[Rendered, Tag("rendered")]
    | Annotated[Prepared, Tag("prepared")],
    Discriminator(_name),
    Field(description='keys and values with the name "synthetic", "rendered" or "prepared"'),
]


class Several(Section):
    """Several data sets, trained on and tested together, see `CombinedFaces`.

    Each set gives the AUs of the model that it has; labels of the others are missing there.
    """

    name: Literal["several"]
    sets: Annotated[
        tuple[OneSet, ...], Field(strict=False, min_length=1, description="a list of data sections")
    ]
    shares: Annotated[
        tuple[Positive, ...] | None,
        Field(strict=False, description="a list of numbers above 0, one for each of the sets"),
    ] = None
    """How much of an epoch each set gives, see `Batches`; None for each face once."""
    test_fold: str | None = None
    """The fold that is tested of every set, in place of their own `test_fold`; a set whose only folds for
    testing are "validation" (or "val": one stands for the other) and "test" keeps to these. None for that of
    each set."""
    leave_out: str | None = None
    """Name of a set, see `set_names`, all of whose faces are tested, and whose others train whole, with all
    folds. None to test a fold of each."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.shares is not None and len(self.shares) != len(self.sets):
            raise ValueError(
                f"shares should be one for each of {len(self.sets)} sets, got {len(self.shares)}"
            )
        return self

    @property
    def title(self) -> str:
        """Description for headings."""
        return ", ".join(section.title for section in self.sets)

    def set_names(self) -> tuple[str, ...]:
        """List the names of the data sets, with which the ids of their faces begin.

        Raises:
            ValueError: two show the same people, or have one name, and so perhaps the same people.
        """
        for one, other in combinations(self.sets, 2):
            if one.people() == other.people():
                raise ValueError(
                    f"{one.title} and {other.title} show the same people, who would be trained on and "
                    "tested: wanted each data set once (rendered or drawn faces of one seed show the same "
                    "people)"
                )
            # Files are named after data sets, and some systems do not tell "A" from "a".
            if one.data_set.casefold() == other.data_set.casefold():
                raise ValueError(
                    f'{one.title} and {other.title} are called "{one.data_set}" and "{other.data_set}": '
                    "if they show other people, wanted names that differ, not in case alone "
                    '(--data NAME=FOLDER, "called" in a recipe)'
                )
        return tuple(section.data_set for section in self.sets)

    def known_aus(self) -> tuple[facs.AU, ...]:
        """List the AUs that at least one set can have labels of."""
        return union_of_aus(section.known_aus() for section in self.sets)

    def divided(self, folds: Sequence[str]) -> tuple[str, ...]:
        """List the names of the sets of which all of these folds, if they are several, test the same part."""
        return tuple(
            section.data_set
            for section in self.sets
            if 1 == len({_tested_on(section, fold).test_fold for fold in folds}) < len(folds)
        )

    def folds(self) -> tuple[str, ...]:
        """List the values that `test_fold` can have.

        Raises:
            ValueError: sets with folds of other names than others'.
        """
        of_each = {section.title: section.folds() for section in self.sets}
        dealt = {title: folds for title, folds in of_each.items() if not _came_divided(folds)}
        if not dealt:
            return tuple(dict.fromkeys(fold for folds in of_each.values() for fold in folds))
        first, folds = next(iter(dealt.items()))
        for title, others in dealt.items():
            if set(others) != set(folds):
                raise ValueError(
                    f"wanted the same folds in every data set, got {', '.join(folds)} in {first} and "
                    f"{', '.join(others)} in {title}: give each set a test_fold of its own in a recipe, "
                    "or leave out whole data sets"
                )
        return folds

    def build(self, config: JAANetConfig) -> tuple[CombinedFaces, CombinedFaces]:
        """Make the training and the test set for a model.

        Raises:
            ValueError: an AU or a test fold that no set has, no set of the name `leave_out`, or what a set
                raises.
        """
        names, configs = self.set_names(), self._configs(config)
        shares, aus = self.shares, facs.au_numbers(config.aus)
        if self.leave_out is None:
            tested = [_tested_on(section, self.test_fold) for section in self.sets]
            chosen = {section.test_fold for section in tested}
            if self.test_fold is not None and not chosen & {self.test_fold, _SAME_PART.get(self.test_fold)}:
                require_known([self.test_fold], self.folds(), "test fold", self.title)
            pairs = [section.build(own) for section, own in zip(tested, configs, strict=True)]
            train, test = (dict(zip(names, parts, strict=True)) for parts in zip(*pairs, strict=True))
        else:
            require_known([self.leave_out], names, "data set", self.title)
            place = names.index(self.leave_out)
            others = [k for k in range(len(names)) if k != place]
            train = {names[k]: self.sets[k].every(configs[k]) for k in others}
            labels = CombinedFaces(train, aus=aus).label_matrix()
            learnt = [au for au, column in zip(aus, labels.T, strict=True) if (column >= 0).any()]
            shared = _with_aus(configs[place], learnt, "the other data sets")
            test = {self.leave_out: self.sets[place].every(shared)}
            require_one_size({**train, **test})
            shares = None if shares is None else tuple(shares[k] for k in others)
        return CombinedFaces(train, aus=aus, shares=shares), CombinedFaces(test, aus=aus)

    def every(self, config: JAANetConfig) -> CombinedFaces:
        """Make the faces of all sets and folds for a model."""
        sections = zip(self.set_names(), self.sets, self._configs(config), strict=True)
        every = {name: section.every(own) for name, section, own in sections}
        return CombinedFaces(every, aus=facs.au_numbers(config.aus))

    def _configs(self, config: JAANetConfig) -> list[JAANetConfig]:
        """Give a model's config for each set, with the AUs that the set has alone.

        Raises:
            ValueError: an AU that no set has, or a set that has none.
        """
        known = self.known_aus()
        for au in facs.au_numbers(config.aus):
            if au not in known:
                raise ValueError(f"{self.title}: have no labels of AU {au}, only of {list(known)}")
        return [_with_aus(config, section.known_aus(), section.title) for section in self.sets]


def _with_aus(config: JAANetConfig, aus: Collection[facs.AU], title: str) -> JAANetConfig:
    """Give the config by which data are read, without the AUs that are not among `aus`.

    Raises:
        ValueError: none is; the message begins with `title`.
    """
    kept = tuple(au for au in config.aus if facs.au_number(au) in aus)
    if not kept:
        wanted = ", ".join(map(str, facs.au_numbers(config.aus)))
        raise ValueError(f"{title}: wanted labels of at least one of AUs {wanted}, got none")
    # A model that mirrors wants both sides of an AU, which a data set need not have.
    return replace(config, aus=kept, mirror=False)


def _tested_on(section: OneSet, fold: str | None) -> OneSet:
    """Choose the fold of one set among several, see `Several.test_fold`; None keeps the section's."""
    if fold is None:
        return section
    folds = section.folds()
    if fold not in folds and _came_divided(folds):
        same = _SAME_PART.get(fold)
        fold = same if same in folds else section.test_fold or _test_part(folds)
    folds_to_test(section, [fold])
    return section.model_copy(update={"test_fold": fold})


Data = Annotated[
    Annotated[Synthetic, Tag("synthetic")]
    | Annotated[Rendered, Tag("rendered")]
    | Annotated[Prepared, Tag("prepared")]
    | Annotated[Several, Tag("several")],
    Discriminator(_name),
    Field(description='keys and values with the name "synthetic", "rendered", "prepared" or "several"'),
]

DATA_SECTIONS: dict[str, type[Section]] = {
    "synthetic": Synthetic,
    "rendered": Rendered,
    "prepared": Prepared,
    "several": Several,
}

STAND_IN = Synthetic(train_subjects=27, test_subjects=14, samples_per_subject=200)
"""Drawn faces in place of a data set, of as many subjects as BP4D has."""

STAND_INS: dict[str, Synthetic | Rendered] = {
    "synthetic": STAND_IN,
    "rendered": Rendered(name="rendered", train_subjects=27, test_subjects=14, samples_per_subject=200),
}
"""What `--data` calls by a word: faces that the package makes itself."""


def folds_to_test(data: Data, folds: Collection[str] | None = None) -> tuple[str, ...]:
    """Give the folds of a data section that are tested one by one: those asked for, or all that can be.

    Of data that came divided that is its test part alone: validation would be tested by the same training.

    Raises:
        ValueError: one that cannot be tested.
    """
    known = data.folds()
    usual = (_test_part(known),) if _came_divided(known) else known
    return require_known(folds or usual, known, "test fold", data.title)


def note_of(faces: FaceDataset) -> str:
    """Give the note of weights that were trained on a data set; empty if they need none."""
    if isinstance(faces, CombinedFaces):
        return " ".join(dict.fromkeys(note for part in faces.sets.values() if (note := note_of(part))))
    if isinstance(faces, SyntheticFaces):
        return DEMONSTRATION
    prepared = isinstance(faces, PreparedFaces) and faces.name == RENDERED
    return OF_RENDERED_FACES if prepared or isinstance(faces, RenderedFaces) else ""


def choose_data(
    default: Data,
    data: str | Sequence[str] | None,
    fold: str | None,
    shares: Sequence[float] | None = None,
) -> Data:
    """Replace a recipe's data by what a command's `--data`, `--fold` and `--share` name.

    The recipe's shares, and the data set that it leaves out, hold for its own data sets in their order, moved
    or not: other ones are taken without them.

    Args:
        default: the data section of the recipe.
        data: a folder, or one of `STAND_INS` for built-in faces (a prepared folder called "rendered" goes
            first), "NAME=" before it to name the data set; or several of these, together. None or nothing
            keeps the recipe's.
        fold: the fold that is tested; None keeps the recipe's.
        shares: how much of an epoch each of several data sets gives; None or nothing keeps the recipe's.

    Raises:
        ValueError: a fold of built-in faces that is not 1, 2 or 3, another number of shares than of data
            sets, one that is not above 0, or a name with other letters than those of files.
    """
    names, chosen = _names(data), default
    if names:
        sets = tuple(_named(name, place, len(names), default) for place, name in enumerate(names))
        if len(names) == 1:
            chosen = sets[0]
        elif isinstance(default, Several) and _are_same(default.sets, sets):
            chosen = default.model_copy(update={"sets": sets})
        else:
            chosen = Several(name="several", sets=sets)
    if shares:
        if not all(0 < share < math.inf for share in shares):
            raise ValueError(f"--share: wanted numbers above 0, got {', '.join(map(str, shares))}")
        if not isinstance(chosen, Several) or len(shares) != len(chosen.sets):
            count = len(chosen.sets) if isinstance(chosen, Several) else 1
            raise ValueError(
                f"--share is for several data sets, once for each: got {len(shares)} of them for {count}"
            )
        chosen = chosen.model_copy(update={"shares": tuple(shares)})
    if fold is None:
        return chosen
    if isinstance(chosen, BuiltIn):  # reading those of a folder takes its time
        folds_to_test(chosen, [fold])
    return with_fold(chosen, fold)


def with_fold(data: Data, fold: str) -> Data:
    """Give a data section of which this fold is tested."""
    leaves_out = isinstance(data, Several) and data.leave_out is not None
    return data.model_copy(update={"test_fold": fold, **({"leave_out": None} if leaves_out else {})})


def _names(data: str | Sequence[str] | None) -> list[str]:
    return [data] if isinstance(data, str) else list(data or ())


def _split_name(text: str) -> tuple[str | None, str]:
    """Split NAME=FOLDER; what is there as it stands is a folder without a name.

    Raises:
        ValueError: the folder is there, and what stands before it is no name; or nothing is.
    """
    called, equals, folder = text.partition("=")
    if (text and not equals) or os.path.exists(text):
        return None, text
    if not folder:
        raise ValueError(f'--data "{text}": wanted a folder, got none')
    if re.fullmatch(NAME, called):
        return called, folder
    if os.path.exists(folder):
        raise ValueError(f"--data {text}: a name has letters, digits and . _ + - alone, got {called!r}")
    return None, text


def _stand_in(name: str) -> Synthetic | Rendered | None:
    # "rendered" was the name of a folder alone, before it was a word.
    folder = name == "rendered" and (Path(name) / SETTINGS).exists()
    return None if folder else STAND_INS.get(name)


def _named(text: str, place: int, count: int, default: Data) -> OneSet:
    """Give the data set that `--data` names at one of `count` places.

    A former one of its name, kind or folder, or one of as many that may have moved, keeps its other values:
    of several the one of its name, or else of its place.
    """
    called, name = _split_name(text)
    update: dict[str, Any] = {} if called is None else {"called": called}
    in_order = default.sets if isinstance(default, Several) else (default,) * count
    placed = sorted(enumerate(in_order), key=lambda former: (former[1].called != called, former[0] != place))
    formers = [former for _, former in placed]
    if (stand_in := _stand_in(name)) is not None:
        former = next((former for former in formers if isinstance(former, type(stand_in))), None)
        # Of several data sets the fold of all is tested, and the others were trained on.
        fold = default.test_fold if isinstance(default, Several) else None
        if former is not None and fold in DEALT_FOLDS:
            update["test_fold"] = fold
        return (former or stand_in).model_copy(update=update)
    folders = [former for former in formers if isinstance(former, Prepared)]
    same = [
        former
        for former in folders
        if (called is not None and former.called == called)
        or (former.folder is not None and Path(former.folder) == Path(name))
    ]
    moved = in_order[place] if len(in_order) == count else None
    if not same and isinstance(moved, Prepared) and moved.called is None:
        same = [moved]
    return (same or [Prepared(name="prepared")])[0].model_copy(update={"folder": name, **update})


def _are_same(formers: Sequence[OneSet], sets: Sequence[OneSet]) -> bool:
    """Tell whether data sets are a recipe's in its order, perhaps moved: by their names, where known."""
    if list(map(type, formers)) != list(map(type, sets)):
        return False
    for former, section in zip(formers, sets, strict=True):
        if former == section or (isinstance(former, Prepared) and former.folder is None):
            continue
        if section in formers:
            return False
        try:
            if former.data_set != section.data_set:
                return False
        except (FolderError, OSError):  # the former folder, and so its name, is no longer there
            if section.called is not None:
                return False
    return True


def union_of(data: Several) -> tuple[facs.AU, ...]:
    """Give the AUs that at least one set has; of built-in faces those without a side."""
    return union_of_aus(
        [au for au in section.known_aus() if isinstance(section, Prepared) or isinstance(au, int)]
        for section in data.sets
    )


def faces_to_test(
    default: Data | None, data: str | Sequence[str] | None, fold: str | None, config: JAANetConfig
) -> FaceDataset:
    """Read the faces on which a model is tested, see `choose_data`; fold "all" is every face of the folders.

    A folder that lacks some of the model's AUs is tested on the others, as one of several data sets is.

    Raises:
        ValueError: neither a recipe's data nor a folder, built-in faces without a recipe, a fold of a recipe
            that leaves out a data set, or see `choose_data`, `Prepared.build` and `Several.build`.
    """
    names = _names(data)
    # Without the recipe it is not known which built-in people the model was trained on.
    if default is None and (not names or any(_stand_in(_split_name(name)[1]) for name in names)):
        raise ValueError(
            "say what to test on: --recipe, or --data with a folder of `jaa prepare` (built-in faces want "
            "--recipe, which tells whom the model was trained on)"
        )
    chosen = choose_data(default or STAND_IN, data, None)
    left_out = default.leave_out if isinstance(default, Several) else None
    kept = fold is None and isinstance(chosen, Several) and chosen.leave_out is not None
    if left_out is not None and fold != "all" and not kept:
        raise ValueError(
            f'the recipe leaves out the data set "{left_out}" and trains all folds of the others: wanted '
            "neither --fold nor other --data, or --fold all, which is every face"
        )
    if isinstance(chosen, Prepared) and not set(facs.au_numbers(config.aus)) <= set(chosen.known_aus()):
        chosen = Several(name="several", sets=(chosen,))
    own = config
    if isinstance(chosen, Several):  # a model may have AUs that none of the sets has
        own = _with_aus(config, chosen.known_aus(), chosen.title)
    if fold == "all" and not isinstance(chosen, BuiltIn):
        faces: FaceDataset = chosen.every(own)
    else:
        faces = choose_data(chosen, None, fold).build(own)[1]
    if isinstance(faces, CombinedFaces):
        return CombinedFaces(faces.sets, aus=facs.au_numbers(config.aus))
    return faces
