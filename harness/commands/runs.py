"""`harness list`, `clean`, `cancel`, `sync`, `ui`, `agent`: run folders, runs to stop or take, the mirror."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.display import Heading, listing_page
from harness.commands.machine import ProgramError, answer_of
from harness.commands.overview import Overview, look_at_study
from harness.commands.status import print_json
from harness.commands.workspace import (
    Workspace,
    first_plan,
    load_plan,
    mirror,
    problem,
    runs_of,
    workspace,
)
from harness.errors import DONE, SOME_FAILED, Problem, StudyError, counted, printable, unknown
from harness.runs.claims import request_cancel
from harness.runs.folder import CANCELLED, MISSING, RUNNING, STOPPED, RunFolder, read_json, run_state
from harness.runs.records import is_number, is_time, parsed
from harness.runs.state import FOLDER, QUEUED, SHORT_ID
from harness.spec import ENDED, FAILED, AnyRun, RunSpec, spec_from_json
from harness.study.plan import PlannedRun
from harness.study.yaml import STUDIES, read_source

if TYPE_CHECKING:
    from harness.commands.overview import GroupView
    from harness.slurm.submission import Submission


STATES = (*sorted(ENDED), FAILED, "cancelled", "stopped", RUNNING, MISSING)
RUN_NAME = 32  # characters of a run_id: other folders are left alone
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHere:
    """One run folder. None: its files do not say."""

    run_id: str
    state: str
    studies: tuple[str, ...]  # that declared its recipe, each with its size
    arm_id: str | None = None
    seed: int | None = None
    model: str | None = None
    data: str | None = None
    epochs: float | None = None
    metrics: Mapping[str, float | None] | None = None
    ended_s: float | None = None
    bytes: int = 0


# `harness list`


def list_runs(args: argparse.Namespace) -> int:
    """Print every run that the filters let through, the newest last."""
    place = workspace(args)
    if args.state is not None and args.state not in STATES:
        raise problem(Path("--state"), unknown("state", args.state, STATES))
    found = [each for each in runs_here(place) if _is_asked(each, args)]
    if args.json:
        print(json.dumps({"schema": 1, "runs": [asdict(each) for each in found]}, indent=1))
        return DONE
    show(found)
    print(f"{counted(len(found), 'run')} in {place.runs_dir}, {_size(sum(each.bytes for each in found))}")
    return DONE


def _is_asked(run: RunHere, args: argparse.Namespace) -> bool:
    asked = {"state": run.state, "model": run.model, "dataset": run.data}
    return all(getattr(args, name) in (None, value) for name, value in asked.items()) and (
        args.of is None or any(args.of in (each, each.rpartition("-")[0]) for each in run.studies)
    )


def runs_here(place: Workspace) -> list[RunHere]:
    """Every run folder, those that ended first in the order in which they ended, then the others."""
    studies = _declared(place.runs_dir)
    try:
        names = sorted(os.listdir(place.runs_dir))
    except OSError:
        names = []
    found = (_look(place.folder(name), studies) for name in names if _is_run(name))
    return sorted(found, key=lambda each: (each.ended_s is None, each.ended_s or 0.0, each.run_id))


def _is_run(name: str) -> bool:
    return len(name) == RUN_NAME and all(sign in "0123456789abcdef" for sign in name)


def _look(folder: RunFolder, studies: Mapping[str, list[str]]) -> RunHere:
    said: dict[str, Any] = {"run_id": folder.run_id, "state": run_state(folder), "bytes": _bytes(folder.path)}
    spec, summary = _spec(folder), folder.read_summary()
    if spec is not None:
        said |= {"arm_id": spec.arm.arm_id, "seed": spec.seed}
        if isinstance(spec, RunSpec):
            recipe = spec.arm.recipe
            said |= {"model": recipe.model.name, "data": recipe.data.name, "epochs": recipe.epochs}
    if summary is not None:
        numbers = {name: value if is_number(value) else None for name, value in summary["metrics"].items()}
        ended = summary.get("ended_s")
        said |= {"metrics": numbers, "ended_s": ended if is_time(ended) else _changed_s(folder.summary)}
    return RunHere(**said, studies=tuple(studies.get(said.get("arm_id", ""), ())))


def _spec(folder: RunFolder) -> AnyRun | None:
    """What the run is; None where that is missing, damaged or of another version."""
    if not folder.has_spec():
        return None
    try:
        return spec_from_json(read_json(folder.spec))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _changed_s(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _bytes(folder: Path) -> int:
    try:
        return sum(
            entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder) if entry.is_file()
        )
    except OSError:
        return 0


def _declared(runs_dir: Path) -> dict[str, list[str]]:
    """arm_id -> every <study>-<size> that declared it."""
    found: dict[str, list[str]] = {}
    for path in sorted((runs_dir / FOLDER).glob("*/declaration.*.json")):
        try:
            tables = parsed(path.read_bytes())["declaration"]["tables"]
            arms = {row["arm"] for table in tables for row in table["rows"]}
        except (OSError, ValueError, KeyError, TypeError):  # `harness run` of that study says so
            continue
        for arm in arms:
            names = found.setdefault(str(arm), [])
            if path.parent.name not in names:
                names.append(path.parent.name)
    return found


def show(found: Iterable[RunHere]) -> None:
    """One line a run; numbers are in the JSON in full."""
    headings = [Heading("run", is_whole=True), Heading("state"), Heading("studies"), Heading("model")]
    headings += [
        Heading("data"),
        Heading("seed", is_right=True),
        Heading("top-1", is_right=True, is_whole=True),
    ]
    rows = []
    for run in found:
        top1 = (run.metrics or {}).get("top1")
        shown = "" if top1 is None else f"{top1:.2f}"
        words = (", ".join(run.studies), run.model or "", run.data or "")
        seed = "" if run.seed is None else str(run.seed)
        rows.append([run.run_id[:SHORT_ID], run.state, *map(printable, words), seed, shown])
    if rows:
        listing_page().table(headings, rows)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


# `harness clean`


def clean(args: argparse.Namespace) -> int:
    """Show what no study here needs, ask, and delete it. Runs that a report cites stay, and so do those of a
    study that was run here and is not here: another folder may share these runs.

    Raises:
        StudyError: there is no study here, or one has a mistake: then nobody knows what it needs.
    """
    place = workspace(args)
    files = list(dict.fromkeys([*_studies_here(), *args.study]))
    if not files:
        raise problem(
            Path.cwd(), "no study here, so every run would go; name the studies to keep the runs of"
        )
    needs = [_needs_of(place, file) for file in files]
    needed = {arm for _, arms in needs for arm in arms}
    names = (*(f"{name}-" for name, _ in needs), *(f"{name}-" for name in args.of or ()))
    folders = [args.reports] if args.reports else [Path("reports"), place.runs_dir.parent / "reports"]
    cited = {run_id for folder in folders for run_id in cited_runs(folder)}
    found = runs_here(place)
    _check_names(args.of or (), found)
    why = {run.run_id: _why_kept(run, needed, cited, names) for run in found}
    for text, count in Counter(each for each in why.values() if each).items():
        print(f"kept: {counted(count, 'run')} {text}")
    going = [run for run in found if why[run.run_id] is None]
    if not going:
        print("nothing to delete")
        return DONE
    show(going[:MOST_SHOWN])
    more = f" (the first {MOST_SHOWN} are shown)" if len(going) > MOST_SHOWN else ""
    size = _size(sum(run.bytes for run in going))
    print(f"to delete: {counted(len(going), 'run')} that no study here needs, {size}{more}")
    if not (args.yes or _agreed()):
        print("nothing was deleted")
        return DONE
    gone = sum(_delete(place, run) for run in going)
    print(f"{counted(gone, 'run')} deleted; `harness run` of a study that wants one trains it again")
    return DONE


def _check_names(names: Iterable[str], found: Iterable[RunHere]) -> None:
    """
    Raises:
        StudyError: a study that declared none of these runs.
    """
    declared = {each for run in found for each in run.studies}
    for name in names:
        if not any(each.startswith(f"{name}-") for each in declared):
            raise problem(
                Path("--of"), unknown("study", name, {each.rpartition("-")[0] for each in declared})
            )


def _why_kept(run: RunHere, needed: set[str], cited: set[str], names: tuple[str, ...]) -> str | None:
    """In words that go on after a number of runs; None: it goes."""
    if run.arm_id is None:
        return "whose spec cannot be read"
    if run.arm_id in needed:
        return "that a study here needs"
    if run.run_id in cited:
        return "that a report cites"
    if run.state == RUNNING:
        return "under way"
    others = [name for name in run.studies if not name.startswith(names)]
    return (
        f"of {printable(others[0])}, whose file is not here (--of says that they may go)" if others else None
    )


def _studies_here() -> list[Path]:
    """The study files of this folder and of `studies/`; other YAML is none."""
    files = [*sorted(Path().glob("*.yaml")), *sorted(Path(STUDIES).glob("*.yaml"))]
    return [file for file in files if _is_study(file)]


def _is_study(file: Path) -> bool:
    try:
        return isinstance(data := read_source(file, []).data, dict) and "study" in data
    except StudyError:  # a broken file may be one: it is read again, and says what is wrong
        return True


def _needs_of(place: Workspace, file: Path) -> tuple[str, set[str]]:
    """The name of a study, and its recipes at each of its sizes, in its smoke form too."""
    arms: set[str] = set()
    sizes = (read_source(file, []).data or {}).get("sizes") or {"": None}
    for size in map(str, sizes):
        how = argparse.Namespace(study=file, size=size, seeds=None, smoke=False)
        plan = first_plan(how, place)
        plans = (
            [plan]
            if plan.scripts
            else [plan, first_plan(argparse.Namespace(**{**vars(how), "smoke": True}), place)]
        )
        arms |= {run.arm_id for each in plans for run in each.runs}
    return plan.study, arms


def cited_runs(folder: Path) -> set[str]:
    """The runs that a report below the folder cites.

    Raises:
        StudyError: a report cannot be read: nobody knows what it cites.
    """
    found: set[str] = set()
    for path in sorted(folder.glob("**/report.json")):
        try:
            runs = parsed(path.read_bytes()).get("runs") or ()
            found |= {str(run["run_id"]) for run in runs}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            text = "cannot be read, so nobody knows which runs it cites; move it away, or write it again"
            raise StudyError([Problem(str(path), 0, text)]) from None
    return found


def _agreed() -> bool:
    """Whether a person says yes; nobody does where there is no terminal."""
    if not sys.stdin or not sys.stdin.isatty():
        print("to delete them: --yes")
        return False
    return input("delete them? [y/N] ").strip().lower() in ("y", "yes")


def _delete(place: Workspace, run: RunHere) -> bool:
    """Whether it went. What began meanwhile stays."""
    folder = place.folder(run.run_id)
    if run_state(folder) == RUNNING:
        return False
    aside = folder.path.with_name(f".deleted.{run.run_id}.{os.getpid()}")
    try:
        folder.path.rename(aside)  # at once: nobody sees half a run
    except OSError:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


# `harness cancel`: ask the unfinished runs of a study, or of some rows, to stop; from any machine.
#
# The request is a file in the run's folder. Whoever trains the run sees it at its next beat, writes a
# checkpoint and stops; whoever would take it leaves it. `harness run` of a study that wants the run removes
# it.


WRITERS = 16  # requests that are written at a time: each waits for the disk
SCANCEL_S = 10.0
GONE = ("Invalid job id", "No active jobs match")  # what scancel says of jobs that have left the queue
MOST_TROUBLES = 5


@dataclass(slots=True)
class Cancelled:
    """What was done, by run_id."""

    stopping: list[str] = field(default_factory=list)  # were running
    not_started: list[str] = field(default_factory=list)
    done_before: list[str] = field(default_factory=list)  # had ended, had failed or were cancelled already
    left_running: list[str] = field(default_factory=list)  # because of --queued
    needed_by: dict[str, int] = field(default_factory=dict)  # label of another arm -> its runs that need one
    also_for: dict[str, int] = field(default_factory=dict)  # another study -> runs submitted for it
    scancelled: list[str] = field(default_factory=list)  # ids of arrays
    left_in_queue: list[str] = field(default_factory=list)  # likewise, of which Slurm was not told
    by_hand: list[str] = field(default_factory=list)  # commands that take those out
    troubles: list[str] = field(default_factory=list)


def cancel_runs(args: argparse.Namespace) -> int:
    place = workspace(args)
    overview = look_at_study(args)
    wanted = runs_of(overview.plan, args.row or (), args.seed or (), args.study)
    done = cancel(overview, wanted, place, only_queued=args.queued)
    if args.json:
        about = {"study": overview.plan.study, "size": overview.plan.size}
        print_json({**about, **{name: getattr(done, name) for name in Cancelled.__slots__}})
    else:
        for line in in_words(done, str(args.study)):
            print(line)
    return SOME_FAILED if done.troubles else DONE


def cancel(
    overview: Overview, wanted: Iterable[PlannedRun], place: Workspace, *, only_queued: bool
) -> Cancelled:
    """Ask these runs to stop, and take what has nothing left to do out of Slurm's queue."""
    done, views = Cancelled(), overview.views
    for run in wanted:
        state = views[run.run_id].state
        if state == RUNNING:
            (done.left_running if only_queued else done.stopping).append(run.run_id)
        elif state in (QUEUED, STOPPED, MISSING):
            done.not_started.append(run.run_id)
        else:
            done.done_before.append(run.run_id)
    asked = {*done.stopping, *done.not_started}
    by = f"{_user()}@{socket.gethostname()}"

    def ask(run_id: str) -> str | None:
        try:
            request_cancel(place.folder(run_id), by)
        except OSError as error:
            return f"{place.folder(run_id).path}: {error.strerror or error}"
        return None

    with ThreadPoolExecutor(WRITERS) as pool:
        done.troubles += filter(None, pool.map(ask, sorted(asked)))
    done.needed_by = dict(
        Counter(overview.plan.arm_labels[run.arm_id] for run in _dependents(overview, asked))
    )
    _empty_queue(overview, asked, done)
    return done


def _dependents(overview: Overview, asked: set[str]) -> Iterator[PlannedRun]:
    """Runs that were not asked to stop and need one that was, or need such a run in turn."""
    lost = set(asked)
    for run in overview.plan.runs:  # needs come first
        is_over = overview.views[run.run_id].state in (*ENDED, CANCELLED, RUNNING)
        if run.run_id not in asked and not is_over and lost.intersection(run.needs):
            lost.add(run.run_id)
            yield run


def _empty_queue(overview: Overview, asked: set[str], done: Cancelled) -> None:
    """Take agents that have not begun out of the queue where their group has nothing left; those at work
    leave by themselves."""
    other: Counter[str] = Counter()
    for each in overview.queue.submissions:
        if each.submission.study != overview.plan.study:
            other[each.submission.study] += len(asked.intersection(each.submission.run_ids()))
        for name, view in each.groups.items():
            is_empty = all(_is_over(overview, run_id, asked) for run_id in _runs_of(each.submission, name))
            if is_empty and (view.pending or not view.is_known):
                for command, ids in _orders(each.submission, view):
                    _scancel(command, ids, done, can_ask=overview.queue.can_ask)
    done.also_for = {study: count for study, count in other.items() if count}


def _runs_of(submission: Submission, group: str) -> list[str]:
    return [run_id for run_id in submission.run_ids() if submission.group_of(run_id) == group]


def _is_over(overview: Overview, run_id: str, asked: set[str]) -> bool:
    """Whether no agent will do the run. Of a run of another plan nothing is known: it is left in peace."""
    view = overview.views.get(run_id)
    return view is not None and (run_id in asked or view.state in (*ENDED, CANCELLED, FAILED))


def _orders(submission: Submission, view: GroupView) -> Iterator[tuple[list[str], list[str]]]:
    """Per cluster: the scancel command for what waits of a group, and the ids of its arrays.

    The ids are those that the queue shows under the group's name, where it is known, else those that were
    written down. An id alone might be somebody else's job by now: scancel is told the name too. Only numbers
    and plain names are passed on to a command line.
    """
    found = dict(view.arrays)
    if not view.is_known:
        mine = [said for chunk, said in submission.chunks().items() if chunk.startswith(f"{view.name}.")]
        found = {str(said.get("job_id")): str(said.get("cluster", "")) for said in mine} | found
    by_cluster: dict[str, list[str]] = {}
    for job_id, cluster in found.items():
        if re.fullmatch(r"[0-9]+", job_id) and re.fullmatch(r"[A-Za-z0-9_.-]*", cluster):
            by_cluster.setdefault(cluster, []).append(job_id)
    for cluster, ids in by_cluster.items():
        where = [f"--clusters={cluster}"] if cluster else []
        name = f"--name={submission.job_name(view.name)}"
        yield ["scancel", *where, name, "--state=PENDING", *ids], ids


def _scancel(command: list[str], ids: list[str], done: Cancelled, *, can_ask: bool) -> None:
    if not can_ask or shutil.which("scancel") is None:
        done.left_in_queue += ids
        done.by_hand.append(" ".join(command))
        return
    from harness.slurm.queue import CHANGES_ANSWERS

    try:
        answer_of(command, SCANCEL_S, {name: None for name in os.environ if CHANGES_ANSWERS.match(name)})
    except ProgramError as error:
        if any(words in str(error) for words in GONE):  # what is known of the queue may be 30 s old
            return
        done.left_in_queue += ids
        done.by_hand.append(" ".join(command))
        done.troubles.append(f"scancel: {error}")
    else:
        done.scancelled += ids


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        return str(os.getuid())


def in_words(done: Cancelled, study: str) -> Iterator[str]:
    """What a person is told."""
    for run_ids, what in (
        (done.stopping, "will write a checkpoint and stop, in about 10 s"),
        (done.not_started, "will not start"),
        (done.left_running, "at work and left to it (--queued)"),
        (done.done_before, "had ended, failed or been cancelled before"),
    ):
        if run_ids:
            yield f"{counted(len(run_ids), 'run')} {what}"
    for label, count in done.needed_by.items():
        yield f"{counted(count, 'run')} of {label} cannot start either: it needs one of those"
    for other, count in done.also_for.items():
        yield f"{counted(count, 'run')} of those had been submitted for the study {other} as well"
    if done.scancelled:
        yield f"taken out of Slurm's queue: {', '.join(done.scancelled)}"
    for command in done.by_hand:
        yield f"still in Slurm's queue, where they find nothing to do: {command}"
    yield from _shown(done.troubles)
    if done.stopping or done.not_started:
        yield f"`harness run {study}` goes on with them"
    elif not done.left_running:
        yield "nothing is left to cancel"


def _shown(troubles: list[str]) -> Iterator[str]:
    for trouble in troubles[:MOST_TROUBLES]:
        yield f"not done: {trouble}"
    if len(troubles) > MOST_TROUBLES:
        yield f"not done: {len(troubles) - MOST_TROUBLES} more"


# Run folders into MLflow, and MLflow's own UI over them.


def sync(args: argparse.Namespace) -> int:
    place = workspace(args)
    plan = load_plan(args, place)
    count = mirror(plan, place.store()).sync([place.folder(run.run_id) for run in plan.runs])
    print(
        f"{plan.study} ({plan.size}): {count.created} runs added, {count.updated} updated, "
        f"{count.unchanged} unchanged, {count.skipped} not begun"
    )
    return 0


def ui(args: argparse.Namespace) -> int:
    from harness.tracking.store import HOST, require_free, serve, ui_command, ui_environment

    environment = ui_environment(workspace(args).store())
    require_free(args.port)

    def say() -> None:
        print(f"MLflow UI: http://{HOST}:{args.port}   (Ctrl-C ends it)", flush=True)

    return serve(ui_command(args.port), environment, args.port, say)


# `harness agent`, which sbatch scripts call and nobody types: one task of an array of a submission.


NOT_STARTED = 2  # an exit code: Slurm says FAILED, and the log says why


def agent(args: argparse.Namespace) -> int:
    from harness.slurm.agent import run_agent
    from harness.slurm.submission import read_submission
    from harness.training import PRELOAD, SCRIPT_PRELOAD, run_one

    try:
        submission = read_submission(args.runs_dir, args.token)
        if args.group not in submission.groups:
            raise ValueError(unknown("group", args.group, submission.groups))
        preload = SCRIPT_PRELOAD if submission.is_of_a_script else PRELOAD
        return run_agent(submission, submission.groups[args.group], run_one, preload)
    except (OSError, ValueError) as error:
        print(f"agent of submission {args.token}: {error}", file=sys.stderr)
        return NOT_STARTED
