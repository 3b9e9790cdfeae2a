"""The authors' checkpoints, written by a network with their names for everything, give the same network."""

import math
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from jaa_ext import facs
from jaa_ext.models import JAANetConfig, import_weights, load_model, save_model
from jaa_ext.models.import_authors import find_epochs

AUS = {8: facs.DISFA_AUS, 10: facs.GFT_AUS, 12: facs.BP4D_AUS}
TENSORS = {  # of 12 AUs, first version
    "region_learning": 1190,
    "align_net": 46,
    "local_attention_refine": 276,
    "local_au_net": 504,
    "global_au_feat": 42,
    "au_net": 4,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Cells are too small for more, and threads that wait for each other slow a busy machine down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The authors' network, a module for each cell and each AU, with the names of their checkpoints.


def chain(**layers):
    """Layers in a row under the given names, which begin with an underscore because they are numbers."""
    return nn.Sequential(OrderedDict((name[1:], layer) for name, layer in layers.items()))


class Cells(nn.Module):
    def __init__(self, channels, out_channels, grid):
        super().__init__()
        self.grid = grid
        self.bns = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(grid**2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, out_channels, 3, padding=1) for _ in range(grid**2))

    def forward(self, x):
        height, width, rows = x.shape[2] // self.grid, x.shape[3] // self.grid, []
        for i in range(self.grid):
            row = []
            for j in range(self.grid):
                cell = x[:, :, i * height : (i + 1) * height, j * width : (j + 1) * width]
                p = i * self.grid + j
                row.append(self.convs[p](self.bns[p](cell).relu()))
            rows.append(torch.cat(row, 3))
        return torch.cat(rows, 2)


class Block(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.local_conv_branch1 = Cells(width, width // 2, 8)
        self.local_conv_branch2 = Cells(width // 2, width // 4, 4)
        self.local_conv_branch3 = Cells(width // 4, width // 4, 2)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x):
        x = self.conv(x)
        first = self.local_conv_branch1(x)
        second = self.local_conv_branch2(first)
        third = self.local_conv_branch3(second)
        return self.bn(x + torch.cat([first, second, third], 1)).relu()


class Regions(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.multiscale_feat = chain(
            _0=Block(3, 4 * c), _1=nn.MaxPool2d(2), _2=Block(4 * c, 8 * c), _3=nn.MaxPool2d(2)
        )

    def forward(self, x):
        return self.multiscale_feat(x)


class Stack(nn.Module):
    def __init__(self, c):
        super().__init__()
        layers, before = [], 8 * c
        for after in (12 * c, 16 * c, 20 * c):
            for channels in (before, after):
                layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            before = after
        self.feat_extract = nn.Sequential(*layers)

    def forward(self, x):
        return self.feat_extract(x)


class Align(nn.Module):
    def __init__(self, c, d, flat):
        super().__init__()
        self.align_feat = Stack(c)
        self.align_output = nn.Sequential(nn.Linear(flat, d), nn.Linear(d, 98))


class Refine(nn.Module):
    def __init__(self, c, aus):
        super().__init__()
        k = 8 * c
        self.local_aus_attention = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(1, k, 3), nn.BatchNorm2d(k), nn.ReLU()),
                *(nn.Conv2d(k, k, 3), nn.BatchNorm2d(k), nn.ReLU()),
                *(nn.Conv2d(k, k, 3), nn.BatchNorm2d(k), nn.ReLU()),
                *(nn.Conv2d(k, 1, 3), nn.Sigmoid()),
            )
            for _ in range(aus)
        )


class Local(nn.Module):
    def __init__(self, c, aus, flat, journal):
        super().__init__()
        self.local_aus_branch = nn.ModuleList(Stack(c) for _ in range(aus))
        if journal:
            self.local_aus_output = nn.ModuleList(
                nn.Sequential(nn.Linear(flat, 8 * c), nn.Linear(8 * c, 2)) for _ in range(aus)
            )


class Head(nn.Module):
    def __init__(self, d, aus, flat):
        super().__init__()
        self.au_output = nn.Sequential(nn.Linear(3 * flat, d), nn.Linear(d, 2 * aus))


RULES = {  # two landmarks, and what is added to their y in distances of the inner eye corners
    **{1: (4, 5, -1 / 2), 2: (1, 8, -1 / 3), 4: (2, 7, 1 / 3), 6: (24, 29, 1), 7: (21, 26, 0)},
    **{9: (15, 17, -1 / 2), 10: (43, 45, 0), 12: (31, 37, 0), 14: (31, 37, 0), 15: (31, 37, 0)},
    **{17: (39, 41, 1 / 2), 23: (34, 40, 0), 24: (34, 40, 0), 25: (34, 40, 0), 26: (39, 41, 1 / 2)},
}


def centres(landmarks, aus, image_size, map_size):
    """(A, 2, 2) x, y on the map of one face's landmarks (49, 2), float32 and not rounded yet."""
    points = landmarks.numpy()
    unit = abs(points[22, 0] - points[25, 0])
    return np.array(
        [[points[p] + np.float32([0, RULES[au][2] * unit]) for p in RULES[au][:2]] for au in aus], np.float32
    ) * np.float32(map_size / image_size)


def draw_maps(landmarks, aus, image_size, map_size):
    """(A, M, M), point by point."""
    half = round((map_size - 1) / 2 * 0.14)
    maps = np.zeros((len(aus), map_size, map_size))
    for drawn, pair in zip(maps, centres(landmarks, aus, image_size, map_size), strict=True):
        for x, y in np.rint(pair).astype(int).tolist():
            top, bottom, left, right = (
                min(max(edge, 0), map_size - 1) for edge in (y - half, y + half, x - half, x + half)
            )
            for i in range(top, bottom + 1):
                for j in range(left, right + 1):
                    weight = 1 - (abs(i - y) + abs(j - x)) * 0.56 / (map_size * 0.14)
                    drawn[i, j] = max(weight, drawn[i, j])
    return torch.from_numpy(maps).float()


class Network:
    """The six modules with weights at no neutral value, and what they compute together."""

    def __init__(self, aus, *, journal=False, c=1, d=10, image_size=80, seed=0):
        torch.manual_seed(seed)
        self.aus, self.journal, self.c, self.d = aus, journal, c, d
        self.image_size, self.side = image_size, image_size // 32
        flat = 20 * c * self.side**2
        self.modules = {
            "region_learning": Regions(c),
            "align_net": Align(c, d, flat),
            "local_attention_refine": Refine(c, len(aus)),
            "local_au_net": Local(c, len(aus), flat, journal),
            "global_au_feat": Stack(c),
            "au_net": Head(d, len(aus), flat),
        }
        with torch.no_grad():
            self.modules["align_net"].align_output[1].bias.copy_(self.face().flatten())
            # Fresh weights let landmarks and refined maps differ too little.
            self.modules["align_net"].align_output[1].weight.mul_(10)
            for branch in self.modules["local_attention_refine"].local_aus_attention:
                branch[9].weight.mul_(4)
        self.draw_norms()

    @torch.no_grad()
    def draw_norms(self):
        """Statistics near those of images: any others would leave nothing of an image after a few layers."""
        norms = [m for module in self.modules.values() for m in module.modules()]
        norms = [layer for layer in norms if isinstance(layer, nn.BatchNorm2d)]
        for layer in norms:
            layer.weight.uniform_(0.7, 1.3)
            layer.bias.normal_(0, 0.3)
            layer.momentum = 1.0
        self(self.images(4, seed=99))
        for count, layer in enumerate(norms):
            layer.running_mean.add_(0.3 * layer.running_var.sqrt() * torch.randn(layer.num_features))
            layer.running_var.mul_(torch.empty(layer.num_features).uniform_(0.6, 1.6))
            layer.num_batches_tracked.fill_(count)
        for module in self.modules.values():
            module.eval()

    def face(self):
        """Landmarks on the image, about as on a face: the rules' points apart from each other."""
        x, y = torch.empty(49), torch.empty(49)
        x[:10], y[:10] = torch.linspace(0.15, 0.85, 10), 0.3
        x[10:19], y[10:19] = torch.linspace(0.4, 0.6, 9), torch.linspace(0.4, 0.6, 9)
        x[19:25], y[19:25] = torch.tensor([0.2, 0.25, 0.32, 0.38, 0.32, 0.25]), 0.4
        x[25:31], y[25:31] = torch.tensor([0.62, 0.68, 0.75, 0.8, 0.75, 0.68]), 0.41
        x[31:38], y[31:38] = torch.linspace(0.3, 0.7, 7), 0.76
        x[38:49], y[38:49] = torch.linspace(0.65, 0.35, 11), 0.83
        return torch.stack([x, y], 1) * self.image_size

    @torch.no_grad()
    def __call__(self, image):
        """Landmarks, initial, target and refined maps, logits (N, 2, A) and local logits or None."""
        modules = self.modules
        pool2 = modules["region_learning"](image)
        align_features = modules["align_net"].align_feat(pool2)
        landmarks = modules["align_net"].align_output(align_features.flatten(1)).view(-1, 49, 2)
        m = self.image_size // 4
        initial = torch.stack([draw_maps(face, self.aus, self.image_size, m + 8) for face in landmarks])
        scale = np.float32((m + 8) / m)  # PyTorch's: 11 * 52 / 44 is 12.99… and no 13
        nearest = [math.floor(np.float32(i) * scale) for i in range(m)]
        target = initial[:, :, nearest][:, :, :, nearest]
        refine = modules["local_attention_refine"].local_aus_attention
        refined = torch.cat([refine[i](initial[:, i : i + 1]) for i in range(len(self.aus))], 1)
        branches = modules["local_au_net"].local_aus_branch
        local = [branches[i](pool2 * refined[:, i : i + 1]) for i in range(len(self.aus))]
        features = torch.cat([align_features, modules["global_au_feat"](pool2), sum(local) / len(local)], 1)
        logits = modules["au_net"].au_output(features.flatten(1)).view(len(image), 2, len(self.aus))
        local_logits = None
        if self.journal:
            heads = modules["local_au_net"].local_aus_output
            local_logits = torch.stack([heads[i](local[i].flatten(1)) for i in range(len(local))], 2)
        return landmarks, initial, target, refined, logits, local_logits

    def images(self, count=3, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, self.image_size, self.image_size, generator=generator)

    def save(self, folder, epoch=5, **how):
        folder.mkdir(exist_ok=True)
        for name, module in self.modules.items():
            torch.save(module.state_dict(), folder / f"{name}_{epoch}.pth", **how)
        return folder


def check_same(network, model, images):
    output = model(images)
    landmarks, initial, target, refined, logits, local_logits = network(images)
    m = network.image_size // 4 + 8
    for face in landmarks:
        rest = centres(face, network.aus, network.image_size, m) % 1
        assert (np.abs(rest - 0.5) > 1e-4).all(), "may round either way: choose other images"
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(output.landmarks, landmarks, **near)
    torch.testing.assert_close(output.initial_maps, initial, **near)
    torch.testing.assert_close(output.target_maps, target, **near)
    torch.testing.assert_close(output.refined_maps, refined, **near)
    torch.testing.assert_close(output.logits, logits, **near)
    present = logits[:, 1].exp() / logits.exp().sum(1)
    torch.testing.assert_close(output.probabilities, present, **near)
    if network.journal:
        torch.testing.assert_close(output.local_logits, local_logits, **near)
    else:
        assert output.local_logits is None
    # All of this would hold of networks that compute nothing.
    assert present.std(1).min() > 0.05
    if len(images) > 1:
        assert landmarks.std(0).min() > 0.05 and present.std(0).min() > 0.005
    assert local_logits is None or local_logits.std((0, 2)).min() > 0.05
    assert initial.flatten(2).amax(2).min() > 0.5
    assert refined.std((2, 3)).min() > 0.02
    for i, au in enumerate(network.aus):
        for j, other in enumerate(network.aus[:i]):
            assert (refined[:, i] - refined[:, j]).abs().amax() > 0.05
            same_place = {au, other} <= {12, 14, 15} or {au, other} <= {23, 24, 25} or {au, other} == {17, 26}
            assert torch.equal(initial[:, i], initial[:, j]) == same_place


@pytest.mark.parametrize("journal", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("aus", AUS.values(), ids=AUS)
def test_imported_weights_compute_what_the_authors_network_computes(tmp_path, aus, journal):
    c, d = (2, 7) if journal else (1, 64)
    network = Network(aus, journal=journal, c=c, d=d)
    model = import_weights(network.save(tmp_path / "weights"), 5)
    preset = JAANetConfig.journal if journal else JAANetConfig.released
    hidden_size = None if d == 64 * c else d
    assert model.config == preset(aus, image_size=80, width=c, hidden_size=hidden_size)
    assert model.note == (
        "weights of the authors of JAA-Net, imported from weights epoch 5, for non-commercial use"
    )
    assert not model.training
    assert all(p.requires_grad and not p.is_meta and p.dtype == torch.float32 for p in model.parameters())
    check_same(network, model, network.images())


def test_the_published_size(tmp_path):
    network = Network(facs.BP4D_AUS, c=8, d=512, image_size=176)
    counts = {name: len(module.state_dict()) for name, module in network.modules.items()}
    assert counts == TENSORS
    assert round(sum(p.numel() for m in network.modules.values() for p in m.parameters()) / 1e6, 1) == 22.2
    model = import_weights(network.save(tmp_path), 5)
    assert model.config == JAANetConfig.released(facs.BP4D_AUS)
    check_same(network, model, network.images(1))


def test_the_other_published_side(tmp_path):
    network = Network(facs.BP4D_AUS, journal=True, image_size=112)
    assert len(network.modules["local_au_net"].state_dict()) == 552
    model = import_weights(network.save(tmp_path), 5)
    assert model.config.image_size == 112
    check_same(network, model, network.images())


def test_counts_of_batches_become_the_largest(tmp_path):
    model = import_weights(Network(facs.DISFA_AUS).save(tmp_path), 5)
    state = Network(facs.DISFA_AUS).modules["region_learning"].state_dict()
    counts = [state[f"multiscale_feat.2.local_conv_branch2.bns.{p}.num_batches_tracked"] for p in range(16)]
    assert len(set(map(int, counts))) == 16
    assert model.state_dict()["region_learning.2.region4.0.num_batches_tracked"] == max(counts)


def test_other_ways_of_saving(tmp_path):
    """Old files are no zip archives; nn.DataParallel puts "module." before every name."""
    network = Network(facs.DISFA_AUS)
    want = import_weights(network.save(tmp_path / "new"), 5).state_dict()
    network.save(tmp_path / "old", _use_new_zipfile_serialization=False)
    parallel = tmp_path / "parallel"
    parallel.mkdir()
    for name, module in network.modules.items():
        state = module.state_dict()
        torch.save({f"module.{key}": tensor for key, tensor in state.items()}, parallel / f"{name}_5.pth")
    assert (tmp_path / "old" / "au_net_5.pth").read_bytes()[:2] != b"PK"
    for folder in ("old", "parallel"):
        got = import_weights(tmp_path / folder, 5).state_dict()
        assert got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


def test_doubles_become_floats(tmp_path):
    network = Network(facs.DISFA_AUS)
    for module in network.modules.values():
        module.double()
    model = import_weights(network.save(tmp_path), 5)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.int64}


def test_imported_and_saved(tmp_path):
    network = Network(facs.GFT_AUS, journal=True)
    model = import_weights(str(network.save(tmp_path)), 5)
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    loaded = load_model(path)
    assert loaded.config == model.config and loaded.note == model.note != ""
    images = network.images()
    ours, theirs = vars(loaded(images)), vars(model(images))
    assert ours.pop("intensities") is None and theirs.pop("intensities") is None
    for got, want in zip(ours.values(), theirs.values(), strict=True):
        assert torch.equal(got, want)
    loaded.train()(images).logits.sum().backward()


# What does not fit.


@pytest.fixture(scope="module")
def network():
    return Network(facs.DISFA_AUS, journal=True)


@pytest.fixture
def folder(network, tmp_path):
    return network.save(tmp_path / "weights")


def change(folder, module, edit):
    path = folder / f"{module}_5.pth"
    state = torch.load(path)
    edit(state)
    torch.save(state, path)


def refuse(folder, text):
    """It is refused in a sentence that begins with a file's name and goes on like ``text``."""
    with pytest.raises(ValueError) as caught:
        import_weights(folder, 5)
    assert str(caught.value) == f"{folder}/{text}"


LAST = {  # of each module, a tensor of the last cell or AU, and one that tells a size
    "region_learning": (
        "multiscale_feat.2.local_conv_branch1.convs.63.weight",
        "multiscale_feat.0.bn.weight",
    ),
    "align_net": ("align_feat.feat_extract.18.running_var", "align_output.0.bias"),
    "local_attention_refine": ("local_aus_attention.7.9.bias", "local_aus_attention.7.0.weight"),
    "local_au_net": ("local_aus_branch.7.feat_extract.4.num_batches_tracked", "local_aus_output.7.1.bias"),
    "global_au_feat": ("feat_extract.0.weight", "feat_extract.1.weight"),
    "au_net": ("au_output.1.bias", "au_output.0.weight"),
}
EACH = [(module, name) for module, names in LAST.items() for name in names]


@pytest.mark.parametrize(("module", "name"), [*EACH, ("align_net", "align_output.0.weight")])
def test_a_tensor_is_missing(folder, module, name):
    change(folder, module, lambda state: state.pop(name))
    refuse(folder, f"{module}_5.pth: missing tensor {name!r}")


@pytest.mark.parametrize(("module", "name"), [*EACH, ("align_net", "align_output.0.weight")])
def test_a_tensor_has_another_shape(network, folder, module, name):
    shape = list(network.modules[module].state_dict()[name].shape)
    other = [shape[0] + 4, *shape[1:]] if shape else [1]
    change(folder, module, lambda state: state.update({name: torch.zeros(other)}))
    refuse(folder, f"{module}_5.pth: tensor {name!r} must be {shape}, got {other}")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("region_learning", "multiscale_feat.0.local_conv_branch3.convs.4.bias"),
        ("align_net", "align_output.2.bias"),
        ("local_attention_refine", "local_aus_attention.8.0.weight"),
        ("local_au_net", "local_aus_branch.8.feat_extract.0.weight"),
        ("global_au_feat", "module.feat_extract.0.weight"),
        ("au_net", "weight"),
    ],
)
def test_a_tensor_too_many(folder, module, name):
    change(folder, module, lambda state: state.update({name: torch.zeros(2)}))
    refuse(folder, f"{module}_5.pth: unexpected tensor {name!r}")


def test_several_are_counted(folder):
    change(folder, "au_net", lambda state: state.clear())
    refuse(folder, "au_net_5.pth: missing tensor 'au_output.0.bias' and 3 more")


def test_files_of_another_network(folder):
    for module in TENSORS:
        torch.save({"fc.weight": torch.zeros(2, 2)}, folder / f"{module}_5.pth")
    refuse(
        folder,
        "region_learning_5.pth: tensor 'multiscale_feat.0.bn.weight' is missing or is none of JAA-Net",
    )


def test_files_of_different_data_sets(folder, tmp_path):
    Network(facs.BP4D_AUS, journal=True).save(tmp_path / "bp4d")
    (tmp_path / "bp4d" / "local_au_net_5.pth").replace(folder / "local_au_net_5.pth")
    name = "local_aus_branch.10.feat_extract.0.bias"
    refuse(folder, f"local_au_net_5.pth: unexpected tensor {name!r} and {4 * 46 - 1} more")


def test_an_unknown_number_of_aus(tmp_path):
    Network((1, 2, 4)).save(tmp_path)
    refuse(
        tmp_path,
        "au_net_5.pth: tensor 'au_output.1.bias' must be for 8, 10 or 12 AUs (DISFA, GFT, BP4D), got 3",
    )


def test_too_small_an_image(tmp_path):
    network = Network(facs.DISFA_AUS, image_size=32)
    with pytest.raises(ValueError, match=rf"^{tmp_path}: JAANetConfig: image_size must be .* got 48$"):
        import_weights(network.save(tmp_path), 5)


class Code:
    def __reduce__(self):
        return print, ("code of a checkpoint has run",)


NOT_TENSORS = "not a checkpoint of tensors alone: it is damaged, or holds code, which is never run"


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_not_run(folder, network, capsys, zipped):
    path = folder / "align_net_5.pth"
    state = {**network.modules["align_net"].state_dict(), "x": Code()}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    torch.load(path, weights_only=False)
    assert "has run" in capsys.readouterr().out
    refuse(folder, f"align_net_5.pth: {NOT_TENSORS}")
    path.write_bytes(pickle.dumps(Code(), protocol=2))
    refuse(folder, f"align_net_5.pth: {NOT_TENSORS}")
    torch.save(network.modules["align_net"], path)
    refuse(folder, f"align_net_5.pth: {NOT_TENSORS}")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"no pickle at all", bytes(100), b"\x80\x02}q\x00", b"PK\x03\x04"])
def test_no_checkpoint(folder, content):
    (folder / "local_au_net_5.pth").write_bytes(content)
    refuse(folder, f"local_au_net_5.pth: {NOT_TENSORS}")


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_off_files(folder, network, zipped):
    network.save(folder, _use_new_zipfile_serialization=zipped)
    path = folder / "align_net_5.pth"
    whole = path.read_bytes()
    for share in (0.01, 0.3, 0.7, 0.999):
        path.write_bytes(whole[: math.ceil(share * len(whole))])
        refuse(folder, f"align_net_5.pth: {NOT_TENSORS}")


def test_no_state_dict(folder):
    torch.save([torch.zeros(2)], folder / "au_net_5.pth")
    refuse(folder, "au_net_5.pth: must hold a state dict (names and tensors), got list")
    torch.save({"epoch": 5}, folder / "au_net_5.pth")
    refuse(folder, "au_net_5.pth: entry 'epoch' must be a tensor, got int")


def other_kinds(tensor):
    """Tensors of the same name that are no weights, or not ours."""
    shape = list(tensor.shape)
    spoilt = tensor.clone()
    spoilt.view(-1)[0] = math.nan
    return {
        "must be float32, got int32": tensor.int(),
        "must be float32, got complex64": tensor.to(torch.complex64),
        "must be float32, got float8_e4m3fn": tensor.to(torch.float8_e4m3fn),
        f"has 1 of {tensor.numel()} values that are not finite": spoilt,
        "must be a tensor, got Tensor": tensor.to_sparse(),
        "must be a tensor, got list": [tensor],
        f"must be {shape}, got [{2**40}]": torch.zeros(1).expand(2**40),
    }


@pytest.mark.parametrize("kind", range(7))
def test_tensors_of_other_kinds(folder, network, kind):
    name = "au_output.0.weight"
    tensor = network.modules["au_net"].state_dict()[name]
    message, other = list(other_kinds(tensor).items())[kind]
    change(folder, "au_net", lambda state: state.update({name: other}))
    what = "entry" if "a tensor" in message else "tensor"
    refuse(folder, f"au_net_5.pth: {what} {name!r} {message}")


def test_doubles_that_no_float_holds(folder, network):
    huge = torch.full((16,), 1e300, dtype=torch.float64)
    change(folder, "au_net", lambda state: state.update({"au_output.1.bias": huge}))
    with pytest.raises(ValueError, match=r"tensor 'au_head\.1\.bias' has 16 of 16 values that are"):
        import_weights(folder, 5)


def test_a_changed_bit_is_seen(folder, network):
    """In an archive of torch.save, which has checksums that torch itself does not look at."""
    path = folder / "au_net_5.pth"
    content = bytearray(path.read_bytes())
    weight = network.modules["au_net"].state_dict()["au_output.0.weight"].numpy().tobytes()
    content[content.index(weight) + 9] ^= 1
    path.write_bytes(content)
    refuse(folder, f"au_net_5.pth: {NOT_TENSORS}")


def test_what_unpacks_to_more_than_the_file_is_refused(folder):
    path = folder / "au_net_5.pth"
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
        archive.writestr("au_net_5/data/99", bytes(2**24))
    refuse(folder, f"au_net_5.pth: {NOT_TENSORS}")


def test_another_epoch(folder, network):
    network.save(folder, epoch=12)
    with pytest.raises(FileNotFoundError, match=rf"{folder / 'region_learning_6.pth'} .*there: 5, 12\)"):
        import_weights(folder, 6)


def test_a_file_is_missing(folder):
    (folder / "au_net_5.pth").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{folder / 'au_net_5.pth'} .*there: none\)"):
        import_weights(folder, 5)


def test_epochs(folder, network):
    network.save(folder, epoch=12)
    network.save(folder, epoch=0)
    network.save(folder, epoch=7)
    (folder / "local_au_net_7.pth").unlink()
    (folder / "region_learning_x.pth").touch()
    assert find_epochs(folder) == [0, 5, 12]
    with pytest.raises(FileNotFoundError, match=r"^no such folder: .*nowhere$"):
        find_epochs(folder / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"^no such folder: .*nowhere$"):
        import_weights(folder / "nowhere", 5)


def test_the_note_names_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert "imported from weights epoch 5" in import_weights(".", 5).note


def test_nothing_is_drawn_from_the_random_generator(folder):
    before = torch.get_rng_state()
    import_weights(folder, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_networks_here_pad_as_convolutions_do():
    """The cells above against one ordinary convolution a cell over zeros written out."""
    torch.manual_seed(0)
    cells = Cells(2, 3, 2).eval()
    x = torch.randn(1, 2, 8, 8)
    padded = F.pad(x[:, :, 4:, :4].relu(), (1, 1, 1, 1))
    for layer in cells.bns:
        layer.eps = 0.0
    want = F.conv2d(padded, cells.convs[2].weight, cells.convs[2].bias)
    torch.testing.assert_close(cells(x)[:, :, 4:, :4], want)
