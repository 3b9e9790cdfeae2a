"""Region layers against the same computation done cell by cell with PyTorch's own layers."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from jaa_ext.nn import (
    BatchNormReLU2d,
    HierarchicalMultiScaleRegion,
    RegionBatchNorm2d,
    RegionConv2d,
    RegionLayer,
)

SIZES = [((8, 8), (2, 2)), ((8, 12), (4, 3)), ((7, 9), (3, 2)), ((8, 9), (2, 2)), ((5, 5), (1, 1))]
FORMATS = [torch.contiguous_format, torch.channels_last]


def spans(size, cells):
    return [(math.floor(i * size / cells), math.floor((i + 1) * size / cells)) for i in range(cells)]


def by_cell(x, grid, function):
    """Apply function(i, j, cell) to every cell and put the results where the cells were."""
    rows = []
    for i, (top, bottom) in enumerate(spans(x.shape[2], grid[0])):
        cells = [
            function(i, j, x[:, :, top:bottom, left:right])
            for j, (left, right) in enumerate(spans(x.shape[3], grid[1]))
        ]
        rows.append(torch.cat(cells, 3))
    return torch.cat(rows, 2)


def equal(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


def randomise(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.5)


@pytest.mark.parametrize(("size", "grid"), SIZES)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_batch_norm_is_one_batch_norm_a_cell(size, grid, memory_format):
    torch.manual_seed(0)
    layer = RegionBatchNorm2d(6, grid, eps=1e-3, momentum=0.3, dtype=torch.float64)
    randomise(layer)
    cells = {}
    for i in range(grid[0]):
        for j in range(grid[1]):
            cells[i, j] = cell = nn.BatchNorm2d(6, eps=1e-3, momentum=0.3, dtype=torch.float64)
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(cell, name).data.copy_(getattr(layer, name)[i, j])

    for training in (True, True, False):
        layer.train(training)
        layer.zero_grad()
        x = torch.randn(3, 6, *size, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
        plain = x.detach().clone().requires_grad_()
        factor = torch.randn(3, 6, *size, dtype=torch.float64)
        got = layer(x)
        assert got.is_contiguous(memory_format=memory_format)
        (got * factor).sum().backward()
        for cell in cells.values():
            cell.train(training)
            cell.zero_grad()
        want = by_cell(plain, grid, lambda i, j, cell: cells[i, j](cell))
        (want * factor).sum().backward()

        equal(got, want)
        equal(x.grad, plain.grad)
        for (i, j), cell in cells.items():
            equal(layer.running_mean[i, j], cell.running_mean)
            equal(layer.running_var[i, j], cell.running_var)
            equal(layer.weight.grad[i, j], cell.weight.grad)
            equal(layer.bias.grad[i, j], cell.bias.grad)
            assert layer.num_batches_tracked == cell.num_batches_tracked


def test_batch_norm_without_affine_and_from_strided_input():
    layer = RegionBatchNorm2d(2, 2, affine=False).double()
    assert not list(layer.parameters())
    x = torch.randn(3, 2, 8, 16, dtype=torch.float64)[:, :, :, ::2].transpose(2, 3)
    equal(layer(x), by_cell(x, (2, 2), lambda i, j, cell: F.batch_norm(cell, None, None, training=True)))


def test_batch_norm_starts_as_a_new_batch_norm():
    layer = RegionBatchNorm2d(3, (2, 4))
    fresh = nn.BatchNorm2d(3)
    assert layer.state_dict().keys() == fresh.state_dict().keys()
    for name, tensor in fresh.state_dict().items():
        got = layer.state_dict()[name]
        assert torch.equal(got, tensor.expand(got.shape))
        assert name == "num_batches_tracked" or got.shape == (2, 4, 3)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_batch_norm_with_relu_is_both_one_after_the_other(memory_format):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(5, eps=1e-3, momentum=0.3), nn.ReLU()).double()
    fused = BatchNormReLU2d(5, eps=1e-3, momentum=0.3).double()
    cells = RegionBatchNorm2d(5, 1, eps=1e-3, momentum=0.3, relu=True, dtype=torch.float64)
    randomise(plain)
    fused.load_state_dict(plain[0].state_dict())
    cells.load_state_dict(
        {name: t if t.dim() == 0 else t.view(1, 1, 5) for name, t in plain[0].state_dict().items()}
    )
    for training in (True, True, False):
        x = torch.randn(3, 5, 6, 7, dtype=torch.float64).to(memory_format=memory_format)
        factor = torch.randn(3, 5, 6, 7, dtype=torch.float64)
        results = []
        for layer in (plain, fused, cells):
            layer.train(training).zero_grad()
            leaf = x.clone().requires_grad_()
            output = layer(leaf)
            assert output.is_contiguous(memory_format=memory_format)
            (output * factor).sum().backward()
            results.append([output, leaf.grad, *(p.grad.flatten() for p in layer.parameters())])
        for result in results[1:]:
            for got, want in zip(result, results[0], strict=True):
                equal(got, want)
        for layer in (fused, cells):
            for got, want in zip(layer.buffers(), plain.buffers(), strict=True):
                equal(got.flatten(), want.flatten())


class OneACell(nn.Module):
    """Torch's own layers, one batch norm a cell, with ReLU."""

    def __init__(self, features, grid, **options):
        super().__init__()
        self.grid = grid
        self.norms = nn.ModuleList(nn.BatchNorm2d(features, **options) for _ in range(math.prod(grid)))

    def forward(self, x):
        return by_cell(x, self.grid, lambda i, j, cell: self.norms[i * self.grid[1] + j](cell).relu())


KINDS = {
    "BatchNormReLU2d": (BatchNormReLU2d, (1, 1)),
    "RegionBatchNorm2d": (lambda c, **o: RegionBatchNorm2d(c, (2, 3), relu=True, **o), (2, 3)),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """A layer and torch's own for the same, as functions of their options."""
    make, grid = KINDS[request.param]
    return lambda **o: make(3, **o).double(), lambda **o: OneACell(3, grid, **o).double()


def batches(count=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, 6, 7, generator=generator, dtype=torch.float64) * 3 + k for k in range(count)]


def same_statistics(layer, plain):
    for name in ("running_mean", "running_var"):
        want = torch.stack([getattr(norm, name) for norm in plain.norms])
        equal(getattr(layer, name).view(want.shape), want)
    assert all(layer.num_batches_tracked == norm.num_batches_tracked for norm in plain.norms)


OPTIONS = [
    {"momentum": None},
    {"momentum": 0.0},
    {"momentum": 1, "eps": 0.1},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False, "momentum": None},
    {"affine": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_are_those_of_a_batch_norm(kind, options):
    layer, plain = (make(**options) for make in kind)
    for x in batches():
        equal(layer(x), plain(x))
    x = batches()[0] * 0.5
    equal(layer.eval()(x), plain.eval()(x))
    assert ("weight" in layer.state_dict()) == options.get("affine", True)
    if options.get("track_running_stats", True):
        same_statistics(layer, plain)
    else:
        assert not any(layer.buffers()) and layer.running_mean is layer.num_batches_tracked is None


def test_arguments_keep_torchs_order():
    ordered = (3, 0.1, None, False, False, "meta", torch.float64)
    ours, regions = BatchNormReLU2d(*ordered), RegionBatchNorm2d(3, 2, *ordered[1:])
    for name in ("num_features", "eps", "momentum", "affine", "track_running_stats"):
        assert getattr(ours, name) == getattr(regions, name) == getattr(nn.BatchNorm2d(*ordered), name)


def test_statistics_are_taken_anew_by_update_bn(kind):
    layer, plain = (make() for make in kind)
    for model in (layer, plain):
        model(batches()[1] * 100)  # what the old weights gave
        torch.optim.swa_utils.update_bn(batches(), model.eval())
        assert not model.training
    same_statistics(layer, plain)
    assert layer.momentum == 0.1 and layer.num_batches_tracked == 3


def test_averaged_models_hold_averaged_statistics(kind):
    layer, plain = (make() for make in kind)
    averaged = [torch.optim.swa_utils.AveragedModel(model, use_buffers=True) for model in (layer, plain)]
    for x in batches():
        for model, average in zip((layer, plain), averaged, strict=True):
            model(x)
            average.update_parameters(model)
    same_statistics(*(average.module for average in averaged))


def test_layers_frozen_by_their_kind_keep_their_statistics(kind):
    frozen = nn.Sequential(*(make() for make in kind)).train()
    for module in frozen.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval().requires_grad_(False)
    before = copy.deepcopy(frozen.state_dict())
    frozen(batches()[0])
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_statistics_can_be_reset_switched_off_and_taken_away(kind):
    layer, plain = (make() for make in kind)
    norms = [layer, *plain.norms]
    for model in (layer, plain):
        model(batches()[0])
    for norm in norms:
        norm.reset_running_stats()
    same_statistics(layer, plain)
    for norm in norms:
        norm.track_running_stats = False
    equal(layer(batches()[0]), plain(batches()[0]))
    same_statistics(layer, plain)
    for norm in norms:
        norm.track_running_stats = True
    for model in (layer, plain):
        torch.func.replace_all_batch_norm_modules_(model)
    equal(layer.eval()(batches()[1]), plain.eval()(batches()[1]))


@pytest.mark.parametrize("inside", [False, True])
def test_torchs_conversion_names_ours(kind, inside):
    layer = kind[0]()
    model = nn.Sequential(nn.Conv2d(3, 3, 1), layer) if inside else layer
    with pytest.raises(TypeError, match=r"would lose .* call jaa_ext\.nn\.synchronize_batch_norm"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    equal(layer(batches()[0]), kind[1]()(batches()[0]))


def test_torchs_fusion_names_ours(kind):
    conv = nn.Conv2d(3, 3, 1).eval()
    with pytest.raises(TypeError, match=r"fuse_conv_bn_eval would lose .* call .*fold or .*JAANet\.fuse"):
        torch.nn.utils.fuse_conv_bn_eval(conv, kind[0]().eval())
    with pytest.raises((NotImplementedError, AssertionError)):
        torch.ao.quantization.fuse_modules(nn.Sequential(conv, kind[0]()).eval(), [["0", "1"]])


def test_eps_can_be_changed(kind):
    layer, plain = (make() for make in kind)
    layer.eps = 3.0
    for norm in plain.norms:
        norm.eps = 3.0
    equal(copy.deepcopy(layer)(batches()[0]), plain(batches()[0]))


def test_saved_blocks_keep_their_names():
    names = HierarchicalMultiScaleRegion(3, 8).state_dict().keys()
    assert {"region8.0.running_mean", "region4.2.weight", "region2.2.bias", "bn.running_var"} <= names
    assert len(names) == 2 + 3 * (5 + 2) + 5
    assert {"region.0.weight", "region.2.weight", "bn.num_batches_tracked"} <= RegionLayer(
        3, 8
    ).state_dict().keys()


def test_batch_norm_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"grid .*positive .*got 0"):
        RegionBatchNorm2d(3, 0)
    with pytest.raises(
        ValueError, match=r"weight must be \(grid_h, grid_w, C\) = \[2, 2, 4\], got \[2, 2, 3\]"
    ):
        RegionBatchNorm2d(3, 2)(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"got 4 x 4 cells for an image of 8 x 3"):
        RegionBatchNorm2d(3, 4)(torch.zeros(1, 3, 8, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        RegionBatchNorm2d(3, 4)(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(("size", "grid"), SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_is_one_conv_a_cell(size, grid, bias):
    torch.manual_seed(0)
    layer = RegionConv2d(3, 4, (3, 5), grid, bias=bias, dtype=torch.float64)
    x = torch.randn(2, 3, *size, dtype=torch.float64)

    def cell_conv(i, j, cell):
        conv = nn.Conv2d(3, 4, (3, 5), padding=(1, 2), bias=bias, dtype=torch.float64)
        conv.weight.data.copy_(layer.weight[i, j])
        if bias:
            conv.bias.data.copy_(layer.bias[i, j])
        return conv(cell)

    equal(layer(x), by_cell(x, grid, cell_conv))


def test_conv_with_equal_cells_and_image_border_is_a_plain_conv():
    layer = RegionConv2d(2, 3, 3, 4, border="image", dtype=torch.float64)
    layer.weight.data.copy_(layer.weight[0, 0].expand_as(layer.weight).clone())
    layer.bias.data.copy_(layer.bias[0, 0].expand_as(layer.bias).clone())
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    equal(layer(x), F.conv2d(x, layer.weight[0, 0], layer.bias[0, 0], padding=1))


def test_each_cell_of_a_conv_starts_like_a_conv():
    torch.manual_seed(0)
    layer = RegionConv2d(8, 64, 3, 2)
    bound = 1 / math.sqrt(8 * 9)  # nn.Conv2d: uniform within one over the root of the fan-in
    for tensor in (layer.weight, layer.bias):
        assert tensor.abs().max() <= bound
        assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert not torch.equal(layer.weight[0, 0], layer.weight[0, 1])
    conv = nn.Conv2d(8, 64, 3)
    assert conv.weight.abs().max().item() == pytest.approx(layer.weight.abs().max().item(), rel=0.01)


def test_conv_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="kernel sides must be odd, got 4"):
        RegionConv2d(1, 1, 4, 2)
    with pytest.raises(ValueError, match=r"grid .*positive .*got \(2, 0\)"):
        RegionConv2d(1, 1, 3, (2, 0))
    with pytest.raises(ValueError, match='border must be "cell" or "image", got "zeros"'):
        RegionConv2d(1, 1, 3, 2, border="zeros")
    assert "grid=(2, 3)" in repr(RegionConv2d(1, 1, 3, (2, 3))) and "bias=False" in repr(
        RegionConv2d(1, 1, 3, 2, bias=False)
    )


@pytest.mark.parametrize("c1", [1, 2, 5, 8])
def test_parameters_of_the_paper(c1):
    """Section 4.3 counts everything but the first convolution and batch norm."""

    def count(block):
        convs = [m for m in block.modules() if isinstance(m, RegionConv2d)]
        return sum(p.numel() for conv in convs for p in conv.parameters())

    assert count(HierarchicalMultiScaleRegion(3, 4 * c1)) == 4932 * c1**2 + 148 * c1
    assert count(RegionLayer(3, 4 * c1)) == 9216 * c1**2 + 256 * c1


def norm(x, weight, bias):
    """Batch norm with the statistics of the batch, from its formula."""
    mean = x.mean((0, 2, 3), keepdim=True)
    var = (x - mean).square().mean((0, 2, 3), keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * weight[None, :, None, None] + bias[None, :, None, None]


def region_stage(x, stage, grid):
    bn, conv = stage

    def cell_stage(i, j, cell):
        cell = norm(cell, bn.weight[i, j], bn.bias[i, j]).clamp(min=0)
        return F.conv2d(cell, conv.weight[i, j], conv.bias[i, j], padding=1)

    return by_cell(x, (grid, grid), cell_stage)


@pytest.mark.parametrize("size", [(16, 16), (17, 22)])
def test_hierarchical_multi_scale_region(size):
    torch.manual_seed(0)
    block = HierarchicalMultiScaleRegion(3, 8).double()
    randomise(block)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    got = block(x)
    first = F.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    b1 = region_stage(first, block.region8, 8)
    b2 = region_stage(b1, block.region4, 4)
    b3 = region_stage(b2, block.region2, 2)
    assert [b.shape[1] for b in (b1, b2, b3)] == [4, 2, 2]
    want = norm(first + torch.cat((b1, b2, b3), 1), block.bn.weight, block.bn.bias).clamp(min=0)
    equal(got, want)


def test_region_layer():
    torch.manual_seed(0)
    block = RegionLayer(3, 5).double()
    randomise(block)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    got = block(x)
    first = F.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
    want = norm(first + region_stage(first, block.region, 8), block.bn.weight, block.bn.bias).clamp(min=0)
    equal(got, want)


def test_width_must_split_into_scales():
    with pytest.raises(ValueError, match=r"width .*multiple of 4, got 6"):
        HierarchicalMultiScaleRegion(3, 6)


def test_autocast_runs_the_block_in_half_precision():
    torch.manual_seed(0)
    block = HierarchicalMultiScaleRegion(3, 8)
    x = torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        got = block(x)
    assert got.dtype == torch.bfloat16
    assert (got.float() - block(x)).abs().mean() < 0.05
