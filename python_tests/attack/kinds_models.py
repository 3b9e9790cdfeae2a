"""Kinds of input that make a model or are made by one: recipes, weights, checkpoints, the files of a run."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from damage import NASTY, NUMBERS, damage_bytes, damage_table, damage_tree, nested, to_json
from files import Everywhere, Files, require
from rich.console import Console
from torch import Tensor

from jaa_ext import facs
from jaa_ext.cli.output import show_scores
from jaa_ext.evaluation import Predictions, Scores, score
from jaa_ext.evaluation.results import EvaluationSource, read_history, read_predictions, read_scores
from jaa_ext.experiments import cross_validate
from jaa_ext.models import JAANet, JAANetConfig, import_weights, load_model, save_model
from jaa_ext.predict import Predictor
from jaa_ext.recipes import Recipe, load_recipe
from jaa_ext.report.html_report import write_report
from jaa_ext.training import load_checkpoint, train

TINY = """\
name: tiny
model: {aus: [1, 4, 12], image_size: 64, width: 1}
data: {name: synthetic, train_subjects: 4, test_subjects: 3, samples_per_subject: 2}
batch_size: 4
loss: {align: 0.5, attention: 2e-4, attention_reduction: mean}
stages: [{name: joint, epochs: 2, lr: 0.01}]
"""


def tiny_model() -> JAANet:
    torch.manual_seed(0)
    return JAANet(JAANetConfig.released((1, 4, 12), image_size=64, width=1))


class Recipes(Files):
    """Recipes: one of its own, and one that is based on another."""

    def make(self) -> None:
        (self.folder / "tiny.yaml").write_text(TINY)
        for name in ("journal", "no-au", "abaw-2", "paper-disfa"):
            text = (resources.files("jaa_ext") / "recipes" / f"{name}.yaml").read_text()
            (self.folder / f"my {name}.yaml").write_text(text)
        self.recipe = self.folder / "tiny.yaml"

    def change(self, random: Random) -> None:
        self.recipe = random.choice(sorted(self.valid))
        data = self.valid[self.recipe]
        choice = random.random()
        if choice < 0.5:
            tree = damage_tree(yaml.safe_load(data), random)
            text = yaml.safe_dump(
                tree, sort_keys=False, allow_unicode=True, default_flow_style=random.random() < 0.5
            )
            self.put(self.recipe, text.encode("utf-8", "surrogatepass"))
        elif choice < 0.75:
            self.put(self.recipe, damage_table(data, random, ":" if random.random() < 0.7 else " "))
        elif choice < 0.9:
            self.put(self.recipe, damage_bytes(data, random)[0])
        else:
            self.put(self.recipe, _odd_yaml(data.decode(), random).encode())

    def take(self) -> None:
        recipe = load_recipe(self.recipe)
        require(isinstance(recipe, Recipe), f"a {type(recipe).__name__}")
        # What torch and NumPy take of it in the end.
        torch.Generator().manual_seed(recipe.seed)
        np.random.default_rng((recipe.seed, 0, 0))
        again = self.folder / "again.yaml"
        again.write_text(recipe.to_yaml(), encoding="utf-8")
        require(load_recipe(again) == recipe, "to_yaml gives another recipe")


def _odd_yaml(text: str, random: Random) -> str:
    """What only YAML has."""
    levels = random.choice((3, 9, 12))
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(levels)
    )
    merges = "m0: &m0 {x: 1}\n" + "".join(
        f"m{i + 1}: &m{i + 1}\n  <<: [{', '.join([f'*m{i}'] * 9)}]\n" for i in range(levels)
    )
    depth = random.choice((100, 5000, 100_000))
    return random.choice(
        (
            text + bomb,
            bomb,
            merges + text,
            text.replace("name:", "name: &n [*n]\nx:", 1),
            "stages: &s\n- *s\n" + text,
            text + "note: " + "[" * depth + "]" * depth,
            text + "".join(f"{'  ' * i}k{i}:\n" for i in range(min(depth, 3000))),
            text + "".join(f"unknown{i}: 1\n" for i in range(random.choice((50, 20_000)))),
            "{" * depth,
            text + "init: !!python/object/apply:os.system ['true']\n",
            text
            + random.choice(
                ("seed: 1_000\n", "seed: 0o17\n", "seed: 190:20:30\n", "seed: 2026-01-01\n", "seed: .nan\n")
            ),
            text
            + random.choice(
                ("---\n", "...\n", "--- x\n", "%YAML 9.9\n", "\t- x\n", "? [a]\n: b\n", "? {a: b}\n: c\n")
            ),
            text + "init: !!binary aGVsbG8=\n",
            text + "init: !!set {a, b}\n",
            text.replace(
                "stages",
                "base: " + random.choice(("../in/tiny.yaml", "tiny.yaml", ".", "/", "x" * 5000, "[]")),
            ),
            text + f"seed: {'9' * random.choice((19, 20, 5000))}\n",
            text * 2,
            text.upper(),
        )
    )


class Weights(Files):
    """A model in safetensors."""

    def make(self) -> None:
        self.model = self.folder / "model.safetensors"
        save_model(tiny_model(), self.model, note="a test")
        self.face = np.full((64, 64, 3), 90, np.uint8)

    def change(self, random: Random) -> None:
        data = self.valid[self.model]
        if random.random() < 0.4:
            self.put(self.model, damage_bytes(data, random)[0])
            return
        with safetensors.safe_open(self.model, framework="pt") as file:
            metadata = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if random.random() < 0.5:
            _change_tensor(tensors, random)
        else:
            about = to_json(damage_tree(json.loads(metadata["jaa_ext"]), random), random)
            metadata["jaa_ext"] = about.decode(errors="replace")
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        self.put(self.model, safetensors.torch.save(tensors, metadata))

    def take(self) -> None:
        model = load_model(self.model)
        check_tensors(model.state_dict())
        predictor = Predictor(model, detector=Everywhere(), device="cpu", precision="float32")
        # Finite weights may be so large that what they give is not.
        for _, row in predictor(self.face).iterrows():
            said = row[[name for name in row.index if name.endswith(("_p", "_c"))]]
            require(row["success"] == 0 or said.notna().all(), "success without probabilities")

    def arguments(self) -> Iterable[object]:
        return "export", self.model, "--format", "exported-program", "--out", self.out / "m.pt2"


def _change_tensor(tensors: dict[str, Any], random: Random) -> None:
    name = random.choice(sorted(tensors))
    tensor = tensors[name]
    value = random.choice([number for number in NUMBERS if abs(number) < 2**63 or isinstance(number, float)])
    match random.randrange(9):
        case 0 | 1 if tensor.numel():
            flat = (
                tensor.reshape(-1).to(torch.float64 if tensor.is_floating_point() else tensor.dtype).clone()
            )
            number = (
                float(value)
                if tensor.is_floating_point()
                else int(value)
                if value == value and abs(value) < 2**63
                else 0
            )
            flat[random.randrange(len(flat))] = number
            tensors[name] = flat.reshape(tensor.shape).to(tensor.dtype)
        case 2:
            kinds = (
                torch.float64,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.int8,
                torch.uint8,
                torch.bool,
            )
            kinds += (torch.complex64, torch.float8_e4m3fn)
            tensors[name] = tensor.to(random.choice(kinds))
        case 3:
            del tensors[name]
        case 4:
            tensors[random.choice((name + "x", "", "x" * 1000, *NASTY[:40]))] = tensors.pop(name)
        case 5:
            tensors[name] = random.choice(
                (tensor[None], tensor.reshape(-1), tensor.new_zeros(0), tensor.new_zeros(()))
            )
        case 6 if tensor.dim():
            tensors[name] = torch.cat([tensor, tensor])
        case 7:
            for other in tensors:
                if other.endswith(random.choice(("running_var", "weight", "bias"))):
                    tensors[other] = (
                        -tensors[other] if random.random() < 0.5 else tensors[other] * float("nan")
                    )
        case _:
            tensors[name] = tensor.flip(0) if tensor.dim() else tensor + 1


def check_tensors(state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        require(bool(tensor.isfinite().all()), f"tensor {name} is not finite")
        require(
            not (name.endswith("running_var") and bool((tensor < 0).any())),
            f"the variance {name} is negative",
        )


class Checkpoints(Files):
    """checkpoint.pt of a run, which is resumed."""

    def make(self) -> None:
        (self.folder / "tiny.yaml").write_text(TINY.replace("epochs: 2", "epochs: 1"))
        self.recipe = load_recipe(self.folder / "tiny.yaml")
        self.run = self.folder / "run"
        train(self.recipe, self.run, device="cpu")
        shutil.rmtree(self.run / "tensorboard")
        self.checkpoint = self.run / "checkpoint.pt"
        self.whole = (self.run / "model.safetensors").read_bytes()

    def change(self, random: Random) -> None:
        data = self.valid[self.checkpoint]
        choice = random.random()
        if choice < 0.6:
            self.put(self.checkpoint, damage_bytes(data, random)[0])
        elif choice < 0.9:
            state = load_checkpoint(self.checkpoint)
            _change_state(state, random)
            file = io.BytesIO()
            torch.save(state, file)
            self.put(self.checkpoint, file.getvalue())
        else:
            path = random.choice(
                [path for path in sorted(self.valid) if path.suffix in (".csv", ".json", ".yaml")]
            )
            self.put(path, damage_bytes(self.valid[path], random)[0])

    def take(self) -> None:
        shutil.copytree(self.run, self.out)
        train(self.recipe, self.out, resume=True, device="cpu")
        model = load_model(self.out / "model.safetensors")
        check_tensors(model.state_dict())
        scores = read_scores(self.out / "metrics.json")
        require(scores.aus == (1, 4, 12), f"scores of AUs {scores.aus}")

    def names(self) -> Iterable[str]:
        return {path.name for path in self.changed} | {str(self.out)}


def _change_state(state: dict[str, Any], random: Random) -> None:
    key = random.choice(sorted(state))
    match random.randrange(6):
        case 0:
            del state[key]
        case 1:
            state[key] = random.choice((None, -1, 10**9, 0.5, "x", [], {}, torch.zeros(3)))
        case 2:
            _change_tensor(state["model"], random)
        case 3:
            state["model"][random.choice(sorted(state["model"]))] = random.choice((None, 3, "x", [1.0]))
        case 4:
            state["history"] = random.choice(([], [{}], [None], [{"scores": {}}], state["history"] * 2))
        case 5:
            momentum = state["optimizer"]["state"]
            momentum[random.choice((*momentum, 99))] = random.choice(
                (None, {}, {"momentum_buffer": torch.zeros(2)})
            )


class AuthorsWeights(Files):
    """The authors' checkpoints, *.pth, which are imported."""

    def make(self) -> None:
        network = _authors_network()
        network.Network(facs.DISFA_AUS).save(self.folder)
        self.files = sorted(self.folder.glob("*.pth"))

    def change(self, random: Random) -> None:
        path = random.choice(self.files)
        data = self.valid[path]
        choice = random.random()
        if choice < 0.5:
            self.put(path, damage_bytes(data, random)[0])
            return
        state: Any = torch.load(io.BytesIO(data), weights_only=True)
        old = random.random() < 0.3
        if choice < 0.85:
            _change_tensor(state, random)
        else:
            state = random.choice(
                (
                    [state],
                    {"state_dict": state},
                    dict.fromkeys(state, 1.0),
                    {},
                    None,
                    torch.zeros(3),
                    {**state, 5: torch.zeros(1)},
                    {**state, "x": None},
                    nested(100, 1),
                    {f"module.{k}": v for k, v in state.items()},
                    {k: v.to_sparse() if v.dim() == 4 else v for k, v in state.items()},
                    {k: v.expand(2, *v.shape) for k, v in state.items()},
                    {k: v.to("meta") for k, v in state.items()},
                )
            )
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=not old)
        data = file.getvalue()
        self.put(path, damage_bytes(data, random)[0] if random.random() < 0.2 else data)

    def take(self) -> None:
        check_tensors(import_weights(self.folder).state_dict())

    def arguments(self) -> Iterable[object]:
        return "import-weights", self.folder, "--out", self.out / "m.safetensors"

    def names(self) -> Iterable[str]:
        # Files that do not fit each other are told of by their folder.
        return {path.name for path in self.files} | {f"{self.folder}:"}


def _authors_network() -> ModuleType:
    """The module of tests that has a network with the authors' names."""
    path = Path(__file__).parents[1] / "models" / "test_import_authors.py"
    spec = importlib.util.spec_from_file_location("authors_network", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RunFiles(Files):
    """What a run, an evaluation and a cross validation leave: JSON and tables, which are read again."""

    def make(self) -> None:
        random = np.random.default_rng(0)
        n, aus = 12, (1, 4, 12)
        self.predictions = Predictions(
            aus=aus,
            labels=random.integers(-1, 2, (n, 3)),
            probabilities=random.random((n, 3), np.float32),
            landmarks=random.uniform(0, 64, (n, 49, 2)).astype(np.float32),
            errors=random.uniform(1, 20, n),
            ids=tuple(f"P{i // 3}/{i}" for i in range(n)),
        )
        scores = score(self.predictions)
        scores.to_json(self.folder / "metrics.json")
        self.predictions.to_csv(self.folder / "predictions.csv")
        history = [
            {
                "epoch": i,
                "stage": "joint",
                "lr": 0.01,
                "losses": {"total": 2.0, "align": 0.5},
                "scores": scores.to_dict(),
            }
            for i in (1, 2)
        ]
        (self.folder / "history.json").write_text(json.dumps(history))
        EvaluationSource(
            tiny_model().config, load_tiny(self.folder).data, fold="1", model="m", recipe="r"
        ).write(self.folder)
        cv = self.folder / "cv"
        cross_validate(load_tiny(self.folder), cv, folds=["1"], device="cpu")
        shutil.rmtree(cv / "fold-1" / "tensorboard")
        self.readers = {
            "metrics.json": lambda path: _check_scores(read_scores(path)),
            "history.json": read_history,
            "evaluation.json": lambda path: _check_source(EvaluationSource.read(path.parent)),
            "predictions.csv": lambda path: _check_predictions(read_predictions(path, scores)),
            "crossval.json": lambda path: write_report(path.parent, self.out / "report.html"),
            "cv": lambda path: self._resume(path),
        }
        self.chosen = self.folder / "metrics.json"
        self.reader = "metrics.json"

    def change(self, random: Random) -> None:
        self.reader = random.choice(sorted(self.readers))
        if self.reader == "cv":
            files = [
                f
                for f in sorted(self.valid)
                if f.parent.name == "fold-1" and f.suffix in (".json", ".yaml", ".csv")
            ]
            self.chosen = random.choice(files)
        else:
            self.chosen = next(
                path for path in self.valid if path.name == self.reader and path.parent.name != "fold-1"
            )
        data = self.valid[self.chosen]
        if self.chosen.suffix == ".json":
            self.put(self.chosen, to_json(damage_tree(json.loads(data), random), random))
        elif random.random() < 0.02:
            self.put(self.chosen, None)
        else:
            self.put(self.chosen, damage_table(data, random))

    def take(self) -> None:
        self.readers[self.reader](self.chosen)

    def _resume(self, _: Path) -> None:
        """A cross validation whose folds are done reads them, and makes its tables again."""
        shutil.copytree(self.folder / "cv", self.out)
        recipe = load_tiny(self.folder)
        cross_validate(recipe, self.out, folds=["1"], resume=True, device="cpu")

    def names(self) -> Iterable[str]:
        return {path.name for path in self.changed} | {str(self.out)}


def load_tiny(folder: Path) -> Recipe:
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("epochs: 2", "epochs: 1"))
    return load_recipe(path)


def _check_scores(scores: Scores) -> None:
    """See that shares are shares."""
    for name in ("f1", "accuracy", "precision", "recall", "auc"):
        values = [*(getattr(scores, name) or ()), getattr(scores, f"{name}_mean")]
        numbers = [value for value in values if value is not None]
        require(all(0 <= value <= 1 for value in numbers), f"{name} {numbers}")
    show_scores(scores, Console(quiet=True))


def _check_source(source: EvaluationSource | None) -> None:
    if source is not None:
        source.data_in_words()


def _check_predictions(predictions: Predictions) -> None:
    require(
        np.isin(predictions.labels, (-1, 0, 1)).all(), f"labels {np.unique(predictions.labels)[:9].tolist()}"
    )
    inside = (predictions.probabilities >= 0) & (predictions.probabilities <= 1)
    require(inside.all(), f"probabilities such as {predictions.probabilities[~inside][:1].tolist()}")
    require(not np.isinf(predictions.landmarks).any(), "infinite landmarks")  # empty cells are no landmarks
