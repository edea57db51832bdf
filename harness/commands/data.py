"""Which data are on this machine now, which records saw others, how many images the runs of a plan have."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.data import DATASETS, ImageCounts, missing_data
from harness.runs import provenance
from harness.runs.folder import RunFolder, write_bytes
from harness.runs.provenance import Known
from harness.runs.state import reconcile
from harness.spec import (
    ACCURACIES,
    TOO_FEW_NORM_IMAGES,
    Arm,
    DataSpec,
    RunSpec,
    fewest_normalised,
    norm_images_in_words,
    sha256_of,
)
from harness.study.plan import Plan

if TYPE_CHECKING:
    import threading

    from harness.data.contents import Fingerprints
    from harness.data.entry import Entry, Files, Part, Source


# Which data are on this machine now, and which records saw others: those are never used with the rest
# (docs/data.md, decision 21).


MOST_NEW_FILES = 20_000  # that a command which only reads hashes
MOST_NEW_BYTES = 2 << 30
QUICK_S = 0.5  # a look that took longer is not repeated by `harness status`, which tells of the last one
SAY_EVERY_S = 10.0
DECODE_S = 10.0  # before the first run; the rest is decoded beside it
MOST_SAID = 10  # files

QUICK, LOOK, THOROUGH = "quick", "look", "thorough"
"""How to look: what the last look saw, if it was slow | read few files | read whatever is not known yet."""


COMPARED = ("data_fingerprint", "train_fingerprint", "ended_s", "built_on")  # of a summary


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class DataNow(NamedTuple):
    """What is known of a plan's records and data."""

    summaries: Mapping[str, Mapping[str, Any]]  # run_id -> of the runs that have ended on the data of now
    others: Mapping[str, Mapping[str, Any]] = _NOTHING  # of those that saw other data
    why: Mapping[str, str] = _NOTHING  # run_id of these -> key of the data that changed
    now: Known = _NOTHING
    names: Mapping[str, str] = _NOTHING  # key -> the data as a person calls them

    @property
    def says(self) -> tuple[str, ...]:
        """One sentence per data set that changed, in the order of their names."""
        return tuple(_changed(self, key, count) for key, count in sorted(Counter(self.why.values()).items()))


def look_at_records(plan: Plan, runs_dir: Path, data_dir: Path, how: str = LOOK) -> DataNow:
    """As `reconcile`, but a run is done only when its record saw the data that are there now.

    Where the data are not here, or too large to be read now, those count that the run saw which ended last.
    """
    summaries = reconcile(plan, runs_dir)
    specs = provenance.data_of(plan)
    keys = provenance.keys_of(plan)
    seen = sorted({keys[each] for each in summaries if each in keys})
    now = {key: fingerprint_now(specs[key], data_dir, how) for key in seen}
    found = with_records(plan, summaries, data_dir, DataNow(summaries={}, now=now))
    for run in plan.runs:
        run.done = run.done and run.run_id not in found.why
    return found


def with_records(
    plan: Plan, records: Mapping[str, Mapping[str, Any]], data_dir: Path, known: DataNow
) -> DataNow:
    """These records (run_id -> what its summary says) beside the data that are known to be there now."""
    specs = provenance.data_of(plan)
    keys = provenance.keys_of(plan)  # none of a script, whose data are not known
    known_here = ((run_id, record) for run_id, record in records.items() if run_id in keys)
    seen: dict[str, Any] = dict(known_here)
    if any(known.now.values()):
        seen = {run_id: {name: record.get(name) for name in COMPARED} for run_id, record in seen.items()}
        _translate(seen, keys, specs, (data_dir, known.now))
    why = provenance.outdated(plan, seen, known.now)
    return DataNow(
        summaries={run_id: found for run_id, found in records.items() if run_id not in why},
        others={run_id: records[run_id] for run_id in why},
        why=why,
        now=known.now,
        names={key: provenance.data_name(spec) for key, spec in specs.items()},
    )


def renew(plan: Plan, runs_dir: Path, found: DataNow, say: Callable[[str], None]) -> bool:
    """Set the records aside that saw other data, so that their runs are trained again, and put those back
    that saw the data of now. A run that another process holds is left to it.

    Returns:
        whether anything was moved.
    """
    if not found.why:
        return False
    from harness.runs.claims import Claims, Taken

    keys = provenance.keys_of(plan)
    back = held = 0
    with Claims(runs_dir) as claims:
        for run_id, summary in found.others.items():
            if not isinstance(claims.take(run_id), Taken):
                held += 1
                continue
            folder = RunFolder(runs_dir / run_id)
            provenance.set_aside(folder, str(summary["data_fingerprint"]))
            wanted = found.now.get(keys[run_id]) or ""
            kept = provenance.kept_on(folder, wanted) if wanted else None
            if kept is not None and provenance.changed_below(kept, keys, found.now) is None:
                back += provenance.put_back(folder, wanted)
            claims.release(run_id)
    for text in found.says:
        say(f"{text}; what they left behind is kept in other_data/ of their folders")
    states = {"to be trained again": len(found.why) - back - held, "back, kept from an earlier time": back}
    states["held by another process, left as they are"] = held
    say(f"of these runs: {', '.join(f'{count} {what}' for what, count in states.items() if count)}")
    return True


def look_through(
    plan: Plan, data_dir: Path, until: Callable[[], bool], say: Callable[[str], None]
) -> list[str]:
    """What is wrong with the image files that the runs of `plan` will read.

    Every one is hashed and its header read, and as many are decoded as `until()` allows, test images first.
    What is known already is not done again.
    """
    from harness.data.contents import fingerprint
    from harness.data.loading import decode_all, open_all

    wrong: list[str] = []
    told = _Progress(say)
    try:
        for part in file_parts(plan, data_dir):
            fingerprint(part, told.of(part.root.name))
            wrong += open_all(part) or decode_all(part, until)
    except (OSError, ValueError) as error:
        wrong.append(str(error))
    return list(dict.fromkeys(wrong))


class Watch:
    """Looks through the files of a plan before its first run, and at the rest while the runs are trained."""

    def __init__(self, plan: Plan, data_dir: Path) -> None:
        import threading  # plans, which import this file, do not watch

        self._plan, self._data_dir = plan, data_dir
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def look_through(self) -> list[str]:
        """What is wrong, of what can be seen in `DECODE_S` seconds beside hashing and reading headers."""
        end_s = time.monotonic() + DECODE_S
        return look_through(self._plan, self._data_dir, lambda: time.monotonic() > end_s, to_stderr)

    def __enter__(self) -> Watch:
        from threading import Thread

        if any(not run.done for run in self._plan.runs):
            self._thread = Thread(target=self._decode_the_rest, name="decode-once", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _decode_the_rest(self) -> None:
        """At the lowest priority; what is wrong is said once, and the runs go on until they meet it."""
        from threading import get_native_id

        from harness.data.loading import decode_all

        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, get_native_id(), 19)
        try:
            wrong = [
                text
                for part in file_parts(self._plan, self._data_dir)
                for text in decode_all(part, self._closed.is_set, threads=1)
            ]
        except (
            OSError,
            ValueError,
        ) as error:  # the folder is changed meanwhile: the next command looks again
            wrong = [str(error)]
        for text in wrong[:MOST_SAID]:
            to_stderr(f"{text}; a run that reads it will fail, and goes on from there once it is mended")


def file_parts(plan: Plan, data_dir: Path) -> Iterator[Files]:
    """The parts in files of the data that a plan's unfinished runs read, test images first."""
    from harness.data.entry import Files

    todo = {run.arm_id for run in plan.runs if not run.done and run.arm_id in plan.arms}
    specs = {
        provenance.data_key(plan.arms[arm_id].recipe.data): plan.arms[arm_id].recipe.data for arm_id in todo
    }
    own = [spec for spec in specs.values() if spec.name in DATASETS and reads_files(spec)]
    parts = [found for spec in own if (found := _parts_or_none(spec, data_dir)) is not None]
    yield from (test for _, test in parts if isinstance(test, Files))
    yield from (train for train, _ in parts if isinstance(train, Files))


def _parts_or_none(spec: DataSpec, data_dir: Path) -> tuple[Part, Part] | None:
    """None: the code of a plug-in failed, which a run tells with the line."""
    try:
        return parts_of(spec, data_dir)
    except (OSError, ValueError):
        raise
    except Exception:
        return None


def parts_of(spec: DataSpec, data_dir: Path) -> tuple[Part, Part]:
    """Training and test part as a run reads them, without decoding where the data set can be listed.

    Raises:
        OSError, ValueError: the data are not there, or not as they must be.
    """
    from harness.data.arrays import subset

    entry = DATASETS[spec.name]
    args = {**entry.args, **spec.args}
    source = source_of(entry, args, data_dir)
    return (
        subset(source.train, spec.train_images, source.classes),
        subset(source.test, spec.test_images, source.classes),
    )


def source_of(entry: Entry, args: Mapping[str, Any], data_dir: Path) -> Source:
    """Both parts of a whole data set: files where it can be listed, else what its loader gives.

    Raises:
        OSError, ValueError: the data are not there, or not as they must be.
    """
    if entry.listed is not None:
        return entry.listed(args, data_dir)
    from harness.data.entry import checked

    return checked(entry.load(args, data_dir), entry)


def reads_files(spec: DataSpec) -> bool:
    entry = DATASETS[spec.name]
    return not entry.is_fixed({**entry.args, **spec.args})


def fingerprint_now(spec: DataSpec, data_dir: Path, how: str) -> str | None:
    """Of the data that are here now; None: they are not, cannot change, or are too large to be read now."""
    entry = DATASETS.get(spec.name)
    if entry is None or not reads_files(spec):
        return None
    kept = _kept_file(spec, data_dir)
    if how == QUICK and (last := _last_look(kept)):
        return last
    start = time.perf_counter()
    try:
        if missing_data(spec.name, spec.args, data_dir) is not None:
            return None
        found = _look(spec, data_dir, how)
    except Exception:  # of files, or of the code of a plug-in: whoever reads the data tells it
        return None
    if found is not None and kept is not None:
        said = {"fingerprint": found.both, "took_s": time.perf_counter() - start}
        with suppress(OSError):
            write_bytes(kept, json.dumps(said).encode())
    return found.both if found else None


def _look(spec: DataSpec, data_dir: Path, how: str) -> Fingerprints | None:
    from harness.data.contents import Contents, fingerprints
    from harness.data.entry import Files

    parts = parts_of(spec, data_dir)
    if how != THOROUGH:
        new = [
            path
            for part in parts
            if isinstance(part, Files)
            for path in Contents(part.root).unknown(part.paths)
        ]
        if len(new) > MOST_NEW_FILES or sum(path.stat().st_size for path in new) > MOST_NEW_BYTES:
            return None
    return fingerprints(*parts)


def _kept_file(spec: DataSpec, data_dir: Path) -> Path | None:
    from harness.data.entry import cache_folder

    folder = cache_folder()
    name = sha256_of(f"{data_dir} {provenance.data_key(spec)}".encode(errors="surrogateescape"))[:32]
    return folder / "looks" / f"{name}.json" if folder else None


def _last_look(kept: Path | None) -> str | None:
    """What the last look saw, where it took long."""
    try:
        said = json.loads(kept.read_bytes()) if kept else {}
        return str(said["fingerprint"]) if said["took_s"] > QUICK_S else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _translate(
    records: Mapping[str, dict[str, Any]],
    keys: Mapping[str, str],
    specs: Mapping[str, DataSpec],
    there: tuple[Path, Known],
) -> None:
    """A record of an older version, which went by names and sizes, that has those of the data of now cannot
    be told from them: it counts as one on these data."""
    data_dir, now = there
    old: dict[str, str | None] = {}
    for run_id, record in records.items():
        key, said = keys[run_id], record["data_fingerprint"]
        if record["train_fingerprint"] or not said or not now.get(key) or said == now[key]:
            continue
        if key not in old:
            old[key] = _by_names_and_sizes(specs[key], data_dir)
        if said == old[key]:
            record["data_fingerprint"] = now[key]


def _by_names_and_sizes(spec: DataSpec, data_dir: Path) -> str | None:
    entry = DATASETS[spec.name]
    try:
        if spec.args.get("side") is not None:  # its pixels were hashed
            from harness.data.arrays import subset

            source = entry.load({**entry.args, **spec.args}, data_dir)
            train = subset(source.train, spec.train_images, source.classes)
            return by_names_and_sizes(train, subset(source.test, spec.test_images, source.classes))
        return by_names_and_sizes(*parts_of(spec, data_dir))
    except (OSError, ValueError):
        return None


def by_names_and_sizes(train: Part, test: Part) -> str:
    """What records held before contents were recorded: of files, sorted names and sizes in bytes."""
    import hashlib

    import numpy as np

    from harness.data.entry import Files, Pixels

    total = hashlib.sha256()
    for part in (train, test):
        total.update(np.ascontiguousarray(part.labels, "<i8").tobytes())
        if isinstance(part, Pixels):
            total.update(f"{part.images.shape}\n".encode())
            total.update(np.ascontiguousarray(part.images).data)
        elif isinstance(part, Files):
            for path in sorted(part.paths):
                total.update(f"{path.relative_to(part.root).as_posix()} {path.stat().st_size}\n".encode())
    return total.hexdigest()


def again(text: str) -> str:
    """What is to be done where data changed (one of `DataNow.says`)."""
    return f"{text}: `harness run` trains them again and keeps what they left behind"


def _changed(found: DataNow, key: str, count: int) -> str:
    runs = "1 of these runs" if count == 1 else f"{count} of these runs"
    if found.now.get(key):
        return f"{found.names[key]} changed since {runs} ended"
    return f"{runs} saw another {found.names[key]} than the one that ended last"


class _Progress:
    """Says now and then how far a first look has come."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._last = time.monotonic()

    def of(self, name: str) -> Callable[[int, int], None]:
        def told(done: int, of: int) -> None:
            if time.monotonic() - self._last > SAY_EVERY_S:
                self._last = time.monotonic()
                self.say(f"reading every file of {name} once: {done:,} of {of:,}")

        return told


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# How many images the runs of a plan really have: in subsets of their data, and in what batch norm sees.


class Counts(NamedTuple):
    """What a plan says of its numbers."""

    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()  # rows that cannot be trained


def counts_of(plan: Plan, data_dir: Path) -> Counts:
    """Subsets with another number of images than was asked for, test parts too small for the effects that
    matter, and rows whose batch norm has only one image."""
    images: dict[str, int | None] = {}
    notes: list[str] = []
    here = ImageCounts(data_dir)
    keys = provenance.keys_by_arm(plan)
    in_groups = {keys[arm_id] for arm_id, arm in plan.arms.items() if arm.recipe.norm_images}
    for key, spec in provenance.data_of(plan).items():
        images[key] = spec.train_images or known_images(spec, data_dir, look=key in in_groups)
        if (spec.train_images or spec.test_images) and spec.name in DATASETS:
            notes += subset_notes(spec, data_dir)
        if not spec.test_images:  # else the study says how many it wants
            notes += _too_coarse(plan, here(spec.name, spec.args)[1])
    few = list(_of_one_image(plan, {arm_id: images[key] for arm_id, key in keys.items()}))
    return Counts(tuple(dict.fromkeys(notes)), tuple(few))


def _too_coarse(plan: Plan, tested: int | None) -> Iterator[str]:
    """Where a single test image is more than the smallest effect of interest."""
    metric, effect = plan.header["metric"], plan.header["smallest_effect"]
    if tested and metric in ACCURACIES and 100 / tested > effect and not plan.header["smoke"]:
        step = f"one of the {tested} test images is {100 / tested:.2g} points of {metric}"
        yield f"{step}, more than the smallest effect of interest, {effect:g}; more test images tell more"


def wrong_starts(plan: Plan) -> Iterator[str]:
    """What a run would say whose weights are not its network's, or which freezes what is not there."""
    arms: dict[str, tuple[str, Arm]] = {}
    said: dict[str, str] = {}  # each once, with the first row of which it is said
    for arm_id, arm in plan.arms.items():
        recipe = arm.recipe
        if recipe.model.weights or recipe.freeze or recipe.lr_scale:
            told = (recipe.model, recipe.freeze, recipe.lr_scale, arm.tricks)
            arms.setdefault(repr(told), (arm_id, arm))
    if arms:
        from harness.training.setup import try_start

        for arm_id, arm in arms.values():
            file = plan.weights.get(arm.recipe.model.weights.partition(":")[0])
            try:
                try_start(RunSpec(arm=arm, seed=0), Path(file) if file else None)
            except ValueError as error:
                said.setdefault(str(error), plan.arm_labels[arm_id])
    yield from (f"{label}: {text}" for text, label in said.items())


def known_images(spec: DataSpec, data_dir: Path, *, look: bool) -> int | None:
    """Of the whole training part; None: not known without a look at the user's files, or not there."""
    if spec.name not in DATASETS:
        return None
    known = DATASETS[spec.name].facts(spec.args)[1]
    if known or not look:
        return known
    try:
        return len(parts_of(spec, data_dir)[0].labels)
    except Exception:  # of files, or of the code of a plug-in: whoever reads the data tells it
        return None


def subset_notes(spec: DataSpec, data_dir: Path) -> Iterator[str]:
    """Where a subset cannot have the images that were asked for: how many it has."""
    entry, found = DATASETS[spec.name], None
    classes = entry.facts(spec.args)[0]
    if reads_files(spec) and missing_data(spec.name, spec.args, data_dir) is None:
        try:
            args = {**entry.args, **spec.args}
            found = source_of(entry, args, data_dir)
        except Exception:  # of files, or of the code of a plug-in: whoever reads the data tells it
            return
        classes = found.classes
    for kind, wanted in (("training", spec.train_images), ("test", spec.test_images)):
        if wanted is None or classes is None:
            continue
        what = f"{provenance.data_name(spec)}: {wanted:,} {kind} images were asked for"
        if found is None:
            if wanted < classes:
                yield f"{what}, fewer than its {classes:,} classes: one image of each is used"
            continue
        import numpy as np

        from harness.data.arrays import class_shares

        labels = (found.train if kind == "training" else found.test).labels
        there = np.bincount(labels, minlength=classes)
        shares = class_shares(there, wanted)
        if wanted > len(labels):
            yield f"{what}, it has {len(labels):,}: all are used"
        elif wanted < classes:
            yield f"{what}, fewer than its {classes:,} classes: one of each, {int(shares.sum()):,}, is used"
        elif (there < wanted // classes).any():
            fewest = int(shares.min())
            yield (
                f"{what}, not every class has {wanted // classes:,}: {int((shares == there).sum())} of its "
                f"{classes:,} classes give all they have (the least {fewest:,}), the others up to "
                f"{int(shares.max()):,} each"
            )


def _of_one_image(plan: Plan, images: Mapping[str, int | None]) -> Iterator[str]:
    """images: arm_id -> of its training part."""
    for arm_id, arm in plan.arms.items():
        recipe = arm.recipe
        few = fewest_normalised(recipe, images[arm_id])
        if few == 1 and not arm.observes and recipe.trainer == "harness" and _has_single_values(plan, arm_id):
            yield f"row '{plan.arm_labels[arm_id]}' cannot be trained: {norm_images_in_words(recipe)}"


def _has_single_values(plan: Plan, arm_id: str) -> bool:
    """Whether a training step with one image fails in a batch norm: asked of the network, without storage."""
    import torch

    from harness.spec import RunSpec
    from harness.training.setup import build_network, make_tricks

    spec = RunSpec(arm=plan.arms[arm_id], seed=0)
    side = spec.arm.recipe.data.resolution
    try:
        with torch.device("meta"):
            model = build_network(spec, make_tricks(spec), classes=2)
            model.train()(torch.empty(1, 3, side, side))
    except ValueError as error:
        return TOO_FEW_NORM_IMAGES in str(error)
    except Exception:  # a network that cannot be built so is told of by its run
        return False
    return False
