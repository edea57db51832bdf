"""One training as a user would write it, with eleven flags: the peer of `bench_engine.py --study`.

    python benchmarks/plain_run.py DATA.npz [--epochs 2] [--cosine] [--mixup 0.2] ... >> results.txt

torchvision's transforms on Pillow's images, a DataLoader in the same process, NCHW, torch.optim.SGD, all test
images after each epoch. Of the harness it has the network alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image

from harness.data.torchvision_import import torchvision
from harness.models import build_model

SIDE, MEAN, STD = 32, (0.286,) * 3, (0.353,) * 3
NETWORK: dict[str, Any] = {"width": 0.25, "depth": [1, 1, 1]}
MILESTONES = (0.25, 0.5, 0.75)  # of the training; the learning rate falls to a tenth at each


def main() -> None:
    options = parsed()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    arrays = np.load(options.data)
    training, test = transforms(options)
    batches = torch.utils.data.DataLoader(
        Photos(arrays["train_images"], arrays["train_labels"], training),
        options.batch_size,
        shuffle=True,
        drop_last=True,
    )
    test_batches = torch.utils.data.DataLoader(
        Photos(arrays["test_images"], arrays["test_labels"], test), 250
    )
    net = build_model("resnet50", {**NETWORK, "zero_gamma": options.zero_gamma}, classes=10)
    net = net.to(memory_format=torch.contiguous_format)
    correct = train(net, options, batches, test_batches)
    print(json.dumps({**vars(options), "top1": 100 * correct / len(arrays["test_labels"])}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--mixup", type=float, default=0.0)
    parser.add_argument("--warmup", type=float, default=0.0, help="share of the training")
    parser.add_argument("--crop-area", type=float, default=0.9, help="least")
    parser.add_argument("--flip", type=float, default=0.5)
    for flag in ("--cosine", "--no-bias-decay", "--zero-gamma"):
        parser.add_argument(flag, action="store_true")
    return parser.parse_args()


def train(net: Any, options: argparse.Namespace, batches: Any, test_batches: Any) -> int:
    """How many test images are right at the end."""
    rng = np.random.default_rng(options.seed)
    optimizer = torch.optim.SGD(groups(net, options), options.lr, momentum=0.9)
    total, correct = options.epochs * len(batches), 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step / total, options))
    for _ in range(options.epochs):
        net.train()
        for images, labels in batches:
            share = rng.beta(options.mixup, options.mixup) if options.mixup else 1.0
            order = torch.randperm(len(images))
            mixed = share * images + (1 - share) * images[order] if options.mixup else images
            out, smoothing = net(mixed), options.label_smoothing
            loss = share * torch.nn.functional.cross_entropy(out, labels, label_smoothing=smoothing)
            if options.mixup:
                other = torch.nn.functional.cross_entropy(out, labels[order], label_smoothing=smoothing)
                loss = loss + (1 - share) * other
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            correct = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in test_batches)
    return correct


def groups(net: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    decayed = [value for value in net.parameters() if value.ndim > 1 or not options.no_bias_decay]
    others = [value for value in net.parameters() if value.ndim <= 1 and options.no_bias_decay]
    return [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def factor(done: float, options: argparse.Namespace) -> float:
    """Of the learning rate, at this share of the training."""
    if done < options.warmup:
        return done / options.warmup
    if options.cosine:
        return 0.5 * (1 + np.cos(np.pi * done))
    return 0.1 ** sum(done >= milestone for milestone in MILESTONES)


class Photos(torch.utils.data.Dataset[Any]):
    """Grey arrays as Pillow's images, in RGB."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Any) -> None:
        self.pictures = [Image.fromarray(each).convert("RGB") for each in images]
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.pictures[index]), self.labels[index]


def transforms(options: argparse.Namespace) -> tuple[Any, Any]:
    """Of training and test images."""
    steps = torchvision.transforms
    last = (steps.ToTensor(), steps.Normalize(MEAN, STD))
    crop = steps.RandomResizedCrop(SIDE, (options.crop_area, 1.0))
    training = steps.Compose([crop, steps.RandomHorizontalFlip(options.flip), *last])
    return training, steps.Compose([steps.Resize((SIDE, SIDE)), *last])


if __name__ == "__main__":
    main()
