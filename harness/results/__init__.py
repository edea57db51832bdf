"""Results that were not trained here: lines of a file, checked and made into a plan and records."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results.lines import listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Which test images one run had right.


def read_right(path: Path) -> NDArray[np.uint8]:
    """1 for each test image that the run had right, else 0, (N,).

    Of a .npy, a .npz with one array or one called `correct`, or a text with one line an image, below a name
    or not.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    import numpy as np

    try:
        if path.suffix not in (".npy", ".npz"):
            words = path.read_text(encoding="utf-8-sig").split()
            named = bool(words) and not words[0].isdigit()
            found: Any = np.array([{"0": 0, "1": 1}.get(word, 2) for word in words[named:]])
        else:
            found = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            names = found.files
            if "correct" not in names and len(names) != 1:
                raise ValueError(f"has the arrays {listed(names)}; one, or one called correct, is needed")
            found = found["correct" if "correct" in names else names[0]]
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"is damaged: {error}") from None
    if found.ndim != 1 or not found.size or found.dtype.kind not in "biuf":
        raise ValueError("must have one number for each test image")
    if not (fits := np.isin(found, (0, 1))).all():
        raise ValueError(f"has neither 1 (right) nor 0 for image {int(np.argmin(fits)) + 1}")
    right: NDArray[np.uint8] = found.astype(np.uint8)
    return right
