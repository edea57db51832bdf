"""For every test: processes that tests start can be interrupted, whatever started the tests, and the cache of
this package is a folder of the tests' own."""

import atexit
import contextlib
import fcntl
import gc
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from harness.tracking.store import Store

CREATE_STORE = Store._create
LAST_FAILED = "cache/lastfailed"
WHOLE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
Made = TypeVar("Made")
Once = Callable[[str, Callable[[Path], Made]], Made]

for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    # A shell starts background jobs with the first two ignored, nohup the third; every child inherits that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# Workers of pytest share the cores, and a process with threads of OpenMP is not forked (see below). Read when
# numpy and torch are imported, so set before them, for the workers too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if "HARNESS_CACHE" not in os.environ:  # workers of one session share that of the first process
    os.environ["HARNESS_CACHE"] = tempfile.mkdtemp(prefix="harness-cache-")
    atexit.register(shutil.rmtree, os.environ["HARNESS_CACHE"], ignore_errors=True)

if "PYTEST_XDIST_WORKER" in os.environ and sys.platform == "linux":
    # A process with threads that `threading` does not know is not forked, and layers of networks are examined
    # in a new interpreter each (3 seconds), not in a copy of it (`kernel_probe.can_fork`). Two kinds hold
    # nothing that a copy needs and are counted as Python's: that in which a worker of pytest hears of its
    # tests, and those of typst, which sleep from the first page that it sets to the end of the process.
    _without = len(os.listdir("/proc/self/task"))
    with contextlib.suppress(ImportError):  # a GPU machine on which some tests are run by hand may lack it
        import typst

        typst.compile(b"")
    _of_typst = {os.getpid(): len(os.listdir("/proc/self/task")) - _without}
    threading.active_count = lambda: len(sys._current_frames()) + _of_typst.get(os.getpid(), 0)

# pyarrow, which pandas imports, starts a thread of its memory allocator, with which no process forks safely.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")

# A plan measures the machine's speed for seconds: tests of that say so themselves.
os.environ["HARNESS_MEASURE"] = "0"


# A million objects of modules and tests stay to the end. Looking for garbage among them takes a second, each
# time that tests have made enough new ones: what stays is not looked through again.


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        # A plan asks twice whether there are any; counting a million takes 50 ms each time.
        gc.get_freeze_count = lambda: 1


def pytest_runtest_logfinish() -> None:
    """After a test in which everything was looked through."""
    global _looked
    if gc.get_stats()[2]["collections"] > _looked:
        gc.collect()
        gc.freeze()
        _looked = gc.get_stats()[2]["collections"]


_looked = gc.get_stats()[2]["collections"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[Any]:
    """`--last-failed` after a run that did not come to its end runs all tests: what failed in it is not all
    that has not passed. Of a file that could not be collected pytest runs nothing where others failed."""
    kept = yield
    cache = getattr(session.config, "cache", None)  # -p no:cacheprovider
    if cache is not None and not hasattr(session.config, "workerinput"):
        failed = cache.get(LAST_FAILED, {})
        if exitstatus not in WHOLE or any("::" not in name for name in failed):
            cache.set(LAST_FAILED, {})
    return kept


def mostly_campaign(parameters: Iterable[Any], *short: Any) -> list[Any]:
    """Parameters of a test: `make test` takes the `short` ones, `make test-campaigns` the others."""
    return [each if each in short else pytest.param(each, marks=pytest.mark.campaign) for each in parameters]


def of_each(cases: Iterable[Any]) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Makes a claim about a case one test of all cases, which fails with every case that breaks it.

    For many quick ones: as tests of their own they take longer to be collected and reported than to run.
    """
    kept = tuple(cases)

    def of_all(claim: Callable[[Any], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = []
            for case in kept:
                try:
                    claim(case)
                except (Exception, SystemExit, pytest.fail.Exception) as error:
                    wrong.append(f"{case!r}: {type(error).__name__}: {error}")
            assert kept, "there is no case"
            assert not wrong, f"{len(wrong)} of {len(kept)} cases:\n" + "\n".join(wrong)

        test.__name__, test.__doc__, test.__module__ = claim.__name__, claim.__doc__, claim.__module__
        return test

    return of_all


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


@pytest.fixture(scope="session")
def empty_database(once: Once[Path]) -> Path:
    """A migrated MLflow store without an experiment, for copies: creating one takes seconds."""

    def create(folder: Path) -> Path:
        store = Store.beside(folder / "runs")
        store.artifacts.mkdir()
        CREATE_STORE(store)
        assert store.database is not None
        return store.database

    return once("empty_database", create)


@pytest.fixture(scope="session", autouse=True)
def new_stores_are_copies(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is called in this process copies the empty store in place of making one.

    A test that asks for `stores_are_made` makes its own, and so does every process that a test starts.
    """

    def copy(store: Store) -> None:
        if store.database is not None and not store.database.exists():
            shutil.copyfile(request.getfixturevalue("empty_database"), store.database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "_create", copy)
        yield
