"""Which convolutions does torch compute wrongly on this CPU? Prints one line a kind of fault, then a count.

python benchmarks/kernel_scan.py [--quick]; ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY cap the CPU.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import torch

from harness.training.kernel_probe import AS_IT_IS, LayerCall
from harness.training.kernels import examine_all

AT_ONCE = 100


def convolution(
    kernel: int, stride: int, channels: int, side: int, *, depthwise: bool, last: bool
) -> LayerCall:
    """A padded convolution to as many channels (depthwise) or to 16, on 16 images."""
    out, groups = (channels, channels) if depthwise else (16, 1)
    shapes = {"input": (16, channels, side, side), "weight": (out, channels // groups, kernel, kernel)}

    def strides(c: int, h: int, w: int) -> tuple[int, ...]:
        return (c * h * w, 1, w * c, c) if last else (c * h * w, h * w, w, 1)

    operands = {name: (shape, strides(*shape[1:])) for name, shape in shapes.items()}
    options = {"stride": [stride] * 2, "padding": [kernel // 2] * 2, "dilation": [1, 1], "groups": groups}
    return LayerCall("conv2d", operands, options)


def grid(*, quick: bool) -> Iterator[LayerCall]:
    """Every layer that is looked at."""
    kernels, sides = ((1, 3), (4, 8)) if quick else ((1, 3, 5, 7), (1, 2, 4, 8, 16))
    counts = (1, 2, 3, 4, 5, 6, 7, 8) if quick else (*range(1, 17), 24, 32)
    for kernel, stride, channels, side in itertools.product(kernels, (1, 2), counts, sides):
        for depthwise, last in itertools.product((False, True), (True, False)):
            yield convolution(kernel, stride, channels, side, depthwise=depthwise, last=last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the known family and its neighbours only")
    calls = list(grid(quick=parser.parse_args().quick))
    wrong = 0
    for start in range(0, len(calls), AT_ONCE):
        part = calls[start : start + AT_ONCE]
        for call, verdict in zip(part, examine_all(part), strict=True):
            if verdict.form != AS_IT_IS or not verdict.is_certain:
                wrong += 1
                print(f"{call}: {verdict.says()} -> {verdict.form or 'no form'}", flush=True)
    capability = torch.backends.cpu.get_cpu_capability()
    where = f"torch {torch.__version__}, {capability}, {torch.get_num_threads()} threads"
    print(f"{wrong} of {len(calls)} wrong; {where}")


if __name__ == "__main__":
    main()
