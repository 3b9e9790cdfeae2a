"""Recipes: everything that a training run depends on, in one YAML file."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Hashable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from jaa_ext import facs
from jaa_ext.data.augment import Augmentation
from jaa_ext.models import JAAGraphNetConfig, JAANetConfig
from jaa_ext.recipes.datasets import DATA_SECTIONS, Count, Data, Positive, Section, Seed, Whole

Module = Literal["region_learning", "alignment", "global_features", "attention", "graph", "au_head"]
"""The parts of a model that a stage can train or keep fixed."""


MOST_BYTES = 2**16
"""Largest size of a recipe's file, since YAML is slow to read; the built-in ones have two thousand bytes."""
DEEPEST = 20
"""Most levels of sections and lists within one another."""
MOST_BASES = 20
"""Longest chain of recipes that are based on one another."""
SHOWN = 5
"""Most problems of a recipe that are listed; the others are counted."""


class RecipeError(ValueError):
    """Problems of a recipe: a sentence for each of the first few, which names file and key."""


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe from a YAML file, or a built-in one by its name (see `builtin_recipes`).

    A recipe may name another one as its ``base``, and then holds what differs from it: keys of sections one
    by one, lists and data sections of another name whole.

    Raises:
        RecipeError: no such recipe, no YAML, or keys or values that are wrong.
    """
    name, values = _read(recipe)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = _innermost(error.errors(include_url=False))
        sentences = [f"{name}: {_sentence(problem)}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            sentences.append(f"{name}: and {len(problems) - SHOWN} more problems")
        raise RecipeError("\n".join(sentences)) from None


def builtin_recipes() -> list[str]:
    """List the names of the recipes that come with the package."""
    files = (resources.files("jaa_ext") / "recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a number of at least 0")]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, description="a number from 0 to below 1")]
Decay = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, description="a number above 0 and up to 1")]


def _au(value: Any) -> facs.AU | facs.AURule:
    if isinstance(value, facs.AURule) or type(value) is int:
        return value
    match value:
        case str() if facs.ONE_SIDED.fullmatch(value):
            return value
        case {"number": int(number), "points": [int(a), int(b)], **rest} if rest.keys() <= {"dy", "side"}:
            dy, side = rest.get("dy", 0.0), rest.get("side")
            if type(number) is int and isinstance(dy, int | float) and math.isfinite(dy):
                return facs.AURule((a, b), float(dy), number, side)  # type: ignore[arg-type]  # checked there
    raise ValueError(
        "should be an AU number, with L or R for one side, or a rule with number, points and dy, "
        f"got {_shown(value)}"
    )


class ModelSection(Section):
    """A preset of `JAANetConfig` and the fields that differ from it, by their names there."""

    preset: Literal["released", "paper", "journal", "graph"] = "released"
    """"graph" stands for `JAAGraphNetConfig`."""
    aus: Annotated[
        tuple[Annotated[Any, PlainValidator(_au)], ...],
        Field(strict=False, min_length=1, description="a list of AU numbers"),
    ] = facs.BP4D_AUS
    """Numbers of AUs with a rule in `facs.AU_RULES`; of one side as 12L and 12R, see `facs.ONE_SIDED_AUS`; or
    rules of one's own: ``{number: 16, points: [39, 41], dy: 0.1}``, see `facs.AURule`."""

    def config(self) -> JAANetConfig:
        """Give the configuration that the section stands for."""
        kind = JAAGraphNetConfig if self.preset == "graph" else JAANetConfig
        fields = self.model_dump(include=self.model_fields_set - {"preset", "aus"})
        for name in fields:
            if name not in kind.__dataclass_fields__:
                raise ValueError(f'{name} needs preset "graph", got "{self.preset}"')
        config: JAANetConfig = getattr(kind, self.preset)(self.aus, **fields)
        return config

    def with_aus(self, aus: Sequence[facs.AU]) -> Self:
        """Give the same model of other AUs; one for which the section has a rule of its own keeps that rule.

        Raises:
            ValueError: AUs without a rule, or which repeat.
        """
        own = {facs.au_number(au): au for au in self.aus}
        section = self.model_copy(update={"aus": tuple(own.get(au, au) for au in aus)})
        try:
            section.config()
        except ValueError as error:
            raise ValueError(_without_class(error)) from None
        return section

    @model_validator(mode="after")
    def _possible(self) -> ModelSection:
        self.config()
        return self


def _model_section() -> type[ModelSection]:
    """With every field of a config; unset ones keep the preset's value."""
    hints = get_type_hints(JAAGraphNetConfig)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], None)
        for field in dataclasses.fields(JAAGraphNetConfig)
        if field.name != "aus"
    }
    # YAML has lists, no tuples.
    widths = Field(None, strict=False, description="a list of whole numbers")
    fields["graph_widths"] = (hints["graph_widths"], widths)
    return create_model("Model", __base__=ModelSection, **fields)


if TYPE_CHECKING:
    Model = ModelSection
else:
    Model = _model_section()


class Loss(Section):
    """Factors of `criterion.JointLoss`; 0 leaves a term out."""

    align: NotNegative = 0.5
    """lambda1 of Eq. 1."""
    attention: NotNegative = 0.0
    """lambda2 of Eq. 1."""
    attention_reduction: Literal["sum", "mean"] = "sum"
    """How the points of a map are reduced; Eq. 4 has the sum."""
    dice: NotNegative = 1.0
    dice_over: Literal["sample", "batch"] = "sample"
    """Whether the Dice ratio is of each sample (Eq. 7) or of the batch (V-Net)."""
    smooth: Positive = 1.0
    """epsilon of Eq. 7."""
    local: NotNegative = 1.0
    """Factor of the local predictions' E_au, for models that have them (journal version)."""
    intensity: NotNegative = 0.2
    """Factor of the intensities' squared error, for models that predict them (``intensity: true``). Too large
    a factor keeps the network from learning anything: 1 did, at the rates of the recipes."""
    weighted: bool = True
    """Whether AUs are weighted by their rarity in the training set, w_i of Eq. 6."""


class Optimizer(Section):
    """Stochastic gradient descent."""

    momentum: Share = 0.9
    nesterov: bool = True
    weight_decay: NotNegative = 5e-4

    @model_validator(mode="after")
    def _possible(self) -> Optimizer:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Stage(Section):
    """A part of training with its own learning rate and modules; momentum starts anew with each stage."""

    name: str
    epochs: Count
    lr: Positive
    schedule: Literal["step", "cosine"] = "step"
    """"step" multiplies by `lr_decay` every `lr_decay_every` epochs; "cosine" falls to 0 over the stage."""
    lr_decay: Decay = 0.3
    lr_decay_every: Count = 2
    warmup: Whole = 0
    """Iterations over which the learning rate rises to that of the schedule."""
    train: Annotated[
        tuple[Module, ...] | None,
        Field(
            strict=False, min_length=1, description="a list of modules out of " + ", ".join(get_args(Module))
        ),
    ] = None
    """Modules that are trained; the others are fixed, their batch norm statistics too. None trains
    everything."""
    align: NotNegative | None = Field(None, description="a number of at least 0")
    """lambda1 in this stage, in place of `loss.align`."""


class TrainerSection(Section):
    """How the iterations are run."""

    cuda_graph: bool = False
    """Whether a GPU replays the training step as one CUDA graph. This is faster if launching kernels takes
    longer than running them (small batches, fast GPUs), and gives the same results. The first iterations of
    each stage and batches that are not full still run kernel by kernel. For one process only."""
    sync_batch_norm: bool = True
    """Whether several processes normalise by the images of all of them (`nn.synchronize_batch_norm`), so that
    the number of processes does not change the model. Otherwise each normalises by its own share of the
    batch, which saves two small exchanges a layer but makes the statistics of the papers' small batches
    coarse; the running statistics are then those of the main process. Without effect in one process."""


class Recipe(Section):
    """A training run. Equal recipes on the same machine give the same bits."""

    name: str
    seed: Seed = 0
    model: Model
    init: str | None = None
    """A model file whose weights training starts from, see `models.transfer_weights`."""
    data: Data
    augment: Augmentation | None = Field(None, description="keys and values; {} for the usual ones")
    """How training faces vary besides crop and flip."""
    batch_size: Annotated[Count, Field(le=2**16)]
    """Number of faces of an iteration, over all processes."""
    workers: Annotated[int, Field(ge=0, le=2**10)] | None = Field(
        None, description="a whole number of at least 0"
    )
    """Number of processes that read training images for each process that trains; 0 reads in the latter. None
    is, with a GPU, one for each processor (divided among the processes that train on the machine), up to 16,
    else 0."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    trainer: TrainerSection = TrainerSection()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1, description="a list of stages")]
    checkpoint_every: Count = 500
    """Iterations (optimizer steps) between two checkpoints; the end of an epoch has one too."""

    @field_validator("trainer")
    @classmethod
    def _capturable(cls, trainer: TrainerSection, info: ValidationInfo) -> TrainerSection:
        if trainer.cuda_graph and info.data.get("precision") == "16-mixed":
            raise ValueError(
                'cuda_graph=true needs precision "32-true" or "bf16-mixed", got "16-mixed", whose loss scale '
                "the host adapts in every iteration"
            )
        return trainer

    @property
    def epochs(self) -> int:
        """Number of epochs of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def to_yaml(self) -> str:
        """Give YAML that `load_recipe` reads back as an equal recipe."""
        values = self.model_dump(mode="json", exclude_unset=True)
        text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False)
        return text


def _read(recipe: str | Path, above: tuple[str | Path, ...] = ()) -> tuple[str, dict[Hashable, Any]]:
    """Read the name of a recipe for messages and its values over those of its base.

    Args:
        recipe: name or file.
        above: the recipes that are based on it.
    """
    path = Path(recipe)
    name, builtin = path.name, builtin_recipes()
    if str(recipe) in builtin:
        name = f"{recipe}.yaml"
        content = (resources.files("jaa_ext") / "recipes" / name).read_bytes()
    elif _is_file(path):
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    else:
        whose = f"{Path(above[-1]).name}: base: " if above else ""
        known = ", ".join(builtin)
        raise RecipeError(
            f"{whose}{_short(str(recipe), 200)}: no such recipe; give a YAML file or one of {known}"
        )
    if len(content) > MOST_BYTES:
        raise RecipeError(f"{name}: is no recipe: wanted at most {MOST_BYTES:,} bytes, got more")
    try:
        values = yaml.load(content.decode("utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{name}: wanted a text file in UTF-8, got other bytes in place {error.start}"
        ) from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not YAML: {_short(' '.join(str(error).split()), 300)}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{name}: should be keys and values, got {_shown(values)}")
    base = values.pop("base", None)
    if base is None:
        return name, values
    # A built-in one comes first, as in `load_recipe`; a file is searched beside the file that names it.
    where = base if base in builtin else path.parent / str(base)
    if isinstance(where, Path) and _is_file(where):
        where = where.resolve()
    if where in above or not isinstance(base, str):
        raise RecipeError(f"{name}: base: should be another recipe, got {_shown(base)}")
    if len(above) >= MOST_BASES:
        raise RecipeError(f"{name}: base: wanted at most {MOST_BASES} recipes based on one another, got more")
    return name, _over(_read(where, (*above, recipe))[1], values)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long, or no valid name
        return False


def _over(base: dict[Hashable, Any], values: dict[Hashable, Any]) -> dict[Hashable, Any]:
    """Lay `values` over those of a base, section by section."""
    merged = {**base, **values}
    for key, value in values.items():
        former = base.get(key)
        if isinstance(value, dict) and isinstance(former, dict):
            # A data section of another name has other keys; without a name it is synthetic.
            name = former.get("name", "synthetic")
            if value.get("name", name) == name:
                merged[key] = _over(former, value)
    return merged


def difference(former: Recipe, recipe: Recipe) -> str:
    """List the keys at which two recipes differ, with both values."""
    was, now = _leaves(former.model_dump()), _leaves(recipe.model_dump())
    changed = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    return "; ".join(f"{key} was {was.get(key)}, is {now.get(key)}" for key in changed)


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Give every single value by its path of keys and list positions."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, tuple):
        parts = dict(enumerate(value)).items()
    else:
        return {path: value}
    return {
        k: v for key, part in parts for k, v in _leaves(part, f"{path}.{key}" if path else str(key)).items()
    }


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written 1e-7 (a string in YAML 1.1), and whose keys are distinct texts.

    It has no anchors, aliases and tags, by which a few lines can stand for any number of values or for
    objects, and is not deeper than a recipe.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _mistake("anchors (&) and aliases (*) are not known in recipes", event)
        if event.tag is not None:
            raise _mistake("tags (!) are not known in recipes", event)
        if self.depth == DEEPEST:
            raise _mistake(f"wanted at most {DEEPEST} lists and sections in one another", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise _mistake("a key should be text", key)
            if key.value in seen:
                raise _mistake(f'the key "{_short(key.value)}" stands twice', key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int:
        # Python itself refuses to read the longest numbers.
        number = self.construct_yaml_int(node) if len(node.value) < 100 else 2**64
        if abs(number) >= 2**63:
            raise _mistake(f"{_short(node.value)} is beyond whole numbers of 64 bits", node)
        return int(number)


def _mistake(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


class _Dumper(yaml.SafeDumper):
    """Writes YAML that `_Loader` reads."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
# Dates are text like other names.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )

_WANTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}


def _innermost(problems: Sequence[Any]) -> list[Any]:
    """Leave out the problems of a list that is too short because of a problem of an element."""
    outer = {problem["loc"][:length] for problem in problems for length in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["loc"] not in outer]


def _sentence(problem: Any) -> str:
    """Describe a problem that pydantic found as `key.path: what was wanted, what was got`."""
    *parents, key = problem["loc"]
    kind, context = problem["type"], problem.get("ctx", {})
    # The names of data sections stand in the path, behind "data" and behind the number of one of several.
    tags = (1, 4) if problem["loc"][0] == "data" else ()
    path = ".".join(_short(str(part)) for i, part in enumerate(problem["loc"]) if i not in tags)
    known = _section(parents).model_fields
    if kind == "extra_forbidden":
        nearest = difflib.get_close_matches(_short(str(key)), known, n=1, cutoff=0)[0]
        return f'{path}: unknown key, the nearest known one is "{nearest}"'
    if kind == "missing":
        return f"{path}: is missing"
    if kind == "value_error":
        return f"{path}: {_without_class(context['error'])}"
    field = known.get(key if isinstance(key, str) else parents[-1])
    wanted = field.description if field is not None else None
    wanted = wanted or context.get("expected") or _WANTED.get(kind) or problem["msg"]
    if kind == "less_than_equal" and isinstance(context["le"], int):
        wanted = f"at most {context['le']}"
    return f"{path}: should be {wanted}, got {_shown(problem['input'])}"


def _without_class(error: ValueError) -> str:
    """Give the message of a config or a rule as who wrote a recipe understands it."""
    return re.sub("^(JAANetConfig|JAAGraphNetConfig|AURule): ", "", str(error))


def _section(path: list[int | str]) -> type[BaseModel]:
    """Find the section to which a path of keys and list positions leads."""
    section: type[BaseModel] = Recipe
    for part in path:
        if path[0] == "data" and part in DATA_SECTIONS:
            section = DATA_SECTIONS[str(part)]
        elif isinstance(part, str) and part in section.model_fields:
            section = _section_of(section.model_fields[part].annotation) or section
    return section


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section_of(arg))), None)


def _shown(value: Any) -> str:
    return _short(json.dumps(value, default=str))


def _short(text: str, length: int = 60) -> str:
    """Write a value for a sentence of one line."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= length else text[: length - 3] + "..."
