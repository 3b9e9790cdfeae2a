"""Conv3x3 against nn.Conv2d, and what folded convolutions keep."""

import copy
import io
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from jaa_ext.nn import Conv3x3
from jaa_ext.nn import conv as conv_module
from jaa_ext.nn.conv import FoldedConv3x3

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_torchs_layer(padding, groups, bias):
    torch.manual_seed(3)
    ours = Conv3x3(6, 8, padding=padding, groups=groups, bias=bias)
    torch.manual_seed(3)
    theirs = nn.Conv2d(6, 8, 3, padding=padding, groups=groups, bias=bias)
    assert isinstance(ours, nn.Conv2d)
    for (name, one), (other_name, other) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(one, other)
    for shape in ((2, 6, 9, 10), (6, 9, 10)):
        x = torch.randn(shape)
        close(ours(x), theirs(x))
    x = x.double()
    torch.testing.assert_close(ours.double()(x), theirs.double()(x), rtol=0, atol=0)


def test_other_paddings_are_refused():
    with pytest.raises(ValueError, match="Conv3x3: padding must be 0 or 1, got 2"):
        Conv3x3(1, 1, padding=2)


@pytest.mark.parametrize(
    ("name", "value"), [("stride", (2, 2)), ("dilation", (2, 2)), ("padding", (1, 0)), ("padding", (2, 2))]
)
def test_what_others_change_in_it_counts(name, value):
    """As tools do that make a network's last stages dilated."""
    ours, theirs = Conv3x3(2, 3), nn.Conv2d(2, 3, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    for layer in (ours, theirs):
        setattr(layer, name, value)
    x = torch.randn(1, 2, 9, 9)
    assert torch.equal(ours(x), theirs(x))


def make(groups=1, **options):
    torch.manual_seed(0)
    layer = FoldedConv3x3(
        Conv3x3(16 * groups, 16 * groups, groups=groups), **{"relu": True, "pool": True, **options}
    )
    return layer.requires_grad_(False).to(memory_format=torch.channels_last)


def exact(layer, x):
    output = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1, groups=layer.groups)
    output = output.relu() if layer.relu else output
    return (F.max_pool2d(output, 2) if layer.pool else output).float()


def close(got, want):
    """Within what `jaa_ext.ops.conv3x3` promises."""
    assert got.shape == want.shape and (got - want).abs().max() <= 3e-6 * want.abs().max()


IMAGE = torch.randn(2, 16, 20, 21, generator=torch.Generator().manual_seed(1)).to(
    memory_format=torch.channels_last
)


@pytest.fixture
def made(monkeypatch):
    """The weights of which filters were made."""
    weights = []

    def counted(weight, groups):
        weights.append(weight)
        return conv3x3_filters(weight, groups)

    conv3x3_filters = conv_module.conv3x3_filters
    monkeypatch.setattr("jaa_ext.nn.conv.conv3x3_filters", counted)
    return weights


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_folded_it_computes_relu_and_pooling(relu, pool, groups):
    layer = make(groups, relu=relu, pool=pool)
    x = torch.cat([IMAGE] * groups, 1)
    close(layer(x), exact(layer, x))
    close(layer(x[0]), exact(layer, x[:1])[0])
    close(layer.double()(x.double()).float(), exact(layer, x))
    assert f"relu={relu}, pool={pool}" in repr(layer)


def test_filters_are_made_once(made):
    layer = make()
    before = set(layer.state_dict())
    with torch.inference_mode():
        first = layer(IMAGE)
    second = layer(IMAGE)
    assert len(made) == 1 and torch.equal(first, second)
    assert set(layer.state_dict()) == before == {"weight", "bias"}


CHANGES = {
    "in place": lambda layer: layer.weight.mul_(2),
    "loaded": lambda layer: layer.load_state_dict({**layer.state_dict(), "weight": 2 * layer.weight}),
    "replaced": lambda layer: setattr(layer, "weight", nn.Parameter(2 * layer.weight, requires_grad=False)),
    "other data": lambda layer: setattr(layer.weight, "data", 2 * layer.weight),
    "rounded": lambda layer: layer.half().float(),
    "laid out anew": lambda layer: layer.to(memory_format=torch.contiguous_format),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_used(change, made):
    layer = make()
    layer(IMAGE)
    CHANGES[change](layer)
    close(layer(IMAGE), exact(layer, IMAGE))
    assert len(made) == 2


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_fused_step_of_an_optimizer_is_seen(optimizer):
    """torch does not count it as a change of the weight."""
    layer = make().requires_grad_()
    with torch.no_grad():
        layer(IMAGE)
    layer(IMAGE).sum().backward()
    optimizer(layer.parameters(), 0.1, fused=True).step()
    with torch.no_grad():
        close(layer(IMAGE), exact(layer, IMAGE))


def test_a_new_weight_at_the_place_of_an_old_one_is_used():
    layer = make()
    for factor in range(1, 20):
        with torch.no_grad():
            layer.weight = nn.Parameter(torch.full((16, 16, 3, 3), float(factor)), requires_grad=False)
        close(layer(IMAGE) / factor, exact(layer, IMAGE) / factor)


@pytest.mark.parametrize("by", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_without_filters_and_independent(by, made):
    layer = make()
    want = layer(IMAGE)
    if by == "deepcopy":
        twin = copy.deepcopy(layer)
    elif by == "pickle":
        twin = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        assert file.tell() < 2 * 4 * layer.weight.numel() + 10_000
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert torch.equal(twin(IMAGE), want)
    twin.weight.mul_(2)
    close(twin(IMAGE), exact(twin, IMAGE))
    assert torch.equal(layer(IMAGE), want)
    assert len(made) == 3


def test_threads_share_a_layer():
    layer = make(2)
    x = torch.cat([IMAGE, IMAGE], 1)
    results = []

    def work():
        with torch.inference_mode():
            results.append(layer(x))
            results.append(
                torch.cat(
                    [f(part) for f, part in zip(conv_module.by_group(layer), x.chunk(2, 1), strict=True)], 1
                )
            )

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    for result in results:
        close(result, exact(layer, x))


def test_where_filters_are_of_no_use_none_are_made(made):
    layer = make()
    with torch.autocast("cpu", torch.bfloat16):
        layer(IMAGE)
    layer.double()(IMAGE.double())
    layer.float().requires_grad_()
    layer(IMAGE).sum().backward()
    assert layer.weight.grad is not None and not made


def test_weights_made_in_inference_mode():
    """They do not count their changes."""
    with torch.inference_mode():
        layer = make()
        layer(IMAGE)
        layer.weight.mul_(2)
        close(layer(IMAGE), exact(layer, IMAGE))


def test_a_folded_layer_compiles_into_one_graph():
    layer = make()
    layer(IMAGE)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        close(compiled(IMAGE), exact(layer, IMAGE))
        layer.weight.mul_(2)
        close(compiled(IMAGE), exact(layer, IMAGE))
