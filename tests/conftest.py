"""For every test: processes that tests start can be interrupted, whatever started the tests, and the cache of
this package is a folder of the tests' own."""

import atexit
import fcntl
import os
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

Made = TypeVar("Made")
Once = Callable[[str, Callable[[Path], Made]], Made]

for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    # A shell starts background jobs with the first two ignored, nohup the third; every child inherits that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

if "HARNESS_CACHE" not in os.environ:  # workers of one session share that of the first process
    os.environ["HARNESS_CACHE"] = tempfile.mkdtemp(prefix="harness-cache-")
    atexit.register(shutil.rmtree, os.environ["HARNESS_CACHE"], ignore_errors=True)

# A plan measures the machine's speed for seconds: tests of that say so themselves.
os.environ["HARNESS_MEASURE"] = "0"


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once[Made]:
    """`once(name, make)`: what `make` returns, which is given an empty folder of that name.

    Whichever of pytest's workers asks first makes it, the others wait and get a copy of the answer. Nobody
    changes the folder afterwards: a test that does takes a copy of it.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def once(name: str, make: Callable[[Path], Made]) -> Made:
        folder, kept = base / name, base / f"{name}.pickle"
        with (base / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                kept.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(kept.read_bytes())

    return once
