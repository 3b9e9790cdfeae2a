"""Grouped layers against one plain network for each AU."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from jaa_ext.nn import (
    AttentionRefinement,
    BatchNormReLU2d,
    Conv3x3,
    FeatureStack,
    GroupedSequential,
    LocalFeatures,
    RegionBatchNorm2d,
)
from jaa_ext.nn.conv import FoldedConv3x3
from jaa_ext.ops import conv3x3


@pytest.fixture(params=["together", "one by one"])
def form(request, groups_split_from):
    """Both forms of layers with groups, whatever the size of the images."""
    groups_split_from(float("inf") if request.param == "together" else 0)
    return request.param


def equal(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-11)


def randomise(module):
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5) if tensor.dim() in (1, 3) else tensor.data.normal_(std=0.3)


def take_group(branch, grouped, i):
    """Give a branch the rows of AU i, as the module's docstring lays them out."""
    state = grouped.state_dict()
    for name, tensor in branch.state_dict().items():
        if tensor.dim():
            tensor.copy_(state[name][i * len(tensor) : (i + 1) * len(tensor)])
    return branch.double()


def plain_stack(in_channels, c):
    layers = []
    for width in (12 * c, 16 * c, 20 * c):
        layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        in_channels = width
    return nn.Sequential(*layers)


def plain_refinement(c):
    layers = []
    for before in (1, 8 * c, 8 * c):
        layers += [nn.Conv2d(before, 8 * c, 3), nn.BatchNorm2d(8 * c), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8 * c, 1, 3), nn.Sigmoid())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
def test_feature_stack_is_one_stack_a_group(groups, training, form):
    torch.manual_seed(0)
    grouped = FeatureStack(5, 1, groups=groups).double().train(training)
    randomise(grouped)
    branches = [take_group(plain_stack(5, 1).double(), grouped, i).train(training) for i in range(groups)]
    x = torch.randn(2, groups * 5, 19, 16, dtype=torch.float64)
    got = grouped(x)
    assert got.shape == (2, groups * grouped.out_channels, 2, 2)
    equal(got, torch.cat([branch(x[:, 5 * i : 5 * i + 5]) for i, branch in enumerate(branches)], 1))


@pytest.mark.parametrize("training", [True, False])
def test_refinement_is_one_branch_an_au(training, form):
    torch.manual_seed(0)
    grouped = AttentionRefinement(1, num_aus=3).double().train(training)
    randomise(grouped)
    branches = [take_group(plain_refinement(1).double(), grouped, i).train(training) for i in range(3)]
    maps = torch.rand(2, 3, 14, 14, dtype=torch.float64)
    got = grouped(maps)
    assert got.shape == (2, 3, 6, 6)
    equal(got, torch.cat([branch(maps[:, i : i + 1]) for i, branch in enumerate(branches)], 1))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_local_features_are_each_aus_own(memory_format, form):
    torch.manual_seed(0)
    layer = LocalFeatures(4, 1, num_aus=3).double()
    randomise(layer)
    branches = [take_group(plain_stack(4, 1).double(), layer.stack, i) for i in range(3)]
    features = torch.randn(2, 4, 16, 16, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    maps = torch.rand(2, 3, 16, 16, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    got = layer(features, maps)
    assert got.shape == (2, 3, 20, 2, 2)
    want = torch.stack([branch(features * maps[:, i : i + 1]) for i, branch in enumerate(branches)], 1)
    equal(got, want)
    factor = torch.randn_like(want)
    for got_grad, want_grad in zip(
        torch.autograd.grad((got * factor).sum(), (features, maps)),
        torch.autograd.grad((want * factor).sum(), (features, maps)),
        strict=True,
    ):
        equal(got_grad, want_grad)


def test_refined_maps_stay_float32_under_autocast(form):
    torch.manual_seed(0)
    refinement = AttentionRefinement(1, num_aus=2)
    randomise(refinement)
    maps = torch.rand(2, 2, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        refined = refinement(maps)
        features = LocalFeatures(4, 1, num_aus=2)(torch.randn(2, 4, 8, 8).bfloat16(), torch.rand(2, 2, 8, 8))
    assert refined.dtype == torch.float32 and features.dtype == torch.bfloat16
    assert (refined - refined.bfloat16()).abs().max() > 0, "computed in half precision after all"


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_both_forms_train_alike(memory_format, groups_split_from):
    """Gradients of every parameter and the running statistics."""
    torch.manual_seed(0)
    refinement, features = AttentionRefinement(1, num_aus=3).double(), LocalFeatures(4, 1, num_aus=3).double()
    one = nn.ModuleList([refinement, features])
    randomise(one)
    one.to(memory_format=memory_format)
    other = copy.deepcopy(one)
    x, maps = torch.randn(2, 4, 16, 16, dtype=torch.float64), torch.rand(2, 3, 24, 24, dtype=torch.float64)
    factor = torch.randn(2, 3, 20, 2, 2, dtype=torch.float64)
    for form, (refine, local) in ((0, one), (float("inf"), other)):
        groups_split_from(form)
        (local(x.to(memory_format=memory_format), refine(maps)) * factor).sum().backward()
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-10, msg=name)
    for (name, b), c in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(b, c, rtol=1e-12, atol=0, msg=name)


GROUPS = 2


def conv(in_channels=4, **options):
    return nn.Conv2d(in_channels, 8, 3, **{"groups": GROUPS, "padding": 1, **options})


class Doubled(nn.Conv2d):
    def forward(self, input):
        return 2 * super().forward(input)


class Leaky(BatchNormReLU2d):
    def forward(self, input):
        return super().forward(input) + 0.1 * input


def hooked(layer, kind="register_forward_hook"):
    change = {
        "register_forward_hook": lambda module, inputs, output: output * 3,
        "register_forward_pre_hook": lambda module, inputs: (inputs[0] + 1,),
        "register_full_backward_hook": lambda module, grads, outputs: (grads[0] * 2,),
        "register_full_backward_pre_hook": lambda module, grads: (grads[0] * 2,),
    }
    getattr(layer, kind)(change[kind])
    return layer


def with_forward(layer):
    layer.forward = lambda input: type(layer).forward(layer, input) * 5
    return layer


LAYERS = {
    "bias": lambda: [conv(bias=False), BatchNormReLU2d(8), conv(in_channels=8, bias=False)],
    "stride": lambda: [conv(stride=2), BatchNormReLU2d(8)],
    "stride, side by side": lambda: [conv(stride=(1, 3)), BatchNormReLU2d(8)],
    "dilation": lambda: [conv(dilation=(2, 1), padding=(2, 0)), BatchNormReLU2d(8)],
    "same": lambda: [conv(padding="same", dilation=2)],
    "valid": lambda: [conv(padding="valid"), nn.MaxPool2d(3, 2, 1)],
    "reflect": lambda: [conv(padding_mode="reflect"), BatchNormReLU2d(8)],
    "circular": lambda: [conv(padding_mode="circular", padding=(2, 1))],
    "replicate": lambda: [conv(padding_mode="replicate", stride=2)],
    "even kernel": lambda: [nn.Conv2d(4, 6, (2, 4), groups=GROUPS, padding=1)],
    "groups in a group": lambda: [conv(groups=4), BatchNormReLU2d(8)],
    "groups mixed": lambda: [conv(groups=1), BatchNormReLU2d(8)],
    "subclass": lambda: [Doubled(4, 8, 3, groups=GROUPS), Leaky(8)],
    "norm first": lambda: [BatchNormReLU2d(4), conv()],
    "norm without affine": lambda: [conv(), BatchNormReLU2d(8, affine=False)],
    "norm without statistics": lambda: [conv(), BatchNormReLU2d(8, track_running_stats=False)],
    "norm with cumulative statistics": lambda: [conv(), BatchNormReLU2d(8, momentum=None)],
    "torch's batch norm": lambda: [conv(), nn.BatchNorm2d(8), nn.ReLU()],
    "group norm": lambda: [conv(), nn.GroupNorm(GROUPS, 8)],
    "instance norm": lambda: [conv(), nn.InstanceNorm2d(8, affine=True, track_running_stats=True)],
    "batch norm of cells": lambda: [conv(), RegionBatchNorm2d(8, 2)],
    "parameters": lambda: [conv(), nn.PReLU(8)],
    "softmax over channels": lambda: [conv(), nn.Softmax(1)],
    "shuffled channels": lambda: [conv(), nn.ChannelShuffle(4)],
    "transposed": lambda: [conv(), nn.ConvTranspose2d(8, 4, 2, 2, groups=GROUPS)],
    "a stack in the stack": lambda: [conv(), nn.Sequential(conv(in_channels=8), nn.ReLU())],
    "in place": lambda: [conv(), nn.ReLU(inplace=True), conv(in_channels=8), nn.Sigmoid(), nn.AvgPool2d(2)],
    "in place first": lambda: [nn.Identity(), nn.ReLU(inplace=True), conv()],
    "hook": lambda: [hooked(conv()), BatchNormReLU2d(8)],
    "hook on a norm": lambda: [conv(), hooked(BatchNormReLU2d(8), "register_forward_pre_hook")],
    "hook on a place holder": lambda: [conv(), hooked(nn.Identity())],
    "hook for gradients": lambda: [hooked(conv(), "register_full_backward_hook"), nn.ReLU()],
    "hook before gradients": lambda: [conv(), hooked(nn.ReLU(), "register_full_backward_pre_hook")],
    "another forward": lambda: [with_forward(conv())],
    "spectral norm": lambda: [nn.utils.parametrizations.spectral_norm(conv())],
    "old spectral norm": lambda: [nn.utils.spectral_norm(conv())],
    "weight norm": lambda: [nn.utils.parametrizations.weight_norm(conv(), dim=None)],
    "pruned": lambda: [prune.l1_unstructured(conv(), "weight", 0.5), BatchNormReLU2d(8)],
    "pruned norm": lambda: [conv(), prune.l1_unstructured(BatchNormReLU2d(8), "weight", 0.5)],
}


def randomised(name):
    torch.manual_seed(0)
    stack = GroupedSequential(GROUPS, *LAYERS[name]()).double()
    randomise(stack)
    return stack


@pytest.mark.parametrize("name", LAYERS)
def test_any_layers_give_the_same_at_every_size(name, groups_split_from):
    x = torch.randn(2, 4, 12, 11, dtype=torch.float64)
    results = []
    for size in (float("inf"), 0):
        groups_split_from(size)
        stack = randomised(name)
        leaf = x.clone().requires_grad_()
        output = stack.train()(leaf * 1.0)
        output.square().sum().backward()
        made = {"output": output, "grad": leaf.grad, "evaluated": stack.eval()(x)}
        made |= {f"grad of {path}": parameter.grad for path, parameter in stack.named_parameters()}
        results.append({**made, **stack.state_dict()})
    assert results[1].keys() == results[0].keys()
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-9, atol=1e-10, msg=f"{name}: {key}")


SPLIT = ["bias", "stride", "dilation", "same", "even kernel", "groups in a group", "norm first", "in place"]


@pytest.mark.parametrize("name", SPLIT)
def test_what_can_be_split_is(name, groups_split_from):
    groups_split_from(0)
    assert GroupedSequential(GROUPS, *LAYERS[name]()).one_by_one(torch.zeros(1, 4, 12, 11))


def test_hooks_on_the_stack_and_on_all_modules_run(groups_split_from):
    groups_split_from(0)
    features, maps = torch.randn(1, 4, 16, 16), torch.rand(1, 2, 16, 16)
    layer = LocalFeatures(4, 1, num_aus=2).eval()
    plain = layer(features, maps)
    handle = layer.stack.register_forward_hook(lambda module, inputs, output: output * 3)
    torch.testing.assert_close(layer(features, maps), 3 * plain)
    handle.remove()
    called = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(type(module)))
    layer(features, maps)
    handle.remove()
    assert called.count(Conv3x3) == called.count(BatchNormReLU2d) == 6
    torch.testing.assert_close(layer(features, maps), plain)


def test_one_image_without_a_batch_and_wrong_channels(form):
    stack = GroupedSequential(GROUPS, conv(), nn.ReLU())
    x = torch.randn(4, 9, 9)
    torch.testing.assert_close(stack(x), stack(x[None])[0])
    for channels in (3, 5, 6):
        with pytest.raises((RuntimeError, ValueError)):
            stack(torch.zeros(1, channels, 9, 9))


def test_large_images_on_a_cpu_go_one_group_after_the_other(monkeypatch):
    """In float64 large by all images together."""
    groups = []
    conv2d = F.conv2d

    def counted(input, weight, bias, *args, **kwargs):
        groups.append(input.shape[1] // weight.shape[1])
        return conv2d(input, weight, bias, *args, **kwargs)

    monkeypatch.setattr(F, "conv2d", counted)
    stack = FeatureStack(2, 1, groups=2).eval().double()
    with torch.no_grad():
        stack(torch.zeros(1, 4, 496, 496, dtype=torch.float64))
        assert groups == [2] * 6, "small images went one by one"
        stack(torch.zeros(1, 4, 504, 504, dtype=torch.float64))
    assert groups[6:] == [1] * 12


@pytest.mark.parametrize("folded", [False, True])
def test_in_float32_the_form_and_the_bits_are_those_of_one_image(folded):
    torch.manual_seed(0)
    layer, refinement = LocalFeatures(16, 2, num_aus=3).eval(), AttentionRefinement(1, num_aus=3).eval()
    randomise(layer)
    if folded:
        layer.stack.fold()
        refinement.fold()
    small, large = torch.zeros(1).expand(1, 4, 8, 8), torch.zeros(1).expand(1, 4, 500, 500)
    for stack in (layer.stack, refinement):
        for batch in (1, 10_000):
            assert not stack.one_by_one(small.expand(batch, -1, -1, -1))
            assert stack.one_by_one(large.expand(batch, -1, -1, -1))
    features = torch.randn(3, 16, 96, 97).to(memory_format=torch.channels_last)
    maps = torch.rand(3, 3, 96, 97)
    assert layer.stack.one_by_one(features)
    with torch.no_grad():
        together = layer(features, maps)
        for i in range(3):
            assert torch.equal(layer(features[i : i + 1], maps[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_folded_batch_norms(memory_format, form):
    torch.manual_seed(0)
    refinement = AttentionRefinement(1, num_aus=3).double().eval()
    randomise(refinement)
    refinement.to(memory_format=memory_format)
    maps = torch.rand(2, 3, 14, 14, dtype=torch.float64)
    want = refinement(maps)
    refinement.fold()
    assert not any(isinstance(layer, BatchNormReLU2d) for layer in refinement)
    assert not any(parameter.grad_fn for parameter in refinement.parameters())
    assert refinement[3].weight.is_contiguous(memory_format=memory_format)
    equal(refinement(maps), want)


@pytest.mark.parametrize("name", LAYERS)
def test_folding_changes_nothing_in_evaluation(name):
    x = torch.randn(2, 4, 12, 11, dtype=torch.float64)
    stack = randomised(name).eval()
    want = stack(x.clone())
    stack.fold()
    equal(stack(x), want)


def folded_stack(*, hooked_pool=False):
    torch.manual_seed(0)
    stack = FeatureStack(5, 1, groups=3).eval()
    randomise(stack)
    want = copy.deepcopy(stack).double()
    if hooked_pool:
        hooked(stack[6])
    stack.fold()
    return stack, want


def test_a_folded_stack_is_one_op_a_convolution(form, monkeypatch):
    stack, want = folded_stack()
    x = torch.randn(2, 15, 19, 16)
    assert [type(layer) for layer in stack if type(layer) is not nn.Identity] == [FoldedConv3x3] * 6
    assert [layer.pool for layer in stack if type(layer) is FoldedConv3x3] == [False, True] * 3
    with torch.no_grad():
        expected = want(x.double())
        assert (stack(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs["pool"])
        return conv3x3(*args, **kwargs)

    monkeypatch.setattr("jaa_ext.nn.conv.conv3x3", counted)
    stack(x)
    assert calls == [False, True] * (9 if form == "one by one" else 3)


def test_folding_stops_at_hooks(form):
    stack, want = folded_stack(hooked_pool=True)
    hooked(want[6])
    assert type(stack[6]) is nn.MaxPool2d
    x = torch.randn(2, 15, 19, 16)
    with torch.no_grad():
        expected = want(x.double())
        assert (stack(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
        hooked(stack[10])  # a hook that comes later runs too
        stack(x)
    called = []
    stack[3].register_forward_hook(lambda *_: called.append(1))
    stack(x)
    assert called == [1]


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, padding=1)],
)
def test_other_poolings_stay(pool, form):
    torch.manual_seed(0)
    stack = GroupedSequential(GROUPS, conv(), BatchNormReLU2d(8), pool).eval()
    randomise(stack)
    x = torch.randn(2, 4, 11, 12)
    want = copy.deepcopy(stack)
    stack.fold()
    assert stack[2] is pool and not stack[0].pool and stack[0].relu
    torch.testing.assert_close(stack(x), want(x))


def test_attention_reaches_any_first_layer(form):
    """A stack whose first layer another has replaced."""
    torch.manual_seed(0)
    layer = LocalFeatures(4, 1, num_aus=3).double()
    layer.stack[0] = nn.Conv2d(12, 36, 5, padding=2, groups=3, dtype=torch.float64)
    branches = [
        take_group(
            nn.Sequential(nn.Conv2d(4, 12, 5, padding=2), *plain_stack(4, 1)[1:]).double(), layer.stack, i
        )
        for i in range(3)
    ]
    features, maps = torch.randn(2, 4, 16, 16).double(), torch.rand(2, 3, 16, 16).double()
    want = [branch(features * maps[:, i : i + 1]) for i, branch in enumerate(branches)]
    equal(layer(features, maps), torch.stack(want, 1))
