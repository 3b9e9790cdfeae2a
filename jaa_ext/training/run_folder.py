"""The folder of a training run, and its logs."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaa_ext.atomic import locked, naming, replacing, sync
from jaa_ext.evaluation.scores import Scores
from jaa_ext.json_files import write_json
from jaa_ext.models import JAANet, save_model
from jaa_ext.recipes.schema import Recipe, difference, load_recipe
from jaa_ext.training.criterion import TERMS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunError(RuntimeError):
    """The folder of a run cannot be used as asked."""


@contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Keep a folder of results, made if need be, to this process, however that ends.

    Raises:
        RunError: another process has it.
        NotADirectoryError: there is a file in its place.
        ValueError: its name is no UTF-8, which TensorBoard and our files want.
    """
    name = str(out).encode("utf-8", "backslashreplace").decode()
    if name != str(out):
        raise ValueError(f"{name}: wanted a folder whose name is UTF-8")
    for part in (out, *out.parents):
        if part.exists() and not part.is_dir():
            raise NotADirectoryError(f"{part}: is a file, wanted a folder for the results")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, RunError(f"{out}: another process is writing its results into this folder")):
        yield


def open_run(recipe: Recipe, out: Path, *, resume: bool) -> None:
    """Make the folder and put the recipe there, or, to resume, see that it holds a run by the same recipe.

    Raises:
        RunError: otherwise.
    """
    if not resume:
        require_no_run(out)
        try:
            content = recipe.to_yaml().encode()
        except UnicodeEncodeError:
            raise RunError(f"{out}: the names of files in a recipe must be UTF-8") from None
        with replacing(out / "recipe.yaml") as temporary:
            temporary.write_bytes(content)
        return
    require_run(out)
    former = load_recipe(out / "recipe.yaml")
    if former != recipe:
        slow = former == recipe.model_copy(update={"precision": "bf16-mixed"})
        raise RunError(
            f"{out}: was begun by another recipe ({difference(former, recipe)}); resume it by its own, "
            f"recipe.yaml,{' with JAA_SLOW_BFLOAT16=1 where bfloat16 is slow,' if slow else ''} or give "
            "another folder"
        )


def has_begun(out: Path) -> bool:
    """Tell whether a folder holds a run that can be resumed."""
    return (out / "checkpoint.pt").exists()


def is_finished(out: Path) -> bool:
    """Tell whether the run in a folder has written all its results."""
    return has_begun(out) and (out / "metrics.csv").exists()


def require_run(out: Path) -> None:
    """Raise a `RunError` if a folder holds no run."""
    if not has_begun(out):
        raise RunError(f"{out}: no run to resume (no checkpoint.pt)")


def require_no_run(out: Path) -> None:
    """Raise a `RunError` if a folder holds a run."""
    if has_begun(out):
        raise RunError(f"{out}: holds a run already; resume it, or give another folder")


def write_results(out: Path, model: JAANet, scores: Scores) -> None:
    """Write model.safetensors, metrics.json and, last of all, metrics.csv."""
    save_model(model, out / "model.safetensors", note=model.note)
    scores.to_json(out / "metrics.json")
    scores.to_csv(out / "metrics.csv")


class Log:
    """losses.csv, history.json and TensorBoard of a run."""

    def __init__(self, out: Path, losses: Any, board: SummaryWriter) -> None:
        self.out, self.losses, self.board = out, losses, board

    @classmethod
    @contextmanager
    def opened(cls, out: Path, iteration: int) -> Iterator[Log]:
        """To go on after `iteration` iterations; what was logged beyond them is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        path = out / "losses.csv"
        columns = ["iteration", "epoch", *TERMS]
        rows = _logged(path, ",".join(columns), iteration)
        with replacing(path) as temporary:
            temporary.write_text("\n".join([",".join(columns), *rows, ""]), encoding="utf-8")
        folder = out / "tensorboard"
        with _told_once():
            with naming(folder):
                board = SummaryWriter(str(folder), purge_step=iteration)
            file = path.open("a", buffering=1, encoding="utf-8")
            try:
                yield cls(out, csv.DictWriter(file, columns, restval="", lineterminator="\n"), board)
            except BaseException:
                for part in (file, board):
                    with suppress(OSError):  # of a full disk, of which the first error has told
                        part.close()
                raise
            with naming(path):
                file.close()
            with naming(folder):
                board.close()

    def iteration(self, number: int, epoch: int, losses: dict[str, float]) -> None:
        """Numbers count from 1."""
        with naming(self.out / "losses.csv"):
            self.losses.writerow({"iteration": number, "epoch": epoch, **losses})
        self._show({f"loss/{name}": value for name, value in losses.items()}, number)

    def epoch(self, iteration: int, scores: dict[str, float], history: list[dict[str, Any]]) -> None:
        """Scores for TensorBoard, and the history of all epochs so far."""
        self._show({f"test/{name}": value for name, value in scores.items()}, iteration)
        write_json(self.out / "history.json", history)

    def sync(self) -> None:
        """To the disk: a checkpoint must never know more iterations than losses.csv."""
        sync(self.out / "losses.csv")

    def _show(self, values: dict[str, float], iteration: int) -> None:
        with naming(self.out / "tensorboard"):
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)


def _logged(path: Path, header: str, iteration: int) -> list[str]:
    """The lines of the first iterations.

    Raises:
        ValueError: they are not there.
    """
    if iteration == 0:
        return []
    lines = path.read_bytes().decode("utf-8", "replace").splitlines() if path.exists() else []
    if lines and lines[0] == header.replace(",intensity", ""):  # of an early version
        place = header.split(",").index("intensity")
        lines = [header, *(_with_an_empty_cell(line, place) for line in lines[1:])]
    wanted = [header, *(f"{number}," for number in range(1, iteration + 1))]
    for place, start in enumerate(wanted):
        line = lines[place] if place < len(lines) else ""
        if not line.startswith(start) or line.count(",") != header.count(","):
            raise ValueError(
                f"{path}: is damaged: wanted the losses of the {iteration} iterations that checkpoint.pt has "
                f"behind it, got {line[:60]!r} in line {place + 1}"
            )
    return lines[1 : iteration + 1]


def _with_an_empty_cell(line: str, place: int) -> str:
    cells = line.split(",")
    return ",".join([*cells[:place], "", *cells[place:]])


@contextmanager
def _told_once() -> Iterator[None]:
    """TensorBoard hands an error of its thread to ours: the thread itself need not print it too."""
    former = threading.excepthook

    def hook(thrown: threading.ExceptHookArgs) -> None:
        if not issubclass(thrown.exc_type, OSError):
            former(thrown)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = former
