"""A data set of one's own: what one wears above the waist, four classes of Fashion-MNIST, as `tops`.

A folder of image files needs no plugin: `data: {imagefolder: {folder: NAME}}`.
"""

from harness.data.entry import Entry, Pixels, Source, no_arguments_to_check

T_SHIRT, PULLOVER, COAT, SHIRT = 0, 2, 4, 6
CLASSES = (T_SHIRT, PULLOVER, COAT, SHIRT)
TRAIN, TEST = 150, 50  # images per class


def load(args, data_dir):
    """Pixels (N, H, W, 1 or 3) uint8 and labels 0 ... classes - 1 of both parts."""
    import numpy as np

    from harness.data.sets import read_embedded

    arrays = read_embedded()

    def part(name, count):
        labels = arrays[f"{name}_labels"]
        chosen = np.concatenate([np.flatnonzero(labels == label)[:count] for label in CLASSES])
        renumbered = np.repeat(np.arange(len(CLASSES)), count)
        return Pixels(images=arrays[f"{name}_images"][chosen][..., None], labels=renumbered)

    return Source(train=part("train", TRAIN), test=part("test", TEST), classes=len(CLASSES))


DATASETS = (
    Entry(
        name="tops",
        args={},
        channels=1,
        mean=(0.358, 0.358, 0.358),
        std=(0.361, 0.361, 0.361),
        missing=lambda args, data_dir: None,  # or a sentence that says what to put where
        load=load,
        validate=no_arguments_to_check,
        count_classes=lambda args, data_dir: len(CLASSES),
        classes=len(CLASSES),
        train_images=TRAIN * len(CLASSES),
        test_images=TEST * len(CLASSES),
    ),
)
