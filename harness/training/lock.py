"""Only one process of a machine trains a run at a time.

Between machines, and on file systems without flock, the claims of `harness.study.run_claims` see to that.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.study.machine import Stop
from harness.study.records import NO_FLOCK

POLL_S = 0.1


@contextmanager
def exclusive(path: Path, stop: Stop) -> Iterator[bool]:
    """Hold the lock file for the block; the system frees it when the process dies, however it dies.

    Waits while another process holds it (the worker of a controller that was killed ends at its next step).

    Raises:
        OSError: the folder of the file is not there.

    Yields:
        True with the lock held; False if `stop()` came first.
    """
    while True:
        with path.open("a") as file:
            held = _try_lock(file.fileno())
            while not held and not stop():
                time.sleep(POLL_S)
                held = _try_lock(file.fileno())
            if held and identity_of(path) != identity_of(file.fileno()):
                continue  # the folder was made anew while this process waited: the lock is another file now
            yield held
            return


def identity_of(file: Path | int) -> tuple[int, int] | None:
    """What tells a file that somebody has open from a later one of the same name; None: there is no file."""
    try:
        info = os.stat(file)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
    return True
