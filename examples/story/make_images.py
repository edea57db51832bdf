"""Make a small folder of images, as your own would be: data/clothes/{train,val}/<class>/<number>.png.

Real photographs: the first ones of five classes of the Fashion-MNIST part that comes with the harness.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.sets import read_embedded

CLASSES = {"trouser": 1, "dress": 3, "sandal": 5, "bag": 8, "boot": 9}
COUNTS = {"train": ("train", 80), "val": ("test", 40)}  # folder -> part of Fashion-MNIST, images per class


def main() -> None:
    arrays = read_embedded()
    for folder, (part, count) in COUNTS.items():
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        for name, label in CLASSES.items():
            place = Path("data/clothes") / folder / name
            place.mkdir(parents=True, exist_ok=True)
            for number, index in enumerate(np.flatnonzero(labels == label)[:count]):
                Image.fromarray(images[index]).convert("RGB").save(place / f"{number:04}.png")
    print(f"data/clothes: {sum(1 for _ in Path('data/clothes').rglob('*.png'))} images")


if __name__ == "__main__":
    main()
