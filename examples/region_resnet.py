"""A small ResNet in which each part of the face has filters of its own.

`jaa_ext.nn.RegionConv2d` takes the place of `nn.Conv2d` wherever the output is as large as the input. Here it
makes the first stage of a residual network that detects facial action units (AUs); ``border="image"`` lets
its filters read across the borders of their cells. The same network with `nn.Conv2d` there trains beside it,
on the same faces in the same order; both are tested on drawn people whom they have never seen. The region
network does the same arithmetic with more parameters.

    python examples/region_resnet.py
"""

import argparse

import torch
from torch import Tensor, nn

from jaa_ext.data import SyntheticFaces, normalize
from jaa_ext.nn import RegionConv2d, SoftmaxDiceLoss, au_weights

AUS = (1, 2, 4, 6, 12, 15, 17, 25)


class Block(nn.Module):
    """A residual block, (N, width, H, W) -> the same; `conv` makes its two convolutions."""

    def __init__(self, width: int, conv) -> None:
        super().__init__()
        parts = [[nn.BatchNorm2d(width), nn.ReLU(), conv(width, width)] for _ in range(2)]
        self.residual = nn.Sequential(*parts[0], *parts[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


def plain(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(before, after, kernel_size=3, padding=1, stride=stride)


def region(before: int, after: int) -> nn.Module:
    return RegionConv2d(before, after, kernel_size=3, grid=4, border="image")


def resnet(first) -> nn.Module:
    """(N, 3, 64, 64) -> logits (N, 2, A), of which index 1 is "present"; `first` makes the first stage."""
    return nn.Sequential(
        *(plain(3, 16, stride=2), Block(16, first)),  # 32 x 32 pixels
        *(plain(16, 32, stride=2), Block(32, plain)),  # 16 x 16
        *(plain(32, 64, stride=2), Block(64, plain)),  # 8 x 8
        *(nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        *(nn.Linear(4 * 64, 2 * len(AUS)), nn.Unflatten(1, (2, len(AUS)))),
    )


def load(subjects: range, each: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 64, 64) in -1..1 and labels (N, A) of 0 and 1."""
    faces = SyntheticFaces(subjects=subjects, samples_per_subject=each, size=64, aus=AUS)
    images = torch.stack([torch.from_numpy(face.image).permute(2, 0, 1) for face in faces])
    return normalize(images), torch.from_numpy(faces.label_matrix())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--faces", type=int, default=1600, help="to train on, of 40 people")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    images, labels = load(range(40), max(options.faces // 40, 1))
    new_images, new_labels = load(range(100, 120), max(options.faces // 80, 1))
    criterion = SoftmaxDiceLoss(au_weights(labels))
    for name, first in (("nn.Conv2d", plain), ("RegionConv2d", region)):
        torch.manual_seed(options.seed)
        model, losses = resnet(first), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
        order = torch.Generator().manual_seed(options.seed)
        for _ in range(options.steps):
            batch = torch.randint(len(images), (32,), generator=order)
            loss = sum(criterion(model(images[batch]), labels[batch]))  # softmax + Dice
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())

        with torch.no_grad():
            said = model.eval()(new_images).argmax(1)
        f1 = 2 * (said * new_labels).sum(0) / (said + new_labels).sum(0).clamp_min(1)  # of each AU
        size = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name:12}  loss {losses[0]:.3f} -> {losses[-1]:.3f}  F1 {100 * f1.mean():.1f} %", end="  ")
        print(f"{size:,} parameters", flush=True)


if __name__ == "__main__":
    main()
