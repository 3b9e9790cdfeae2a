"""JAA-Net written out in plain loops, and its parameters counted: what tests compare the models with."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from jaa_ext import facs
from jaa_ext.models import JAAOutput


def count_parameters(config):
    def conv(i, o):
        return 9 * i * o + o

    def linear(i, o):
        return i * o + o

    def stack(i):
        total = 0
        for o in (12 * c, 16 * c, 20 * c):
            total += conv(i, o) + 2 * o + conv(o, o) + 2 * o
            i = o
        return total

    def region(i, c1):
        if config.region == "R":
            norms = 64 * 2 * 4 * c1
            return conv(i, 4 * c1) + norms + 9216 * c1**2 + 256 * c1 + 2 * 4 * c1
        norms = 64 * 2 * 4 * c1 + 16 * 2 * 2 * c1 + 4 * 2 * c1
        return conv(i, 4 * c1) + norms + 4932 * c1**2 + 148 * c1 + 2 * 4 * c1

    c, a = config.width, len(config.aus)
    d = config.hidden_size or 64 * c
    flat = 20 * c * (config.image_size // 32) ** 2
    total = {"region_learning": region(3, c) + region(4 * c, 2 * c)}
    total["alignment"] = (stack(8 * c) + linear(flat, d) + linear(d, 98)) * config.alignment
    total["global_features"] = stack(8 * c) * config.global_features
    refinement = conv(1, 8 * c) + 2 * conv(8 * c, 8 * c) + 3 * 2 * 8 * c + conv(8 * c, 1)
    local_head = linear(flat, 8 * c) + linear(8 * c, 2) + 8 * c * config.intensity
    branch = stack(8 * c) + refinement * config.refinement + local_head * config.local_loss
    total["attention"] = a * branch * config.attention
    parts = config.alignment + config.global_features + config.attention
    head = linear(parts * flat, d) + linear(d, 2 * a) + linear(d, a) * config.intensity
    total["au_head"] = head * config.au_detection
    return total


class Plain:
    """JAA-Net one image region, one AU and one branch at a time, from the facts of the papers."""

    def __init__(self, model, training):
        self.config = model.config
        self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.training = training

    def conv(self, x, name, rows=None, cell=None, padding=1):
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        if cell is not None:
            weight, bias = weight[cell], bias[cell]
        if rows is not None:
            k = len(weight) // len(self.config.aus)
            weight, bias = weight[rows * k : (rows + 1) * k], bias[rows * k : (rows + 1) * k]
        return F.conv2d(x, weight, bias, padding=padding)

    def norm(self, x, name, rows=None, cell=None):
        weight, bias, mean, var = (
            self.state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        if cell is not None:
            weight, bias, mean, var = weight[cell], bias[cell], mean[cell], var[cell]
        if rows is not None:
            k = len(weight) // len(self.config.aus)
            weight, bias, mean, var = (t[rows * k : (rows + 1) * k] for t in (weight, bias, mean, var))
        if self.training:
            mean = x.mean((0, 2, 3))
            var = (x - mean[None, :, None, None]).square().mean((0, 2, 3))
        scale = weight / (var + 1e-5).sqrt()
        return (x - mean[None, :, None, None]) * scale[None, :, None, None] + bias[None, :, None, None]

    def linear(self, x, name):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def region(self, x, name, grid):
        step = x.shape[2] // grid
        rows = []
        for i in range(grid):
            cells = []
            for j in range(grid):
                cell = x[:, :, i * step : (i + 1) * step, j * step : (j + 1) * step]
                cell = self.norm(cell, f"{name}.0", cell=(i, j)).relu()
                cells.append(self.conv(cell, f"{name}.2", cell=(i, j)))
            rows.append(torch.cat(cells, 3))
        return torch.cat(rows, 2)

    def block(self, x, name):
        x = self.conv(x, f"{name}.conv")
        b1 = self.region(x, f"{name}.region8", 8)
        b2 = self.region(b1, f"{name}.region4", 4)
        b3 = self.region(b2, f"{name}.region2", 2)
        return self.norm(x + torch.cat((b1, b2, b3), 1), f"{name}.bn").relu()

    def stack(self, x, name, rows=None):
        for first in (0, 7, 14):
            for i in (first, first + 3):
                x = self.norm(self.conv(x, f"{name}.{i}", rows), f"{name}.{i + 1}", rows).relu()
            x = F.max_pool2d(x, 2)
        return x

    def draw(self, landmarks, size):
        n, config = len(landmarks), self.config
        maps = np.zeros((n, len(config.aus), size, size))
        half = round((size - 1) / 2 * config.roi_ratio)
        for k in range(n):
            x, y = landmarks[k].T.tolist()
            r = abs(x[22] - x[25])
            for a, au in enumerate(config.aus):
                rule = facs.AU_RULES[au]
                for point in rule.points:
                    cx = round(x[point] * size / config.image_size)
                    cy = round((y[point] + rule.dy * r) * size / config.image_size)
                    left, right = np.clip([cx - half, cx + half], 0, size - 1)
                    top, bottom = np.clip([cy - half, cy + half], 0, size - 1)
                    for row in range(top, bottom + 1):
                        for column in range(left, right + 1):
                            distance = abs(row - cy) + abs(column - cx)
                            value = max(1 - distance * config.decay / (size * config.roi_ratio), 0)
                            maps[k, a, row, column] = max(maps[k, a, row, column], value)
        return torch.from_numpy(maps)

    def zoom(self, x, new):
        """Bilinear between pixel centres, as a matrix for rows and columns."""
        old = x.shape[-1]
        matrix = torch.zeros(new, old, dtype=x.dtype)
        for i in range(new):
            source = max((i + 0.5) * old / new - 0.5, 0)
            low = math.floor(source)
            matrix[i, low] += 1 - (source - low)
            matrix[i, min(low + 1, old - 1)] += source - low
        return matrix @ x @ matrix.T

    def remove_padding(self, x):
        side = x.shape[-1]
        return self.zoom(x, side + 6)[:, :, 3 : 3 + side, 3 : 3 + side]

    def maps(self, landmarks):
        side = self.config.image_size // 4
        if self.config.padding_removal:
            target = self.remove_padding(self.draw(landmarks, side))
            return self.zoom(target, side + 8), target
        initial = self.draw(landmarks, side + 8)
        if self.config.target_maps == "drawn":
            return initial, self.draw(landmarks, side)
        nearest = [math.floor(i * (side + 8) / side) for i in range(side)]
        return initial, initial[:, :, nearest][:, :, :, nearest]

    def refine(self, x, au):
        name = "attention.refinement"
        for i in (0, 3, 6):
            x = self.conv(x, f"{name}.{i}", au, padding=0)
            x = self.norm(x, f"{name}.{i + 1}", au).relu()
        return 1 / (1 + torch.exp(-self.conv(x, f"{name}.9", au, padding=0)))

    def local_head(self, x, au):
        """Logits of an AU, and what enters the logit of its intensity."""
        for i in (0, 1):
            weight, bias = (self.state[f"attention.local_head.{i}.{part}"] for part in ("weight", "bias"))
            k = len(weight) // len(self.config.aus)
            embedding, x = x, x @ weight[au * k : (au + 1) * k, :, 0].T + bias[au * k : (au + 1) * k]
        if not self.config.intensity:
            return x, None
        return x, embedding @ self.state["attention.local_intensity.weight"][au, :, 0]

    def join(self, local):
        return sum(local) / (1 if self.config.local_pooling == "sum" else len(local))

    def forward(self, image):
        config, output = self.config, self.forward_once(image)
        if self.training:
            return output
        if config.mirror:
            mirrored = self.forward_once(image.flip(3))
            points = torch.empty_like(mirrored.landmarks)
            for i, j in enumerate(facs.FLIP):
                points[:, i, 0] = config.image_size - 1 - mirrored.landmarks[:, j, 0]
                points[:, i, 1] = mirrored.landmarks[:, j, 1]
            mirrored.landmarks = points
            for name in ("logits", "landmarks", "intensities", "local_logits"):
                if getattr(output, name) is not None:
                    setattr(output, name, (getattr(output, name) + getattr(mirrored, name)) / 2)
        if config.average_heads:
            output.logits = (output.logits + output.local_logits) / 2
        return output

    def forward_once(self, image):
        config = self.config
        pool1 = F.max_pool2d(self.block(image, "region_learning.0"), 2)
        pool2 = F.max_pool2d(self.block(pool1, "region_learning.2"), 2)
        aligned = self.stack(pool2, "alignment.features")
        coordinates = self.linear(
            self.linear(aligned.flatten(1), "alignment.embedding"), "alignment.landmarks"
        )
        landmarks = torch.stack((coordinates[:, 0::2], coordinates[:, 1::2]), 2)
        initial, target = self.maps(landmarks)
        local_input = self.remove_padding(pool2) if config.padding_removal else pool2
        refined, local, local_logits, local_intensities = [], [], [], []
        for au in range(len(config.aus)):
            attention = target[:, au : au + 1]
            if config.refinement:
                attention = self.refine(initial[:, au : au + 1], au)
                refined.append(attention)
            local.append(self.stack(local_input * attention, "attention.local_features.stack", au))
            if config.local_loss:
                logits, intensity = self.local_head(local[-1].flatten(1), au)
                local_logits.append(logits)
                local_intensities.append(intensity)
        parts = (aligned, self.stack(pool2, "global_features"), self.join(local))
        features = torch.cat([part.flatten(1) for part in parts], 1)
        embedding = self.linear(features, "au_head.0")
        logits = self.linear(embedding, "au_head.1")
        aus = len(config.aus)
        intensities = None
        if config.intensity:
            intensities = self.linear(embedding, "au_head.intensity.linear")
            if config.local_loss:
                intensities = intensities + torch.stack(local_intensities, 1)
            intensities = 5 / (1 + (-intensities).exp())
            intensities[:, ~self.state["au_head.intensity.rated"]] = torch.nan
        return JAAOutput(
            logits=torch.stack((logits[:, :aus], logits[:, aus:]), 1),
            landmarks=landmarks,
            initial_maps=initial,
            target_maps=target,
            refined_maps=torch.cat(refined, 1) if refined else None,
            local_logits=torch.stack(local_logits, 2) if local_logits else None,
            intensities=intensities,
        )


class PlainGraph(Plain):
    """With a graph over AUs: one face, one AU and one layer at a time."""

    def join(self, local):
        aus, adjacency = range(len(local)), self.state["graph.adjacency"]
        nodes = [part.flatten(1) for part in local]
        for k in range(len(self.config.graph_widths)):
            weight = self.state[f"graph.layers.{k}.weight"]
            heard = [[nodes[j] for j in aus if adjacency[i, j] == 1 and j != i] for i in aus]
            share = self.config.neighbor_share
            nodes = [
                (1 - share) * nodes[i] + share * sum(heard[i]) / len(heard[i]) if heard[i] else nodes[i]
                for i in aus
            ]
            nodes = [node @ weight.T for node in nodes]
            if k + 1 < len(self.config.graph_widths):
                nodes = [node * (node > 0) for node in nodes]
        return torch.cat(nodes, 1)


def check_fused(model, image, autocast):
    """See that a fused model computes what the model does, and leaves it as it is; returns the fused one."""
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fused = model.fuse()
    with torch.no_grad():
        exact = model(image)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            want, got = model(image), fused(image)
    for field, c in vars(exact).items():
        a, b = getattr(got, field), getattr(want, field)
        assert (a is None) == (b is None) == (c is None), field
        if c is None:
            continue
        assert a.dtype == b.dtype, field
        if autocast:
            # The folded weights round elsewhere: at most twice as far from float32's results as the model by
            # all numbers together; of the few largest errors chance decides.
            assert (a - c).norm() <= 2 * (b - c).norm() + 1e-5 * c.norm(), field
        else:
            torch.testing.assert_close(a, c, rtol=0, atol=1e-5 * c.abs().max().item(), msg=field)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]), f"fusing changed the model: {key}"
    return fused
