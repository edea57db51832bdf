"""Every model through one training step's forward and backward pass, at its paper's input size.

    python benchmarks/forward_backward.py                       on torch's meta device: shapes, no arithmetic
    python benchmarks/forward_backward.py --device cuda         images per second on a GPU, fp32
    python benchmarks/forward_backward.py resnet50 inception_v4 some of them

Ends with 1 where a parameter gets no gradient or a pass fails, after all have run.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from harness.models import MODELS, VARIANTS, build_model, find

CLASSES = 1000
REPEATS = 3


def passes(name: str, *, images: int = 2, device: str = "meta") -> list[str]:
    """One forward and one backward pass in training mode; the parameters that got no gradient.

    Raises:
        ValueError: the answer has another shape than (images, classes).
    """
    import torch

    side = find(name).input_size
    with torch.device(device):
        net = build_model(name, {}, classes=CLASSES, initialisation="own").train()
        batch = torch.empty(images, 3, side, side) if device == "meta" else torch.randn(images, 3, side, side)
    backward(net, batch)
    return [each for each, parameter in net.named_parameters() if parameter.grad is None]


def backward(net: Any, batch: Any) -> None:
    """The sum of every head's logits as the loss."""
    answer = net(batch)
    heads = [answer.logits, *answer.auxiliary] if isinstance(answer, tuple) else [answer]
    shapes = {tuple(head.shape) for head in heads}
    if shapes != {(len(batch), CLASSES)}:
        raise ValueError(f"logits of shapes {shapes}, expected {(len(batch), CLASSES)}")
    sum(head.sum() for head in heads).backward()


def images_per_s(name: str, *, images: int, device: str) -> float:
    """Forward and backward passes on the device, the best of a few."""
    import torch

    side = find(name).input_size
    with torch.device(device):
        net = build_model(name, {}, classes=CLASSES).train()
        batch = torch.randn(images, 3, side, side)
    best_s = float("inf")
    for _ in range(1 + REPEATS):
        started_s = time.perf_counter()
        backward(net, batch)
        if device == "cuda":
            torch.cuda.synchronize()
        best_s = min(best_s, time.perf_counter() - started_s)
    return images / best_s


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", default="meta", choices=("meta", "cpu", "cuda"))
    parser.add_argument("--images", type=int, default=32, help="batch size on a real device")
    options = parser.parse_args(argv)
    failed = []
    for name in options.names or (*MODELS, *VARIANTS):
        started_s = time.perf_counter()
        try:
            missed = passes(name, device=options.device)
            speed = ""
            if options.device != "meta":
                speed = f"  {images_per_s(name, images=options.images, device=options.device):8.1f} images/s"
        except (RuntimeError, ValueError) as error:
            missed, speed = [f"{type(error).__name__}: {error}"], ""
        took_s = time.perf_counter() - started_s
        print(f"{name:<36} {took_s:5.1f} s{speed}  {'no gradient: ' + ', '.join(missed) if missed else 'ok'}")
        if missed:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "every model went through")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
