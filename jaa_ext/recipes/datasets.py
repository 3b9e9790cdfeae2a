"""The data section of a recipe: the faces that train a model and those that test it."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from jaa_ext import facs
from jaa_ext.data import FaceDataset, PreparedFaces, RenderedFaces, SyntheticFaces, aligned_size
from jaa_ext.data.prepared import read_folds, require_known, subject_folds
from jaa_ext.data.rendered.labels import Mix
from jaa_ext.data.rendered.release import RENDERED
from jaa_ext.models import JAANetConfig

DEMONSTRATION = "Demonstration weights, trained on drawn faces: not for real use."
"""Note of weights that were trained on `SyntheticFaces`."""

OF_RENDERED_FACES = "Trained on rendered faces: AUs are actions of a face rig, not coded by people."
"""Note of weights that were trained on `RenderedFaces`, or on a folder of them."""

TEST_FOLDS = ("validation", "test")
"""Names of folds that are for testing only. Without such a fold, each fold is tested and the others train."""

DEALT_FOLDS = ("1", "2", "3")
"""Folds into which the subjects of built-in faces, or of a folder without folds, are divided: as many as in
the papers."""

LARGEST_SEED = 2**63 - 1
"""Largest seed that every random generator takes."""

MOST_FACES = 10_000_000
"""Largest number of faces of a built-in data set, and of other things that a recipe counts: more is a mistake
and would fill the memory."""

Count = Annotated[int, Field(ge=1, le=MOST_FACES, description="a whole number of at least 1")]
Whole = Annotated[int, Field(ge=0, le=MOST_FACES, description="a whole number of at least 0")]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, description="a whole number of at least 0")]


class Section(BaseModel):
    """A section of a recipe; unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BuiltIn(Section):
    """Faces that the package makes itself; no test subject is a training subject."""

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


class Synthetic(BuiltIn):
    """Drawn faces, `SyntheticFaces`."""

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


class Prepared(Section):
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


def _name(data: Any) -> str:
    """Give the name of the section that is meant."""
    name = data.get("name", "synthetic") if isinstance(data, dict) else getattr(data, "name", "synthetic")
    return str(name)


Data = Annotated[
    Annotated[Synthetic, Tag("synthetic")]
    | Annotated[Rendered, Tag("rendered")]
    | Annotated[Prepared, Tag("prepared")],
    Discriminator(_name),
    Field(description='keys and values with the name "synthetic", "rendered" or "prepared"'),
]

DATA_SECTIONS: dict[str, type[Section]] = {
    "synthetic": Synthetic,
    "rendered": Rendered,
    "prepared": Prepared,
}

STAND_IN = Synthetic(train_subjects=27, test_subjects=14, samples_per_subject=200)
"""Drawn faces in place of a data set, of as many subjects as BP4D has."""


def folds_to_test(data: BuiltIn | Prepared, folds: Collection[str] | None = None) -> tuple[str, ...]:
    """Give the folds of a data section that are tested one by one: those asked for, or all that can be.

    Raises:
        ValueError: one that cannot be tested.
    """
    known = data.folds()
    return require_known(folds or known, known, "test fold", data.title)


def note_of(faces: FaceDataset) -> str:
    """Give the note of weights that were trained on a data set; empty if they need none."""
    if isinstance(faces, SyntheticFaces):
        return DEMONSTRATION
    prepared = isinstance(faces, PreparedFaces) and faces.name == RENDERED
    return OF_RENDERED_FACES if prepared or isinstance(faces, RenderedFaces) else ""


def choose_data(default: BuiltIn | Prepared, data: str | None, fold: str | None) -> BuiltIn | Prepared:
    """Replace a recipe's data by what a command's `--data` and `--fold` name.

    Args:
        default: the data section of the recipe.
        data: a folder, or "synthetic" for drawn faces; None keeps the recipe's.
        fold: the fold that is tested; None keeps the recipe's.

    Raises:
        ValueError: a fold of built-in faces that is not 1, 2 or 3.
    """
    chosen = default
    if data == "synthetic":
        chosen = default if isinstance(default, Synthetic) else STAND_IN
    elif data is not None:
        former = default if isinstance(default, Prepared) else Prepared(name="prepared")
        chosen = former.model_copy(update={"folder": data})
    if fold is None:
        return chosen
    if isinstance(chosen, BuiltIn):  # reading those of a folder takes its time
        folds_to_test(chosen, [fold])
    return chosen.model_copy(update={"test_fold": fold})


def faces_to_test(
    default: BuiltIn | Prepared | None, data: str | None, fold: str | None, config: JAANetConfig
) -> FaceDataset:
    """Read the faces on which a model is tested, see `choose_data`; fold "all" is every face of a folder.

    Raises:
        ValueError: neither a recipe's data nor a folder, or see `choose_data` and `Prepared.build`.
    """
    if default is None and data in (None, "synthetic"):
        raise ValueError("say what to test on: --recipe, or --data with a folder of `jaa prepare`")
    default = default or STAND_IN
    if fold == "all" and isinstance(prepared := choose_data(default, data, None), Prepared):
        return PreparedFaces(prepared.title, aus=facs.au_numbers(config.aus))
    return choose_data(default, data, fold).build(config)[1]
