"""`trainer.cuda_graph`: on the CPU with a double of CUDA graphs, and on a GPU where there is one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jaa_ext.data import FaceSample, SyntheticFaces
from jaa_ext.recipes.schema import Recipe
from jaa_ext.training import Listener, NonFiniteLoss, Trainer, cuda_graph, load_checkpoint, train
from jaa_ext.training.cuda_graph import GraphedStep

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"aus": [6, 7, 12], "image_size": 64, "width": 2, "intensity": True},
    "data": {"train_subjects": 2, "test_subjects": 1, "samples_per_subject": 5},
    "batch_size": 4,
    "loss": {"attention": 2e-4, "attention_reduction": "mean"},
    "stages": [
        {"name": "joint", "epochs": 3, "lr": 0.01, "lr_decay": 0.5, "lr_decay_every": 1},
        {"name": "late", "epochs": 2, "lr": 0.01, "schedule": "cosine", "train": ["alignment", "au_head"]},
    ],
    "checkpoint_every": 1,
}  # 3 iterations an epoch, the last with half a batch


class Graph(TorchDispatchMode):
    """A double of `torch.cuda.CUDAGraph`: recording leaves no trace, a replay runs the same operations on the
    same memory, with the numbers that the host gave when they were recorded."""

    replays = 0

    def __enter__(self) -> Graph:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.own: set[int] = set()
        self.before: dict[int, tuple[Any, Any]] = {}
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the host reads a tensor while a CUDA graph is recorded")
        inputs = [t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        for storage in inputs:
            if storage._cdata not in self.own and storage._cdata not in self.before:
                self.before[storage._cdata] = storage, storage.clone()
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in inputs}
        made = {t.untyped_storage()._cdata for t in tree_leaves(result) if isinstance(t, Tensor)}
        self.own |= made - given
        if func.namespace != "profiler":
            self.calls.append((func, args, kwargs or {}, result))
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for storage, content in self.before.values():
            storage.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        type(self).replays += 1
        for func, args, kwargs, recorded in self.calls:
            for old, new in zip(tree_leaves(recorded), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.data.copy_(new)


class Stream:
    """A double of `torch.cuda.Stream`."""

    def __init__(self, *device: torch.device) -> None: ...

    def wait_stream(self, other: Stream) -> None: ...


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> type[Graph]:
    """CUDA graphs on the CPU, after one batch of warming up."""

    @contextmanager
    def record(made: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        with made:
            yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(cuda_graph, "require_cuda", lambda device: None)
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)
    monkeypatch.setattr(Graph, "replays", 0)
    return Graph


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **changes})


def graphed(**changes: Any) -> Recipe:
    return recipe(trainer={"cuda_graph": True}, **changes)


def run(made: Recipe, out: Path, device: str = "cpu", **options: Any) -> Path:
    train(made, out, device=device, **options)
    return out


def interrupted(made: Recipe, out: Path, iteration: int, device: str = "cpu") -> None:
    """Let a run die after so many iterations."""

    class Dying(Listener):
        def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
            if trainer.iteration == iteration:
                raise MemoryError

    with pytest.raises(MemoryError):
        run(made, out, device, listener=Dying())


def results(out: Path) -> dict[str, str]:
    names = ("losses.csv", "history.json", "predictions.csv", "metrics.json", "model.safetensors")
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without a graph."""
    torch.set_num_threads(1)
    return run(recipe(), tmp_path_factory.mktemp("without"))


def test_the_double_replays_operations_and_not_the_host(graph: type[Graph]) -> None:
    total, factor, host = torch.zeros(()), torch.tensor(10.0), [1.0]

    def step(x: Tensor) -> Tensor:
        total.add_((x * host[0]).sum() * factor)
        return total * 2

    whole = GraphedStep(step, 2, torch.device("cpu"))
    assert float(whole(torch.ones(2))) == 40  # warming up
    assert float(whole(torch.ones(2))) == 80 and float(total) == 40
    host[0] = 100  # in a graph a number of the host is a constant,
    factor.fill_(1)  # a tensor is memory
    assert float(whole(torch.ones(2))) == 84
    assert float(whole(torch.ones(1))) == 284  # not full: as the host has it
    assert float(whole(torch.ones(2))) == 288
    assert graph.replays == 3


def test_the_host_may_not_read_while_recording(graph: type[Graph]) -> None:
    whole = GraphedStep(lambda x: x * float(x.sum()), 2, torch.device("cpu"))
    whole(torch.ones(2))
    with pytest.raises(RuntimeError, match="the host reads a tensor"):
        whole(torch.ones(2))


def test_the_graph_trains_to_the_same_bits(graph: type[Graph], without: Path, tmp_path: Path) -> None:
    run(graphed(), tmp_path)
    # Of the full batches of each of the two stages the first warms up.
    assert graph.replays == (2 * 3 - 1) + (2 * 2 - 1)
    assert results(tmp_path) == results(without)


def test_bfloat16_too(graph: type[Graph], tmp_path: Path) -> None:
    made = {"precision": "bf16-mixed", "stages": [{"name": "joint", "epochs": 2, "lr": 0.01}]}
    run(graphed(**made), tmp_path / "with")
    run(recipe(**made), tmp_path / "without")
    assert graph.replays == 3
    assert results(tmp_path / "with") == results(tmp_path / "without")


@pytest.mark.parametrize("iteration", [4, 5, 10, 13])
def test_an_interrupted_run_goes_on_with_the_same_bits(
    graph: type[Graph], without: Path, tmp_path: Path, iteration: int
) -> None:
    """In the midst of an epoch, before its half batch, and in the second stage."""
    interrupted(graphed(), tmp_path, iteration)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == iteration
    run(graphed(), tmp_path, resume=True)
    assert results(tmp_path) == results(without)


def test_recording_before_the_momentum_is_there_would_not_do(
    graph: type[Graph], without: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "WARM_UP", 0)  # each replay would be a first step
    run(graphed(), tmp_path)
    assert results(tmp_path)["losses.csv"] != results(without)["losses.csv"]


class Broken(SyntheticFaces):
    """Faces of which one has eyes in one place, so that its alignment loss is infinite."""

    def __getitem__(self, index: int) -> FaceSample:
        sample = super().__getitem__(index)
        return sample._replace(landmarks=np.full((49, 2), 30, np.float32)) if index == 5 else sample


def test_a_loss_that_is_not_finite_does_not_change_the_weights(graph: type[Graph], tmp_path: Path) -> None:
    """And stops the run before the next iteration, with the sample's name."""
    parameters: list[list[Tensor]] = []

    class Spy(Listener):
        def on_epoch_start(self, trainer: Trainer) -> None:
            self.model = trainer.model
            parameters.append([p.detach().clone() for p in self.model.parameters()])

        def on_update(self, trainer: Trainer, losses: dict[str, float]) -> None:
            parameters.append([p.detach().clone() for p in self.model.parameters()])

    spy = Spy()
    faces = Broken(subjects=[4, 5], samples_per_subject=5, size=73, aus=(6, 7, 12))
    test = SyntheticFaces(subjects=[9], samples_per_subject=2, size=73, aus=(6, 7, 12))
    with pytest.raises(NonFiniteLoss, match=r"align inf, .*; samples S005/00000$"):
        run(graphed(seed=3), tmp_path, datasets=(faces, test), listener=spy)
    assert graph.replays == 1  # it came in a replay
    assert all(torch.equal(a, b) for a, b in zip(parameters[-1], spy.model.parameters(), strict=True))
    assert not torch.equal(parameters[0][0], parameters[-1][0])  # whereas the iterations before did
    assert load_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == len(parameters) - 1


def test_checkpoints_of_an_unfused_optimizer_and_the_reverse(without: Path, tmp_path: Path) -> None:
    interrupted(recipe(), tmp_path, 4)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    momentum = [values["momentum_buffer"] for values in state["optimizer"]["state"].values()]
    plain = torch.optim.SGD([x.clone() for x in momentum], lr=0.3, momentum=0.1)
    former = plain.state_dict()["param_groups"]
    plain.load_state_dict(state["optimizer"])
    assert all(
        torch.equal(a["momentum_buffer"], b) for a, b in zip(plain.state.values(), momentum, strict=True)
    )

    state["optimizer"]["param_groups"] = former
    torch.save(state, tmp_path / "checkpoint.pt")
    run(recipe(), tmp_path, resume=True)
    assert results(tmp_path) == results(without)


def test_other_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^trainer\.cuda_graph=true needs a CUDA device, got cpu$"):
        run(graphed(), tmp_path)


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_on_a_gpu_the_graph_trains_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Kernels are chosen and run the same whether launched or replayed, and are deterministic."""
    stages = [{**stage, "epochs": 4} for stage in RECIPE["stages"]]  # 8 full batches, of which 3 warm up
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: (replays.append(1), replay(self)))
    made = {"precision": precision, "stages": stages}
    run(recipe(**made), tmp_path / "without", "cuda")
    assert not replays
    run(graphed(**made), tmp_path / "with", "cuda")
    assert len(replays) == 2 * (8 - cuda_graph.WARM_UP)
    assert results(tmp_path / "with") == results(tmp_path / "without")

    interrupted(graphed(**made), tmp_path / "resumed", 7, "cuda")
    run(graphed(**made), tmp_path / "resumed", "cuda", resume=True)
    assert results(tmp_path / "resumed") == results(tmp_path / "without")


@cuda
def test_on_a_gpu_an_iteration_is_one_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launches: dict[str, list[int]] = {}
    whole, calls = GraphedStep.__call__, count()

    def counted(self: GraphedStep[Any], *inputs: Tensor) -> Any:
        if next(calls) == 4:  # which records: not beside a profiler
            return whole(self, *inputs)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            update = whole(self, *inputs)
            torch.cuda.synchronize()
        for name in ("LaunchKernel", "GraphLaunch", "StreamSynchronize"):
            found = sum(name in event.name for event in profiler.events())
            launches.setdefault(name, []).append(found)
        return update

    monkeypatch.setattr(GraphedStep, "__call__", counted)
    run(graphed(stages=[{"name": "joint", "epochs": 3, "lr": 0.01}]), tmp_path, "cuda")
    # Of 9 iterations 3, 6 and 9 have half a batch, 1, 2 and 4 warm up, 5 records.
    assert launches["GraphLaunch"] == [0, 0, 0, 0, 0, 1, 1, 0]
    kernels = launches["LaunchKernel"]
    assert 100 < kernels[3] < 700, f"{kernels[3]} kernels launched by an iteration"
    assert max(kernels[5:7]) <= 3  # its inputs may be copied by kernels
    assert launches["StreamSynchronize"][3] == 0, "the host waits in an iteration"
