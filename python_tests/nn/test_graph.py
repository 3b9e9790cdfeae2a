"""The graph over AUs against plain loops."""

import copy
import math

import numpy as np
import pytest
import torch

from jaa_ext.nn import AUGraph, au_adjacency, conditional_probabilities

LABELS = torch.tensor(
    [  # the third AU is present in one frame, the fourth in none
        [1, 1, 0, 0],
        [1, 1, 0, -1],
        [1, 0, -1, 0],
        [0, 1, 1, 0],
        [0, 1, 0, 0],
        [-1, 1, 0, 0],
        [1, -1, 0, 0],
    ]
)
DIRECTED = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1]])


def probability(rows, i, j):
    """P(AU j present | AU i present) over the frames in which both are known."""
    both = [row for row in rows if row[i] == 1 and row[j] != -1]
    return sum(row[j] == 1 for row in both) / len(both) if both else 0.0


def plain_adjacency(rows, threshold):
    aus = range(len(rows[0]))
    return [[float(i == j or probability(rows, i, j) >= threshold) for j in aus] for i in aus]


def plain_forward(features, weights, adjacency, share=0.2):
    """Faces, AUs and numbers one by one."""
    faces = features.tolist()
    for layer, weight in enumerate(weight.tolist() for weight in weights):
        after = []
        for nodes in faces:
            after.append([])
            for i, row in enumerate(adjacency.tolist()):
                heard = [nodes[j] for j, edge in enumerate(row) if edge and j != i]
                mean = nodes[i]
                if heard:
                    others = [math.fsum(numbers) / len(heard) for numbers in zip(*heard, strict=True)]
                    mean = [(1 - share) * own + share * x for own, x in zip(nodes[i], others, strict=True)]
                sums = (
                    math.fsum(w * x for w, x in zip(weights_of_one, mean, strict=True))
                    for weights_of_one in weight
                )
                last = layer == len(weights) - 1
                after[-1].append([total if last else max(total, 0.0) for total in sums])
        faces = after
    return torch.tensor(faces, dtype=torch.float64)


def build(widths=(5, 3), adjacency=DIRECTED, in_features=6, seed=0, **options):
    torch.manual_seed(seed)
    return AUGraph(in_features, widths, adjacency, **options).double()


def features(n=2, aus=4, size=6, seed=1):
    return torch.randn(n, aus, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The adjacency.


def test_probabilities_by_hand():
    got = conditional_probabilities(LABELS)
    want = [
        [
            1,
            2 / 3,
            0,
            0,
        ],  # present in four frames; of the second AU three are known, of the others three each
        [2 / 4, 1, 1 / 5, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]
    assert got.dtype == torch.float64
    assert torch.equal(got, torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.5, 0.75, 1.0])
def test_adjacency_against_plain_loops(threshold):
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((60, 1))
    labels = (rng.standard_normal((60, 7)) + 1.5 * latent > np.linspace(-1, 1.8, 7)).astype(np.int64)
    labels[rng.random(labels.shape) < 0.15] = -1
    labels[:, 5] = np.minimum(labels[:, 5], 0)
    want = torch.tensor(plain_adjacency(labels.tolist(), threshold))
    assert 0 < (want - torch.eye(7)).sum() < 30 or threshold == 1, "nothing is tested"
    for given in (labels, torch.from_numpy(labels), labels.astype(np.float32), labels.astype(np.int8)):
        got = au_adjacency(given, threshold)
        assert got.dtype == torch.float32
        assert torch.equal(got, want)


def test_adjacency_has_a_direction():
    """Whoever has AU 1 has AU 0 too, but not the other way round."""
    labels = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0]])
    assert au_adjacency(labels, 0.5).tolist() == [[1, 0], [1, 1]]


def test_the_threshold_is_inclusive():
    labels = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0], [0, 1]])
    assert au_adjacency(labels, 1 / 3)[0, 1] == 1
    assert au_adjacency(labels, math.nextafter(1 / 3, 1))[0, 1] == 0
    always = torch.tensor([[1, 1], [0, 1]])
    assert au_adjacency(always, 1).tolist() == [[1, 1], [0, 1]]
    tenths = torch.tensor([[1, int(i < 7)] for i in range(10)])
    assert au_adjacency(tenths, 0.7)[0, 1] == 1


@pytest.mark.parametrize("missing", [0, -1])
def test_an_au_that_never_occurs_listens_to_itself_alone(missing):
    labels = torch.tensor([[1, missing, 1], [1, missing, 0]])
    got = au_adjacency(labels, 0.01)
    assert got.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    AUGraph(2, (2,), got)


def test_no_frames_give_the_unit_matrix():
    assert torch.equal(au_adjacency(torch.empty(0, 3), 0.5), torch.eye(3))


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, math.nan])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(ValueError, match=rf"threshold .*above 0 and up to 1, got {threshold:g}$"):
        au_adjacency(LABELS, threshold)


@pytest.mark.parametrize("compute", [conditional_probabilities, lambda labels: au_adjacency(labels, 0.5)])
def test_labels_that_do_not_fit(compute):
    with pytest.raises(ValueError, match=r"labels must be \(n, A\), got \[4\]"):
        compute(torch.zeros(4))
    with pytest.raises(ValueError, match=r"labels .*1, 0 or -1 .*got 9$"):
        compute(torch.tensor([[0, 1], [9, 1]]))


def test_adjacency_on_a_device(device):
    got = au_adjacency(LABELS.to(device), 0.5)
    assert got.device.type == device
    assert torch.equal(got.cpu(), au_adjacency(LABELS, 0.5))


# The layers.


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("widths", [(3,), (5, 3), (5, 7, 4)])
def test_forward_against_plain_loops(widths, share):
    graph = build(widths, neighbor_share=share)
    got = graph(features())
    want = plain_forward(features(), [layer.weight for layer in graph.layers], DIRECTED, share)
    assert got.shape == (2, 4, widths[-1])
    assert 0 < (want > 0).sum() < want.numel(), "nothing is tested"
    torch.testing.assert_close(got, want)


def test_an_au_keeps_its_share_and_takes_the_mean_over_those_it_listens_to():
    """However many they are: equal features of all AUs stay equal."""
    graph = build((6,), neighbor_share=0.25)
    with torch.no_grad():
        graph.layers[0].weight.copy_(torch.eye(6))
    one = features(n=1, aus=1).abs()
    torch.testing.assert_close(graph(one.expand(1, 4, 6)), one.expand(1, 4, 6))
    x = features().abs()
    others = torch.stack([x[:, 1], x[:, 3], x[:, [0, 1, 3]].mean(1), x[:, 3]], 1)
    want = 0.75 * x + 0.25 * others  # the last AU listens to none: it keeps all of itself
    torch.testing.assert_close(graph(x), want)


@pytest.mark.parametrize("layers", [1, 2])
def test_features_flow_along_the_edges_and_in_their_direction(layers):
    graph = build((6,) * layers)
    with torch.no_grad():
        for layer in graph.layers:
            layer.weight.abs_()  # nothing is cut off by the ReLU
    jacobian = torch.autograd.functional.jacobian(graph, features(n=1).abs())[0, :, :, 0]
    reaches = torch.tensor([[jacobian[i, :, j].any() for j in range(4)] for i in range(4)])
    assert torch.equal(reaches, torch.linalg.matrix_power(DIRECTED, layers) > 0)


def test_a_number_of_aus_leaves_each_to_itself():
    graph = build((3,), 4)
    assert torch.equal(graph.adjacency, torch.eye(4).double())
    torch.testing.assert_close(graph(features()), features() @ graph.layers[0].weight.T)


def test_gradients():
    graph = build((3, 2))
    torch.autograd.gradcheck(graph, features().requires_grad_())

    def of_weights(*weights):
        names = ("layers.0.weight", "layers.1.weight")
        return torch.func.functional_call(graph, dict(zip(names, weights, strict=True)), (features(),))

    torch.autograd.gradcheck(of_weights, [layer.weight.detach().requires_grad_() for layer in graph.layers])
    assert [name for name, _ in graph.named_parameters()] == ["layers.0.weight", "layers.1.weight"]
    assert not graph.adjacency.requires_grad


def test_the_adjacency_travels_with_the_state():
    graph = build()
    assert list(graph.state_dict()) == ["adjacency", "layers.0.weight", "layers.1.weight"]
    other = build(adjacency=4, seed=5)
    other.load_state_dict(graph.state_dict())
    assert torch.equal(other.adjacency, DIRECTED.double())
    assert torch.equal(other(features()), graph(features()))


def test_another_adjacency_takes_the_place_of_the_first():
    graph = build()
    given = DIRECTED.T.bool()
    graph.set_adjacency(given)
    assert torch.equal(graph.adjacency, DIRECTED.T.double())
    want = plain_forward(features(), [layer.weight for layer in graph.layers], DIRECTED.T)
    torch.testing.assert_close(graph(features()), want)
    given[0] = False
    assert torch.equal(graph.adjacency, DIRECTED.T.double()), "the graph must not share the caller's tensor"
    twin = copy.deepcopy(graph)
    twin.set_adjacency(torch.eye(4))
    assert torch.equal(graph.adjacency, DIRECTED.T.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_devices_and_dtypes(dtype, device):
    graph = build().to(device, dtype)
    got = graph(features().to(device, dtype))
    assert got.dtype == dtype and got.device.type == device
    assert torch.equal(graph.adjacency.cpu(), DIRECTED.to(dtype)), "0 and 1 are exact in every dtype"
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12}.get(dtype, 0.02)
    torch.testing.assert_close(got.cpu().double(), build()(features()), rtol=tolerance, atol=tolerance)


def test_autocast(device):
    graph = build().float().to(device)
    with torch.autocast(device, torch.bfloat16):
        got = graph(features().float().to(device))
    assert got.dtype == torch.bfloat16 and graph.adjacency.dtype == torch.float32
    torch.testing.assert_close(got.cpu().double(), build()(features()), rtol=0.02, atol=0.02)


def test_compiles_into_one_graph():
    graph, twin = build(), build()
    compiled = torch.compile(graph, fullgraph=True, backend="aot_eager")
    got, want = compiled(features()), twin(features())
    torch.testing.assert_close(got, want)
    got.square().sum().backward()
    want.square().sum().backward()
    for p, q in zip(graph.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_the_diagonal_of_the_adjacency_says_nothing():
    other = build(adjacency=DIRECTED * (1 - torch.eye(4)))
    assert torch.equal(other(features()), build()(features()))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_shares_out_of_range(share):
    with pytest.raises(ValueError, match=r"AUGraph: neighbor_share must be in 0\.\.1, got"):
        AUGraph(3, (2,), 2, neighbor_share=share)


def test_it_says_how_many_edges_there_are():
    assert "6, (5, 3), num_aus=4, neighbor_share=0.2, edges=5" in repr(build())  # without those to themselves
    with torch.device("meta"):
        assert "edges" not in repr(AUGraph(6, (3,), 4))


@pytest.mark.parametrize("widths", [(), (0,), (4, -1)])
def test_widths_that_make_no_layers(widths):
    with pytest.raises(ValueError, match=r"AUGraph: widths .*at least 1, got"):
        AUGraph(3, widths, 2)


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        (torch.ones(2, 3), r"adjacency must be \(2, 2\), got \[2, 3\]"),
        (torch.ones(2), r"adjacency must be \(2, 2\), got \[2\]"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "adjacency must hold 0 and 1 only"),
        (torch.tensor([[1.0, -1.0], [0.0, 1.0]]), "adjacency must hold 0 and 1 only"),
        (torch.tensor([[1.0, math.nan], [0.0, 1.0]]), "adjacency must hold 0 and 1 only"),
    ],
)
def test_adjacencies_that_do_not_fit(adjacency, message):
    with pytest.raises(ValueError, match=message):
        AUGraph(3, (2,), adjacency)
    graph = AUGraph(3, (2,), 2)
    with pytest.raises(ValueError, match=message):
        graph.set_adjacency(adjacency)
    assert torch.equal(graph.adjacency, torch.eye(2)), "a refused adjacency changed the graph"
