"""Make harness/data/embedded/fashion_mnist.npz from the four original Fashion-MNIST files.

    python scripts/make_fashion_mnist_subset.py FOLDER [--out FILE]

FOLDER holds train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and
t10k-labels-idx1-ubyte.gz. The rule of the subset is in harness/data/sets.py. The same input and the
same zlib give the same bytes; the sha256 that is checked at every load covers the arrays, not the
compression.
"""

from __future__ import annotations

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from harness.data.sets import EMBEDDED, EMBEDDED_SHA256, balanced_subset, content_sha256, read_idx_files


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An npz file with fixed dates and order, so that equal arrays give equal bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(member, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    options = parser.parse_args()
    arrays = balanced_subset(read_idx_files(options.folder))
    write_npz(options.out, arrays)
    found = content_sha256(arrays)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, sha256 of the arrays {found}")
    if found != EMBEDDED_SHA256:
        print(f"differs from EMBEDDED_SHA256 {EMBEDDED_SHA256}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
