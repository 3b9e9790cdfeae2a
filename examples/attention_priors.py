"""Landmarks tell a plain network where to look: attention maps as priors.

`jaa_ext.ops.attention_maps` draws where on a face each action unit (AU) acts, from 49 landmarks of whatever
origin. Here the maps weigh the last features of an ordinary convolutional network: an AU is judged from the
mean of the features under its map, beside the mean over the whole face. The same network trains three times
on the same faces in the same order, and is tested on drawn people whom it has never seen:

- no priors: maps that are 1 everywhere;
- fixed priors: for each AU the mean map of the faces to train on, for all faces alike;
- own priors: the maps of each face's own landmarks, which are the true ones moved by noise of a pixel, 5 % of
  the distance between the eyes, as a detector might give them.

A mean over the whole face forgets where things were, so the first does badly by design. These faces are
aligned, so that fixed priors can come close to own ones.

    python examples/attention_priors.py
"""

import argparse

import torch
from torch import Tensor, nn

from jaa_ext.data import SyntheticFaces, normalize
from jaa_ext.nn import SoftmaxDiceLoss, au_weights
from jaa_ext.ops import attention_maps

AUS = (1, 2, 4, 6, 12, 15, 17, 25)


class Detector(nn.Module):
    """Images (N, 3, 64, 64) and maps (N, A, 16, 16) -> logits (N, 2, A), of which index 1 is "present"."""

    def __init__(self) -> None:
        super().__init__()
        layers = []
        for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 1), (64, 64, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.backbone = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(2 * 64, 2) for _ in AUS)

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        features = self.backbone(images)
        weights = maps / maps.sum((2, 3), keepdim=True).clamp_min(1e-6)
        under = torch.einsum("nchw,nahw->nac", features, weights)
        everywhere = features.mean((2, 3)).unsqueeze(1).expand_as(under)
        both = torch.cat([under, everywhere], 2)
        return torch.stack([head(both[:, i]) for i, head in enumerate(self.heads)], 2)


def load(subjects: range, each: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 3, 64, 64) in -1..1, maps (N, A, 16, 16) and labels (N, A) of 0 and 1."""
    data = SyntheticFaces(subjects=subjects, samples_per_subject=each, size=64, aus=AUS)
    faces = list(data)
    images = torch.stack([torch.from_numpy(face.image).permute(2, 0, 1) for face in faces])
    landmarks = torch.stack([torch.from_numpy(face.landmarks) for face in faces])
    landmarks += torch.randn(landmarks.shape, generator=torch.Generator().manual_seed(subjects.start))
    maps = attention_maps(landmarks, AUS, image_size=64, map_size=16)
    return normalize(images), maps, torch.from_numpy(data.label_matrix())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--faces", type=int, default=1600, help="to train on, of 40 people")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    images, maps, labels = load(range(40), max(options.faces // 40, 1))
    new_images, new_maps, new_labels = load(range(100, 120), max(options.faces // 80, 1))
    criterion = SoftmaxDiceLoss(au_weights(labels))
    kinds = {
        "no priors": (torch.ones_like(maps), torch.ones_like(new_maps)),
        "fixed priors": (maps.mean(0).expand_as(maps), maps.mean(0).expand_as(new_maps)),
        "own priors": (maps, new_maps),
    }
    for name, (priors, new_priors) in kinds.items():
        torch.manual_seed(options.seed)
        model, losses = Detector(), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
        for _ in range(options.steps):
            batch = torch.randint(len(images), (32,))
            loss = sum(criterion(model(images[batch], priors[batch]), labels[batch]))  # softmax + Dice
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())

        with torch.no_grad():
            said = model.eval()(new_images, new_priors).argmax(1)
        f1 = 2 * (said * new_labels).sum(0) / (said + new_labels).sum(0).clamp_min(1)  # of each AU
        print(f"{name:12}  loss {losses[0]:.3f} -> {losses[-1]:.3f}  F1 {100 * f1.mean():.1f} %", flush=True)


if __name__ == "__main__":
    main()
