"""A U-Net that learns to outline brows, eyes and mouth, by the softmax and Dice losses.

The losses were made for action units, with logits (N, 2, A), but all they ask is that N samples each answer
A questions by yes or no. In segmentation the samples are pixels, N = images * H * W, and the questions are:
is this brow, is this eye, is this mouth? With ``dice="batch"`` the Dice loss is then that of V-Net: the
overlap of each part over all pixels of the batch at once. Brows and mouth are 2.5 % of the pixels each, eyes
1 %: cross entropy alone, trained beside it, can leave them out at little cost; Dice cannot.

    python examples/unet_dice.py

Faces are drawn, outlines made of their landmarks; people tested on were never seen in training.
"""

import argparse

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jaa_ext.data import FaceSample, SyntheticFaces, normalize
from jaa_ext.nn import SoftmaxDiceLoss

PARTS = ("brows", "eyes", "mouth")


def convs(before: int, after: int) -> nn.Module:
    widths = ((before, after), (after, after))
    layers = [[nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()] for a, b in widths]
    return nn.Sequential(*layers[0], *layers[1])


class UNet(nn.Module):
    """(N, 3, H, W), sides multiples of 4 -> logits (N, 2, parts, H, W), of which index 1 is "yes"."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList([convs(3, width), convs(width, 2 * width), convs(2 * width, 4 * width)])
        self.up = nn.ModuleList([convs(6 * width, 2 * width), convs(3 * width, width)])
        self.last = nn.Conv2d(width, 2 * len(PARTS), kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.down[0](image)
        middle = self.down[1](F.max_pool2d(fine, 2))
        x = self.down[2](F.max_pool2d(middle, 2))
        x = self.up[0](torch.cat([F.interpolate(x, scale_factor=2), middle], 1))
        x = self.up[1](torch.cat([F.interpolate(x, scale_factor=2), fine], 1))
        return self.last(x).unflatten(1, (2, len(PARTS)))


def outline(face: FaceSample) -> Tensor:
    """Which pixels belong to which part, (parts, H, W) of 0 and 1."""
    masks = np.zeros((len(PARTS), *face.image.shape[:2]), np.uint8)
    points = face.landmarks.round().astype(np.int32)
    cv2.polylines(masks[0], [points[:5], points[5:10]], isClosed=False, color=1, thickness=2)
    cv2.fillPoly(masks[1], [points[19:25], points[25:31]], 1)
    cv2.fillPoly(masks[2], [points[31:43]], 1)
    return torch.from_numpy(masks).long()


def load(subjects: range, each: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 64, 64) in -1..1 and masks (N, parts, 64, 64) of 0 and 1."""
    faces = list(SyntheticFaces(subjects=subjects, samples_per_subject=each, size=64))
    images = torch.stack([torch.from_numpy(face.image).permute(2, 0, 1) for face in faces])
    return normalize(images), torch.stack([outline(face) for face in faces])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=160, help="scores come after a quarter and at the end")
    parser.add_argument("--faces", type=int, default=600, help="to train on, of 30 people")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    images, masks = load(range(30), max(options.faces // 30, 1))
    new_images, new_masks = load(range(100, 120), max(options.faces // 120, 1))
    criterion = SoftmaxDiceLoss(dice="batch")
    for name, with_dice in (("cross entropy", False), ("with Dice", True)):
        torch.manual_seed(options.seed)
        model, losses = UNet(), []
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
        for step in range(1, options.steps + 1):
            batch = torch.randint(len(images), (16,))
            logits = model(images[batch]).permute(0, 3, 4, 1, 2).flatten(0, 2)  # (pixels, 2, parts)
            softmax, dice = criterion(logits, masks[batch].permute(0, 2, 3, 1).flatten(0, 2))
            loss = softmax + dice if with_dice else softmax
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())

            if step in (options.steps // 4, options.steps):
                with torch.no_grad():
                    said = model.eval()(new_images).argmax(1)
                model.train()
                both, either = (said & new_masks).sum((0, 2, 3)), (said | new_masks).sum((0, 2, 3))
                print(f"{name:13}  step {step:3}  loss {losses[0]:.3f} -> {losses[-1]:.3f}", end="")
                for part, d, i in zip(PARTS, 200 * both / (both + either), 100 * both / either, strict=True):
                    print(f"  {part}: Dice {d:.1f} %, IoU {i:.1f} %", end="")
                print(flush=True)


if __name__ == "__main__":
    main()
