"""Every public layer, loss and model behaves as torch's own do."""

import copy
import csv
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import jaa_ext.models
import jaa_ext.nn
from jaa_ext import facs
from jaa_ext.models import JAAGraphNet, JAAGraphNetConfig, JAANet, JAANetConfig
from jaa_ext.nn import (
    AlignmentLoss,
    AttentionLoss,
    AttentionRefinement,
    AUGraph,
    BatchNormReLU2d,
    Conv3x3,
    FeatureStack,
    GroupedSequential,
    HierarchicalMultiScaleRegion,
    IntensityLoss,
    LocalFeatures,
    RegionBatchNorm2d,
    RegionConv2d,
    RegionLayer,
    SoftmaxDiceLoss,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SEED = 7
EDGES = torch.tensor([[1.0, 1, 0], [0, 1, 0], [1, 1, 1]])
SMALL = {"image_size": 64, "width": 1}


def numbers(*shape: int, low: float = -1, high: float = 1) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low


@dataclass(frozen=True)
class Case:
    make: Callable[..., nn.Module]
    inputs: tuple[Tensor, ...]
    """Floating ones in float64; a gradient is asked of the first."""
    factory: bool = True
    """Whether device and dtype can be given."""


# fmt: off
CASES = {
    "Conv3x3": Case(lambda **f: Conv3x3(3, 4, padding=0, **f), (numbers(2, 3, 7, 8),)),
    "Conv3x3-groups": Case(lambda **f: Conv3x3(4, 6, groups=2, bias=False, **f), (numbers(2, 4, 7, 8),)),
    "RegionConv2d": Case(
        lambda **f: RegionConv2d(3, 4, (3, 1), (2, 3), border="image", **f), (numbers(2, 3, 7, 8),)),
    "RegionConv2d-no-bias": Case(
        lambda **f: RegionConv2d(3, 4, 3, 2, bias=False, **f), (numbers(2, 3, 8, 8),)),
    "RegionBatchNorm2d": Case(
        lambda **f: RegionBatchNorm2d(3, (2, 3), 1e-3, 0.2, relu=True, **f), (numbers(2, 3, 7, 8),)),
    "RegionBatchNorm2d-plain": Case(
        lambda **f: RegionBatchNorm2d(3, 2, affine=False, **f), (numbers(2, 3, 8, 8),)),
    "BatchNormReLU2d": Case(lambda **f: BatchNormReLU2d(3, 1e-3, 0.2, **f), (numbers(2, 3, 5, 4),)),
    "RegionLayer": Case(lambda **f: RegionLayer(3, 4, **f), (numbers(2, 3, 16, 17),)),
    "HierarchicalMultiScaleRegion": Case(
        lambda **f: HierarchicalMultiScaleRegion(3, 8, **f), (numbers(2, 3, 16, 17),)),
    "GroupedSequential": Case(
        lambda: GroupedSequential(2, nn.Conv2d(4, 6, 3, groups=2), BatchNormReLU2d(6), nn.MaxPool2d(2)),
        (numbers(2, 4, 8, 8),), factory=False),
    "FeatureStack": Case(lambda **f: FeatureStack(3, 1, groups=2, **f), (numbers(2, 6, 16, 17),)),
    "AttentionRefinement": Case(lambda **f: AttentionRefinement(1, num_aus=2, **f), (numbers(2, 2, 14, 14),)),
    "LocalFeatures": Case(
        lambda **f: LocalFeatures(3, 1, num_aus=2, **f),
        (numbers(2, 3, 16, 16), numbers(2, 2, 16, 16, low=0))),
    "AUGraph": Case(lambda **f: AUGraph(6, (5, 4), EDGES, neighbor_share=0.3, **f), (numbers(2, 3, 6),)),
    "SoftmaxDiceLoss": Case(
        lambda: SoftmaxDiceLoss(torch.tensor([0.5, 1.0, 1.5]), smooth=0.5, dice="batch"),
        (numbers(2, 2, 3), torch.tensor([[1, 0, -1], [0, 1, 1]])), factory=False),
    "AlignmentLoss": Case(
        AlignmentLoss, (numbers(2, 49, 2, high=9), numbers(2, 49, 2).cumsum(1)), factory=False),
    "AttentionLoss": Case(
        lambda: AttentionLoss("mean"), (numbers(2, 3, 4, 4, low=0.1, high=0.9), numbers(2, 3, 4, 4, low=0)),
        factory=False),
    "IntensityLoss": Case(
        lambda: IntensityLoss(torch.tensor([0.5, 1.5])),
        (numbers(3, 2, low=0, high=5), torch.tensor([[3.0, torch.nan], [0, 5], [1, 2]], dtype=torch.float64)),
        factory=False),
    "JAANet-paper": Case(
        lambda **f: JAANet(JAANetConfig.paper((1, facs.AURule((31, 37), 0.1)), **SMALL), **f),
        (numbers(2, 3, 64, 64),)),
    "JAANet-released": Case(
        lambda **f: JAANet(JAANetConfig.released((1, 2), region="R", **SMALL), **f),
        (numbers(2, 3, 64, 64),)),
    "JAANet-journal": Case(
        lambda **f: JAANet(
            JAANetConfig.journal((1, 2), intensity=True, average_heads=True, mirror=True, **SMALL), **f
        ),
        (numbers(2, 3, 64, 64),)),
    "JAAGraphNet": Case(
        lambda **f: JAAGraphNet(JAAGraphNetConfig.graph((1, 2), graph_widths=(5, 4), **SMALL), **f),
        (numbers(2, 3, 64, 64),)),
}
# fmt: on

MADE_ANYWHERE = [name for name, case in CASES.items() if case.factory]
LAYERS = [name for name in CASES if not name.startswith("JAA")]
OF_IMAGES = [name for name, case in CASES.items() if case.inputs[0].dim() == 4 and name != "AttentionLoss"]

OF_NO_DTYPE = {"num_batches_tracked": torch.int64, "rated": torch.bool}
"""Buffers that do not follow the dtype of their module."""

PUBLISHED = {
    "paper": JAANetConfig.paper(facs.BP4D_AUS),
    "released": JAANetConfig.released(facs.BP4D_AUS),
    "journal": JAANetConfig.journal(facs.BP4D_AUS),
    "graph": JAAGraphNetConfig.graph(facs.BP4D_AUS),
}


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def case(name: str) -> Case:
    return CASES[name]


def build(case: Case, **options: object) -> nn.Module:
    torch.manual_seed(SEED)
    return case.make(**options)


def trained(case: Case) -> nn.Module:
    """In float64, its parameters and statistics no longer those of a new layer."""
    module = build(case).double()
    with torch.no_grad():
        for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() and not path.endswith(
                ("adjacency", "without_padding", "enlargement")
            ):
                tensor.mul_(1.1).add_(0.02)
    return module


def inputs(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [x.to(dtype, copy=True) if x.is_floating_point() else x for x in case.inputs]


def tensors(output: object) -> list[Tensor]:
    leaves = tree_leaves(output)
    assert leaves and all(isinstance(leaf, Tensor) for leaf in leaves)
    return leaves


def run(module: nn.Module, case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    with torch.no_grad():
        return tensors(module(*inputs(case, dtype)))


def learn(module: Callable[..., object], case: Case) -> list[Tensor]:
    """What comes out of a training step, and the gradient that enters."""
    first, *others = inputs(case)
    first.requires_grad_()
    outputs = tensors(module(first, *others))
    sum((output * numbers(*output.shape)).sum() for output in outputs if output.requires_grad).backward()
    return [*(output.detach() for output in outputs), first.grad]


def state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, those included that no file holds."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def same(got: list[Tensor], want: list[Tensor]) -> None:
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def same_state(got: nn.Module, want: nn.Module) -> None:
    assert list(state(got)) == list(state(want))
    same(list(state(got).values()), list(state(want).values()))


def change(tensor: Tensor) -> None:
    if tensor.dtype == torch.bool:
        tensor.logical_not_()
    else:
        tensor.add_(1)


def arguments(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def test_all_public_layers_and_models_are_here() -> None:
    parts = [getattr(package, name) for package in (jaa_ext.nn, jaa_ext.models) for name in package.__all__]
    public = {part for part in parts if isinstance(part, type) and issubclass(part, nn.Module)}
    untested = {part.__name__ for part in public - {type(build(case)) for case in CASES.values()}}
    assert untested == set(), untested


# How it shows itself.

IN_PART = {
    "GroupedSequential": "groups=2",
    "AUGraph": "6, (5, 4), num_aus=3, neighbor_share=0.3, edges=3",
    "SoftmaxDiceLoss": 'weight=(3,), smooth=0.5, dice="batch", ignore_index=-1',
    "IntensityLoss": "weight=(2,)",
}
"""What shows tensors or layers among its arguments by their number alone."""


def test_its_repr_makes_it_again(name: str, case: Case) -> None:
    module = build(case)
    shown = module.extra_repr()
    if name in IN_PART:
        assert shown == IN_PART[name]
        return
    assert repr(module).startswith(f"{type(module).__name__}(") and shown in repr(module)
    names = {**vars(jaa_ext.nn), **vars(jaa_ext.models), "AURule": facs.AURule}
    again = eval(f"{type(module).__name__}({shown})", names)
    assert arguments(again) == arguments(module) and again.extra_repr() == shown
    shapes = [(path, tensor.shape) for path, tensor in state(module).items()]
    assert [(path, tensor.shape) for path, tensor in state(again).items()] == shapes
    again.load_state_dict(module.state_dict())
    same(run(again.double(), case), run(module.double(), case))


# Where and in which dtype it is made.


@pytest.mark.parametrize("name", MADE_ANYWHERE)
def test_device_and_dtype_can_be_given(case: Case) -> None:
    there = build(case, device="meta", dtype=torch.float64)
    assert list(state(there)) == list(state(build(case)))
    for path, tensor in state(there).items():
        assert tensor.is_meta, path
        assert tensor.dtype == OF_NO_DTYPE.get(path.rpartition(".")[2], torch.float64), path
    assert {output.dtype for output in run(build(case, dtype=torch.float64), case)} == {torch.float64}


@pytest.mark.parametrize("name", MADE_ANYWHERE)
@pytest.mark.parametrize("training", [True, False])
def test_it_runs_without_storage(case: Case, training: bool) -> None:
    want = run(build(case).double().train(training), case)
    there = build(case, device="meta", dtype=torch.float64).train(training)
    first, *others = (x.to("meta") for x in inputs(case))
    outputs = tensors(there(first.requires_grad_(), *others))
    assert [(x.shape, x.dtype, x.is_meta) for x in outputs] == [(x.shape, x.dtype, True) for x in want]
    sum(output.sum() for output in outputs if output.requires_grad).backward()
    assert all(p.grad is not None and p.grad.is_meta for p in there.parameters())


@pytest.mark.parametrize("name", MADE_ANYWHERE)
@pytest.mark.parametrize("by", ["argument", "context"])
def test_made_without_storage_and_filled_it_is_a_new_one(case: Case, by: str) -> None:
    if by == "argument":
        module = build(case, device="meta")
    else:
        with torch.device("meta"):
            module = build(case)
    module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in state(module).values():
            tensor.fill_(3)
    torch.manual_seed(SEED)
    module.reset_parameters()
    same_state(module, build(case))


@pytest.mark.parametrize("name", [*MADE_ANYWHERE, "GroupedSequential"])
def test_reset_parameters_makes_a_used_one_new(case: Case) -> None:
    module = build(case)
    run(module.double(), case)
    with torch.no_grad():
        for tensor in state(module).values():
            change(tensor)
    torch.manual_seed(SEED)
    module.float().reset_parameters()
    for path, tensor in state(build(case)).items():
        torch.testing.assert_close(state(module)[path].to(tensor.dtype), tensor, msg=path)


def test_a_graph_goes_back_to_the_adjacency_it_was_made_with() -> None:
    graph = AUGraph(6, (5,), EDGES)
    graph.set_adjacency(torch.ones(3, 3))
    graph.reset_parameters()
    assert torch.equal(graph.adjacency, EDGES)
    without = AUGraph(6, (5,), 3)
    without.set_adjacency(EDGES)
    without.reset_parameters()
    assert torch.equal(without.adjacency, torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_computes_in_other_dtypes(case: Case, dtype: torch.dtype) -> None:
    """Within a few roundings of what the same numbers give in float64."""
    module = trained(case).eval().to(dtype)
    want = run(copy.deepcopy(module).double(), case, dtype=torch.float64)
    for path, tensor in state(module).items():
        assert tensor.dtype == OF_NO_DTYPE.get(path.rpartition(".")[2], dtype), path
    short = {torch.float32: module.float, torch.float16: module.half, torch.bfloat16: module.bfloat16}[dtype]
    got = run(short(), case, dtype=dtype)
    for one, other in zip(got, want, strict=True):
        assert one.dtype in (dtype, torch.float32) and one.isfinite().all()
        assert (one.double() - other).norm() <= 8 * torch.finfo(dtype).eps * other.norm()


# What is kept of it.


def read(file: str) -> list[dict[str, str]]:
    with Path(__file__).with_name(file).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def shown(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {path: "x".join(map(str, tensor.shape)) or "scalar" for path, tensor in tensors.items()}


@pytest.mark.parametrize("name", LAYERS)
def test_the_names_and_shapes_that_files_hold_stay(name: str, case: Case) -> None:
    rows = [row for row in read("state_dicts_of_layers.csv") if row["layer"] == name]
    want = {row["name"]: row["shape"] for row in rows}
    got = shown(build(case).state_dict())
    assert got == want and list(got) == list(want)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_names_and_shapes_that_files_of_models_hold_stay(preset: str) -> None:
    want = {row["name"]: row[preset] for row in read("state_dicts_of_models.csv") if row[preset]}
    config = PUBLISHED[preset]
    model = (JAAGraphNet if preset == "graph" else JAANet)(config, device="meta")
    assert shown(model.state_dict()) == want


def test_a_state_dict_brings_everything(case: Case) -> None:
    module = trained(case)
    other = case.make().double()
    assert other.load_state_dict(module.state_dict(), strict=True) == ([], [])
    same(run(other.eval(), case), run(module.eval(), case))


def test_a_deep_copy_is_the_same_and_independent(case: Case) -> None:
    module = trained(case).eval()
    before = run(module, case)
    twin = copy.deepcopy(module)
    same_state(twin, module)
    same(run(twin, case), before)
    with torch.no_grad():
        for tensor in state(twin).values():
            change(tensor)
    same(run(module, case), before)
    if state(twin):
        assert not any(torch.equal(a, b) for a, b in zip(run(twin, case)[-1:], before[-1:], strict=True))


@pytest.mark.parametrize("by", ["pickle", "torch.save"])
def test_it_can_be_pickled_whole(case: Case, by: str) -> None:
    module = trained(case).eval()
    run(module, case)  # what a layer keeps of its first run must not be in the way
    file = io.BytesIO()
    if by == "pickle":
        again = pickle.loads(pickle.dumps(module))
    else:
        torch.save(module, file)
        file.seek(0)
        again = torch.load(file, weights_only=False)
    assert not again.training and repr(again) == repr(module)
    same_state(again, module)
    same(run(again, case), run(module, case))


# How it runs.


def test_training_changes_statistics_and_evaluation_nothing(case: Case) -> None:
    module = trained(case)
    assert module.train() is module and all(part.training for part in module.modules())
    before = copy.deepcopy(state(module))
    learn(module, case)
    counted = [path for path in before if path.endswith("num_batches_tracked")]
    moving = [path for path in before if path.endswith(("running_mean", "running_var"))]
    for path, tensor in state(module).items():
        if path in counted:
            assert tensor == before[path] + 1, path
        else:
            assert torch.equal(tensor, before[path]) == (path not in moving), path

    assert module.eval() is module and not any(part.training for part in module.modules())
    before = copy.deepcopy(state(module))
    got = run(module, case)
    same(run(module, case), got)
    for path, tensor in state(module).items():
        assert torch.equal(tensor, before[path]), path


def test_every_parameter_gets_a_gradient(case: Case) -> None:
    module = trained(case).train()
    learned = learn(module, case)
    assert learned[-1].isfinite().all() and learned[-1].any()
    for path, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), path
        # A bias before a batch norm is of no effect.
        assert parameter.grad.any() or path.endswith("bias"), path


@pytest.mark.parametrize("training", [True, False])
def test_it_compiles_into_one_graph(case: Case, training: bool) -> None:
    module = trained(case).train(training)
    twin = copy.deepcopy(module)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    got, want = learn(compiled, case), learn(twin, case)
    torch.testing.assert_close(got, want)
    for (path, one), other in zip(state(module).items(), state(twin).values(), strict=True):
        torch.testing.assert_close(one, other, msg=path)
        if other.requires_grad:
            torch.testing.assert_close(one.grad, other.grad, msg=path)


def test_groups_one_by_one_compile_too(groups_split_from: Callable[[float], None]) -> None:
    groups_split_from(0)
    for name in ("FeatureStack", "AttentionRefinement", "LocalFeatures"):
        module = trained(CASES[name])
        twin = copy.deepcopy(module)
        torch.compiler.reset()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(learn(compiled, CASES[name]), learn(twin, CASES[name]))


class Within(nn.Module):
    """An exported program names what it holds after the layers: one named `graph` cannot be outermost."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> object:
        output = self.layer(*inputs)
        return tuple(output) if isinstance(output, tuple) else output  # files cannot hold a named one


def test_it_can_be_exported_for_any_batch(case: Case, groups_split_from: Callable[[float], None]) -> None:
    # Batches so large that groups run one by one: of that the program must not depend.
    groups_split_from(20_000)
    module = Within(trained(case).eval())
    arguments = inputs(case)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        module, tuple(arguments), dynamic_shapes={"inputs": tuple({0: batch} for _ in arguments)}
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for repeats in (1, 20):
        larger = [x.repeat(repeats, *(1 for _ in x.shape[1:])) for x in arguments]
        got, want = again(*larger), module(*larger)
        assert type(got) is type(want)
        torch.testing.assert_close(tensors(got), tensors(want))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_channels_last_goes_through(name: str, case: Case) -> None:
    module = trained(case).eval()
    want = run(module, case)
    last = module.to(memory_format=torch.channels_last)
    with torch.no_grad():
        got = tensors(last(*(x.to(memory_format=torch.channels_last) for x in inputs(case))))
    torch.testing.assert_close(got, want)
    if name in LAYERS and name != "LocalFeatures":  # whose outputs are not (N, C, H, W)
        assert got[0].is_contiguous(memory_format=torch.channels_last)


def test_groups_can_be_sliced() -> None:
    stack = trained(CASES["FeatureStack"]).eval()
    x = inputs(CASES["FeatureStack"])[0]
    first, rest = stack[:7], stack[7:]
    assert type(first) is GroupedSequential and first.groups == 2 and len(first) == 7
    assert first[0] is stack[0] and next(iter(rest.state_dict())) == "7.weight"
    assert torch.equal(rest(first(x)), stack(x))
    assert torch.equal(stack[1:3](stack[0](x)), nn.Sequential(*list(stack)[:3])(x))
    assert torch.equal(stack[6:7](x), nn.functional.max_pool2d(x, 2))
