"""What a linear classifier reaches on the demo's data: multinomial logistic regression on raw pixels.

Trained to convergence (L-BFGS, float64) on the demo's own training images for several strengths of L2; the
strength is chosen on a held-out tenth of the training images, never on the test set. Prints test accuracy.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from harness.commands.workspace import build_catalogue
from harness.data import DATASETS, load
from harness.study.expand import load_study

STUDY = Path(__file__).resolve().parents[1] / "studies" / "bag_of_tricks.yaml"
STRENGTHS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)  # weight of ||W||^2 / 2 beside the mean cross entropy


def fit(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """Weights (pixels + 1, classes) that minimise mean cross entropy + strength / 2 ||W||^2."""
    weights = torch.zeros(x.shape[1], 10, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(x @ weights, y) + strength / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


def accuracy_pct(weights: Tensor, x: Tensor, y: Tensor) -> float:
    return 100 * float(((x @ weights).argmax(1) == y).double().mean())


def pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (N, C * H * W + 1), the last column 1."""
    flat = images.flatten(1).double()
    return torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], 1)


def main() -> None:
    name = "fashion_mnist"
    mini = load_study(STUDY, build_catalogue(Path("data"))).file.sizes["mini"]
    counts = {"train_images": mini.train_images, "test_images": mini.test_images}
    data = load(name, DATASETS[name].args, **counts, data_dir=Path("data"))
    parts = []
    for split in (data.train, data.test):
        every = torch.arange(len(split.labels))
        sizes = split.images.sizes(every)
        boxes = torch.cat([torch.zeros_like(sizes), sizes], 1)
        parts.append((pixels(split.images.crop_resize(every, boxes, 28)), split.labels))
    (x, y), (x_test, y_test) = parts
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    held, kept = order[: len(y) // 10], order[len(y) // 10 :]
    scores = {s: accuracy_pct(fit(x[kept], y[kept], s), x[held], y[held]) for s in STRENGTHS}
    best = max(scores, key=scores.__getitem__)
    result = accuracy_pct(fit(x, y, best), x_test, y_test)
    images = f"{len(y)} images of {name}, tested on {len(y_test)}"
    print(f"linear classifier on {images}: {result:.2f} % top-1 (L2 {best:g})")


if __name__ == "__main__":
    main()
