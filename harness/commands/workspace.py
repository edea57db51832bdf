"""Where things are on this machine, every name a study may use, and the runs that a person means."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from harness.commands.data import LOOK, QUICK, DataNow, look_at_records
from harness.data import DATASETS, ImageCounts
from harness.data import look_at_data as look_at_one
from harness.data import missing_data as missing_of_one
from harness.data.entry import Entry, Facts, Look
from harness.errors import Problem, StudyError, decided, masked, nearest, unknown, wrong_variables
from harness.models import MODELS, VARIANTS, find
from harness.models.costs import lookup
from harness.models.entry import Model
from harness.models.zoo import find_file, is_zoo_name, pretrained_file
from harness.plugins.install import METRICS, TRAINERS, installed, save, use
from harness.runs.folder import RunFolder
from harness.runs.provenance import keep_places, keep_weights, script_code
from harness.runs.state import FOLDER as DECLARED
from harness.runs.state import as_it_stands
from harness.spec import PER_CLASS, DataSpec, ModelSpec, Recipe
from harness.study.catalogue import Catalogue, Cost, DataEntry, ModelEntry, TrickEntry
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.names import study_plugins
from harness.study.plan import Plan, PlannedRun
from harness.study.schema import ALL
from harness.study.yaml import STUDIES, is_script_study, shipped_studies
from harness.tricks import TRICKS
from harness.tricks.base import Trick
from harness.tricks.build import describe, instantiate

if TYPE_CHECKING:
    from harness.plugins.load import Plugin
    from harness.study.part import PartNames, PlanPart
    from harness.tracking.mirror import Mirror
    from harness.tracking.store import Store


# Every name a study may use, gathered from the tables of tricks, models and data sets; without torch.


CLASSES_IF_UNKNOWN = 1000  # an image folder that is not on this machine: cost is quoted for ImageNet's head


class WeightFiles:
    """The files of weights that a study names, found and hashed once; `found`: sha256 -> the file."""

    def __init__(self, folder: Path) -> None:
        """`folder`: from which names of files start."""
        self.found: dict[str, Path] = {}
        self._folder = folder
        self._said: dict[tuple[str, str | None], str] = {}

    def __call__(self, model: str, named: str | None) -> str:
        """The identity of a named file, or of the one that the model's library has here.

        Raises:
            ValueError: there is none, in words.
        """
        from harness.data.contents import Contents

        asked = (model if named is None else "", named)
        if asked not in self._said:
            path, entry = (pretrained_file(model), "") if named is None else find_file(named, self._folder)
            sha256 = Contents(path.parent).digests([path])[0].tobytes().hex()
            self.found[sha256] = path
            self._said[asked] = f"{sha256}:{entry}" if entry else sha256
        return self._said[asked]


def build_catalogue(data_dir: Path, plugins: Sequence[Plugin] = ()) -> Catalogue:
    """The catalogue of this installation; `data_dir` holds the user's own data sets.

    `plugins` are those of one study: until the next catalogue is built, this process knows their names and
    no other plugin's.

    Raises:
        PluginError: two of them use the same name.
    """
    use(plugins)
    files = _files(plugins)
    data = _Entries(DATASETS, lambda name: _data_entry(name, data_dir, files.get(("DATASETS", name))))

    def cost(model: ModelSpec, spec: DataSpec) -> Cost:
        classes = data[spec.name].facts(spec.args)[0] or CLASSES_IF_UNKNOWN
        params, macs = lookup(model.name, model.args, resolution=spec.resolution, classes=classes)
        return Cost(params=params, macs=macs)

    return Catalogue(
        tricks=_Entries(TRICKS, lambda name: _trick_entry(TRICKS[name], files.get(("TRICKS", name)))),
        models=_Models({name: file for (table, name), file in files.items() if table == "MODELS"}),
        data=data,
        cost=cost,
        trainers={"harness": None, **{name: files["TRAINERS", name] for name in TRAINERS}},
        metrics={**dict.fromkeys(PER_CLASS), **{name: files["METRICS", name] for name in METRICS}},
        plugin_hashes={plugin.name: plugin.sha256 for plugin in plugins},
    )


def _files(plugins: Sequence[Plugin]) -> dict[tuple[str, str], str]:
    """(table, name) -> the file of the plugin that adds the name."""
    return {
        (table, name): plugin.name
        for plugin in plugins
        for table, names in plugin.tables.names().items()
        for name in names
    }


class _Models(Mapping[str, ModelEntry]):
    """The families and their variants. A name of a library is looked up when it is asked for, and not listed.

    Asking for a network that its library does not have is a ValueError in words.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._entries = {name: self._entry(name, model, {}) for name, model in MODELS.items()}

    def __getitem__(self, name: str) -> ModelEntry:
        found = self._entries.get(name)
        if found is None:
            family, preset = VARIANTS.get(name, (name, {}))
            if family not in MODELS and not is_zoo_name(family):
                raise KeyError(name)
            found = self._entries[name] = self._entry(name, find(family), preset)
        return found

    def _entry(self, name: str, model: Model, preset: Mapping[str, Any]) -> ModelEntry:
        return _model_entry(name, model, preset, self._files.get(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*MODELS, *VARIANTS)))

    def __len__(self) -> int:
        return len(MODELS) + len(VARIANTS)


Kind = TypeVar("Kind")


class _Entries(Mapping[str, Kind]):
    """Those of a table; the code of one is imported when it is looked up."""

    def __init__(self, names: Iterable[str], entry: Callable[[str], Kind]) -> None:
        self._made: dict[str, Kind | None] = dict.fromkeys(names)
        self._entry = entry

    def __getitem__(self, name: str) -> Kind:
        found = self._made[name]
        if found is None:
            found = self._made[name] = self._entry(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __contains__(self, name: object) -> bool:
        return name in self._made


def _trick_entry(trick: type[Trick], plugin: str | None) -> TrickEntry:
    about = describe(trick)

    made: dict[str, Trick] = {}  # a study asks for few settings of a trick, many times

    def setting(options: Mapping[str, Any]) -> Trick:
        key = repr(options)
        if key not in made:
            made[key] = instantiate(trick, options)
        return made[key]

    def edit_recipe(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
        edited: Recipe = setting(options).edit_recipe(recipe)
        return edited

    return TrickEntry(
        name=trick.name,
        options=about["options"],
        conflicts=frozenset(about["conflicts"]),
        acts_in_training=about["acts_in_training"],
        validate=setting,
        edit_recipe=edit_recipe,
        edits_recipe="edit_recipe" in about["hooks"],
        arms=trick.arms,
        observes=trick.observes,
        said_if_set=frozenset(trick.said_if_set),
        members=lambda options: setting(options).member_counts(),
        plugin=plugin,
    )


def _model_entry(name: str, model: Model, preset: Mapping[str, Any], plugin: str | None) -> ModelEntry:
    return ModelEntry(
        name=name,
        args=model.args,
        validate=model.validate,
        family=model.name,
        preset=preset,
        minimum_input=model.minimum_input,
        rule=model.rule,
        own_initialisation=model.own_initialisation,
        plugin=plugin,
    )


def _data_entry(name: str, data_dir: Path, plugin: str | None) -> DataEntry:
    entry = DATASETS[name]

    counted: dict[str, int | None] = {}  # the folder is listed once per plan

    def facts(args: Mapping[str, Any]) -> Facts:
        classes, train, test = entry.facts(args)
        if classes is None:
            key = repr(sorted(args.items()))
            if key not in counted:
                counted[key] = _classes_here(entry, {**entry.args, **args}, data_dir)
            classes = counted[key]
        return classes, train, test

    return DataEntry(
        name=entry.name,
        args=entry.args,
        classes=entry.classes,
        train_images=entry.train_images,
        test_images=entry.test_images,
        missing=lambda args: entry.missing(args, data_dir),
        validate=entry.validate,
        for_reports=entry.for_reports,
        counts=facts,
        said_if_set=entry.said_if_set,
        of_a_row=entry.of_a_row,
        plugin=plugin,
        here=partial(ImageCounts(data_dir), name),
    )


def _classes_here(entry: Entry, args: Mapping[str, Any], data_dir: Path) -> int | None:
    """The number of classes of the user's own files; None where they are not here or not in order yet."""
    try:
        return entry.count_classes(args, data_dir) if entry.missing(args, data_dir) is None else None
    except (OSError, ValueError):  # said when a run reads them
        return None


# The plugins of a study: loaded before it is planned, stored before anything is submitted.


def load_plugins(study: Path) -> tuple[Plugin, ...]:
    """The plugins that a study file names. This runs their code; nothing else does while planning.

    Raises:
        StudyError: one of them cannot be used, with the place in its file.
    """
    files = study_plugins(study)
    if not files:
        return ()
    from harness.plugins.load import PluginError, load_all

    try:
        return load_all(files)
    except PluginError as error:
        raise StudyError([Problem(error.path, error.line, error.message)]) from None


def store_plugins(runs_dir: Path, plan: Plan) -> None:
    """Keep the source of the plugins that the last plan was made with beside the runs, so that queued runs
    use the code they were submitted with; of a script, where its commands are executed; where weights are."""
    keep_places(runs_dir, plan.places)
    keep_weights(runs_dir, plan.weights)
    for plugin in installed():
        save(plugin, runs_dir)


# Where things are on this machine: run folders, the tracking store, reports, the user's data.


MOST_NAMED = 10  # files that cannot be read, rows that cannot be trained


class Workspace(NamedTuple):
    """The folders of one working place. Run folders are the truth; the rest can be made again from them."""

    runs_dir: Path
    data_dir: Path
    tracking_uri: str | None  # None: a SQLite file beside the run folders

    def folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs_dir / run_id)

    def store(self) -> Store:
        """The tracking store; imports MLflow when it is first used."""
        from harness.tracking.store import Store

        beside = self.runs_dir.parent
        uri = self.tracking_uri or f"sqlite:///{beside / 'mlflow.db'}"
        return Store(uri=uri, artifacts=beside / "mlartifacts")


def workspace(args: argparse.Namespace) -> Workspace:
    """Command line first, then the environment, then the project's folder."""
    project = project_folder(getattr(args, "study", None))
    runs = (args.runs or Path(os.environ.get("HARNESS_RUNS") or project / "runs")).resolve()
    data = (args.data or Path(os.environ.get("HARNESS_DATA") or project / "data")).resolve()
    uri = args.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    said = getattr(args, "study", None) or ()
    studies = ", ".join(map(str, said if isinstance(said, list | tuple) else [said]))
    study = f"study {studies}; " if studies else ""
    store = "beside the runs" if uri is None else masked(uri)
    decided(f"{study}runs in {runs}; data in {data}; tracking store {store}")
    return Workspace(runs_dir=runs, data_dir=data, tracking_uri=uri)


def project_folder(study: Path | Sequence[Path] | None) -> Path:
    """The folder that holds runs/, data/ and reports/: the current one, unless the study's own has runs.

    A study's own folder is the one of its file, or the one that holds the folder `studies` of its file. So a
    command from another folder does not begin a second project. Shipped studies belong to no folder.
    """
    here = Path()
    first = next(iter(study), None) if isinstance(study, Sequence) else study
    if _has_runs(here) or first is None or first.resolve().parent == shipped_studies().resolve():
        return here
    beside = first.parent
    places = (beside, beside.parent) if beside.resolve().name == STUDIES else (beside,)
    return next((place for place in places if _has_runs(place)), here)


def _has_runs(folder: Path) -> bool:
    """Whether studies were run there; a folder `runs` may be that of another program."""
    return (folder / "runs" / DECLARED).is_dir()


def load_plan(args: argparse.Namespace, place: Workspace, file: Path | None = None) -> Plan:
    """Read the study (`args.study`, or `file`), expand it at the wanted size, and mark what is already done.
    What the rest takes is said as far as runs that ended here, or an earlier measurement, tell.

    Until the next plan is loaded, this process knows the names of the study's plugins.

    Raises:
        StudyError: every mistake in the study.
    """
    return load_with_data(args, place, file, how=QUICK)[0]


def load_with_data(
    args: argparse.Namespace, place: Workspace, file: Path | None = None, *, how: str = LOOK
) -> tuple[Plan, DataNow]:
    """As `load_plan`, and which records saw other data than are there now; `how` to look at these."""
    from harness.commands.step_times import estimate

    plan = expand_plan(args, place, file)
    found = look_at_records(plan, place.runs_dir, place.data_dir, how)
    estimate(plan, place.data_dir, measure=False)
    return plan, found


def expand_plan(
    args: argparse.Namespace, place: Workspace, file: Path | None = None, *, every_size: bool = True
) -> Plan:
    """As `load_plan`, without a look at the run folders: an adaptive study as the last look at it left it."""
    return as_it_stands(first_plan(args, place, file, every_size=every_size), place.runs_dir)


def first_plan(
    args: argparse.Namespace, place: Workspace, file: Path | None = None, *, every_size: bool = True
) -> Plan:
    """The plan as the study says it, before any look at results.

    Raises:
        StudyError: every mistake in the study; or in the environment's variables, which workers read late.
    """
    if wrong := wrong_variables():
        raise StudyError([Problem("environment", 0, says) for says in wrong.values()])
    changes = tuple(getattr(args, "set", None) or ())
    options = ExpandOptions(args.size, args.seeds, args.smoke, changes, every_size)
    return plan_of(file or args.study, place.data_dir, options)


def plan_of(file: Path, data_dir: Path, options: ExpandOptions) -> Plan:
    """The plan of a study file, of whichever kind."""
    if is_script_study(file):
        if options.changes:
            raise problem(Path("--set"), "a study with a script says its flags itself, in rows and sizes")
        from harness.scripts.plan import plan_scripts

        use(())
        return plan_scripts(file, script_code, options, data_dir)
    files = WeightFiles(file.resolve().parent)
    catalogue = build_catalogue(data_dir, load_plugins(file))._replace(weights=files)
    plan = expand(load_study(file, catalogue, options), catalogue, options)
    used = {arm.recipe.model.weights.partition(":")[0] for arm in plan.arms.values()} - {""}
    here = {sha256: str(path) for sha256, path in files.found.items() if sha256 in used}
    said = (f"training starts from {files.found[each].name} (sha256 {each[:8]})" for each in here)
    return replace(plan, weights=here, notes=(*said, *plan.notes))


def look_at_data(plan: Plan, place: Workspace) -> Look:
    """What the plan's data sets lack on this machine, in words that say what to put where, and what is worth
    knowing about their files (left out, of a depth that needs a range).

    To be asked before another plan is loaded, because data sets may come from the study's plugins.
    """
    specs = {(each.name, repr(each.args)): each for each in (arm.recipe.data for arm in plan.arms.values())}
    problems = list(_without_folder(plan))
    notes: list[str] = []
    for spec in specs.values():
        missing = missing_of_one(spec.name, spec.args, place.data_dir)
        found = look_at_one(spec.name, spec.args, place.data_dir)
        problems += [missing] if missing else found.problems
        notes += found.notes
    return Look(problems=tuple(dict.fromkeys(problems)), notes=tuple(dict.fromkeys(notes)))


def _without_folder(plan: Plan) -> Iterator[str]:
    """What {data} stands for in the commands of a script, where it is not there."""
    for data in dict.fromkeys(place.data for place in plan.places.values()):
        if data is not None and not Path(data).exists():
            yield f"the folder of the data is not there: {data} (data: of script or size, or --data)"


def require_data(args: argparse.Namespace, plan: Plan, place: Workspace) -> tuple[str, ...]:
    """Refuse to start when data are missing; returns what is worth knowing about them.

    Raises:
        StudyError: naming the line of the size and what to put where.
    """
    found = look_at_data(plan, place)
    if found.problems:
        raise StudyError(
            [Problem(str(args.study), plan.header.get("size_line", 0), text) for text in found.problems]
        )
    return found.notes


def require_none(args: argparse.Namespace, plan: Plan, wrong: Sequence[str]) -> None:
    """Refuse to start when something is wrong with what the runs would read or do.

    Raises:
        StudyError: the first sentences, at the line of the size's data.
    """
    if wrong:
        texts = list(wrong[:MOST_NAMED])
        if len(wrong) > MOST_NAMED:
            texts.append(f"and {len(wrong) - MOST_NAMED} more of this kind")
        line = plan.header.get("size_line", 0)
        raise StudyError([Problem(str(args.study), line, text) for text in texts])


def mirror(plan: Plan, store: Store) -> Mirror:
    """The mirror of this plan's runs in the store."""
    from harness.tracking.mirror import Mirror

    cells: dict[str, list[dict[str, str]]] = {arm_id: [] for arm_id in plan.all_arms}
    for table in plan.tables:
        for cell in table.cells:
            if cell.arm_id is not None:
                cells[cell.arm_id].append({"table": table.key, "row": cell.row, "column": cell.column or ""})
    return Mirror(store, study=plan.study, size=plan.size, cells=cells)


def report_folder(args: argparse.Namespace, plan: Plan) -> Path:
    """`reports/<study>` at the default size, with the size in the name at any other. A part has a folder of
    its own: the report of the whole stays."""
    if args.out:
        return args.out
    is_usual = not args.size or plan.size in ("mini", ALL)
    suffix = "-smoke" if args.smoke else "" if is_usual else f"-{plan.size}"
    part = "-part" if part_names(args) else ""
    return project_folder(args.study) / "reports" / f"{plan.study}{suffix}{part}"


# Which runs a person means by a row's label, a seed or the first characters of a run_id.


MOST_LISTED = 6


def part_names(args: argparse.Namespace) -> PartNames:
    """What `--table`, `--row` and `--column` name."""
    from harness.study.part import PartNames

    return PartNames(*_named(args))


def _named(args: argparse.Namespace) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(getattr(args, name, None) or ()) for name in ("table", "row", "column"))


def asked_part(args: argparse.Namespace, plan: Plan) -> PlanPart | None:
    """The part of the plan that the command line asks for; None: the whole.

    Raises:
        StudyError: a name that the study does not have, or one of several things.
    """
    if any(_named(args)):
        from harness.study.part import part_of

        return part_of(plan, part_names(args), str(args.study))
    return None


def refuse_parts_of_several(args: argparse.Namespace) -> None:
    """
    Raises:
        StudyError: a part is asked of several studies.
    """
    if any(_named(args)):
        raise problem(args.study[0], "--table, --row and --column are for one study; name one")


def row_labels(plan: Plan) -> dict[str, dict[str, None]]:
    """Label of a row -> the arms that answer it, in whichever tables and columns; quoted rows have none."""
    arms: dict[str, dict[str, None]] = {}
    for table in plan.tables:
        for cell in table.cells:
            if cell.arm_id is not None:
                arms.setdefault(cell.row, {})[cell.arm_id] = None
    return arms


def runs_of(plan: Plan, rows: Iterable[str], seeds: Iterable[int], path: Path) -> list[PlannedRun]:
    """The planned runs of these rows at these seeds; of all rows, or at all seeds, where none is named.

    Raises:
        StudyError: a row or a seed that the study does not have; names the nearest and the valid ones.
    """
    labels = row_labels(plan)
    rows, seeds = list(rows), list(seeds)
    problems = [Problem(str(path), 0, unknown("row", row, labels)) for row in rows if row not in labels]
    there = {run.seed for run in plan.runs}
    for seed in seeds:
        if seed not in there:
            valid = ", ".join(map(str, sorted(there)))
            problems.append(Problem(str(path), 0, f"no run has the seed {seed}. Valid: {valid}"))
    if problems:
        raise StudyError(problems)
    arms = {arm_id for row in rows for arm_id in labels[row]}
    return [run for run in plan.runs if (not rows or run.arm_id in arms) and (not seeds or run.seed in seeds)]


def by_prefix(prefix: str, runs_dir: Path) -> str:
    """The run_id of the only run folder whose name begins so.

    Raises:
        StudyError: there is none, or more than one.
    """
    try:
        names = sorted(name for name in os.listdir(runs_dir) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    if not names:
        raise problem(runs_dir, "no runs here yet; `harness run STUDY` makes some, --runs DIR names a folder")
    found = [name for name in names if name.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        near = nearest(prefix, names, cutoff=0.3)
        hint = f"; the nearest is {near}" if near else ""
        how = "a row is named with its study: harness logs ROW STUDY --seed N"
        raise problem(runs_dir, f"no run begins with '{prefix}'{hint}; {how}")
    shown = ", ".join(found[:MOST_LISTED]) + (", ..." if len(found) > MOST_LISTED else "")
    raise problem(runs_dir, f"{len(found)} runs begin with '{prefix}': {shown}")


def by_row(plan: Plan, row: str, seed: int | None, path: Path) -> str:
    """The run_id of the only run of a row (at a seed); a run_id of the study is taken as well.

    Raises:
        StudyError: there is none, or more than one.
    """
    own = [run.run_id for run in plan.runs if run.run_id.startswith(row)]
    if row not in row_labels(plan) and len(own) == 1:
        return own[0]
    found = runs_of(plan, [row], [] if seed is None else [seed], path)
    if len(found) == 1:
        return found[0].run_id
    if not found:
        seeds = ", ".join(map(str, sorted({run.seed for run in runs_of(plan, [row], [], path)})))
        raise problem(path, f"row '{row}' has no run with the seed {seed}. Valid: {seeds}")
    shown = [f"seed {run.seed} of {plan.arm_labels[run.arm_id]} is {run.run_id}" for run in found]
    more = f"; and {len(shown) - MOST_LISTED} more" if len(shown) > MOST_LISTED else ""
    text = f"row '{row}' has {len(found)} runs; name one with --seed, or by its run_id: "
    raise problem(path, text + "; ".join(shown[:MOST_LISTED]) + more)


def problem(path: Path, message: str) -> StudyError:
    """One mistake in what was asked for."""
    return StudyError([Problem(str(path), 0, message)])
