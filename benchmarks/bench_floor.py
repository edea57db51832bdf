"""What the floor of a large data set holds and takes: logistic regression and the five nearest images.

    python benchmarks/bench_floor.py [--train 100000] [--test 2000] [--classes 10] [--out FILE]

Made-up colour images of 32 pixels, in memory as uint8; 100,000 are the most that a floor takes. Resident
memory before the floor, which is the images and the libraries, and its peak; CPU time of one thread. Two
minutes.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import figures
import torch

from harness.data import floor, load
from harness.spec import DataSpec

PIXELS = 32


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--train", type=int, default=floor.MOST_IMAGES)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"train": options.train, "test": options.test, "classes": options.classes}
    spec = DataSpec(name="generated", resolution=PIXELS, args={**sizes, "size": PIXELS, "channels": 3})
    data = load(spec.name, spec.args, train_images=None, test_images=None, data_dir=Path())
    table = figures.Figures()
    table.add(f"resident with {options.train:,} + {options.test:,} images", [peak_mb()], "MB")
    # The floor loads them itself, as it does in a study.
    floor.load = lambda *_, **__: data  # type: ignore[assignment]
    started_s = time.process_time()
    found = floor.measure(spec, Path())
    took_s = time.process_time() - started_s
    table.add("peak", [peak_mb()], "MB", goal=2500.0)
    table.add("CPU time of the floor", [took_s], "s")
    table.add("its accuracies: linear", [found.linear], "%")
    table.add("its accuracies: neighbours", [found.neighbours], "%")
    table.save(options.out)


def peak_mb() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
