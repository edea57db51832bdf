"""Fixed parts of a data set: so many images, as even over the classes as these allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.data.entry import Files, Pixels


def class_shares(found: np.ndarray, count: int) -> np.ndarray:
    """How many images of each class make a subset of `count`: (K,) int64, where `found` (K,) are there.

    Equal shares, a remainder to the first classes. A class with fewer gives all it has, and the others make
    up for it in the same way. Every class that has images gives at least one, and no more are taken than are
    there: then the sum is another than `count`.

    >>> class_shares(np.array([5, 5, 5]), 7), class_shares(np.array([9, 1, 9]), 9)
    (array([3, 2, 2]), array([4, 1, 4]))
    >>> class_shares(np.array([2, 2, 2]), 100), class_shares(np.array([2, 2, 2]), 1)
    (array([2, 2, 2]), array([1, 1, 1]))
    """
    taken = np.zeros(len(found), np.int64)
    left = min(max(count, int((found > 0).sum())), int(found.sum()))
    while left:
        open_classes = np.flatnonzero(taken < found)
        share, remainder = divmod(left, len(open_classes))
        more = np.full(len(open_classes), share)
        more[:remainder] += 1
        more = np.minimum(more, (found - taken)[open_classes])
        taken[open_classes] += more
        left -= int(more.sum())
    return taken


def subset(part: Pixels | Files, count: int | None, classes: int) -> Pixels | Files:
    """The first images of each class, in the set's order, as many as `class_shares` says; None: all.

    Raises:
        ValueError: less than one image is wanted.
    """
    if count is None or count >= len(part.labels):
        return part
    if count < 1:
        raise ValueError(f"a part of a data set has at least 1 image, not {count}")
    shares = class_shares(np.bincount(part.labels, minlength=classes), count)
    chosen = np.sort(
        np.concatenate([np.flatnonzero(part.labels == label)[:share] for label, share in enumerate(shares)])
    )
    labels = part.labels[chosen]
    if isinstance(part, Files):
        return replace(part, paths=tuple(part.paths[index] for index in chosen), labels=labels)
    origin = None if part.origin is None else subset(part.origin, count, classes)
    assert origin is None or isinstance(origin, Files)
    return Pixels(images=part.images[chosen], labels=labels, origin=origin)
