"""Which column of a file of results is what: as the user says, or as columns are usually called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.errors import Problem, StudyError, shortened, unknown
from harness.results.lines import ResultsFile

# What columns are usually called, the likeliest first. Only the part after the last dot or slash counts, in
# small letters, with _ in place of anything else.
ROWS = (
    *("row", "recipe", "variant", "method", "arm", "setting", "config", "condition", "trick", "ablation"),
    *("model", "group", "job_type", "name", "label", "run_name", "runname"),
)
SEEDS = ("seed", "random_seed", "rng_seed", "seed_id", "repeat", "repetition", "replicate", "trial", "fold")
TABLES = ("table",)
COLUMNS = ("column", "dataset", "data_set")
PAPERS = ("paper", "paper_value", "printed", "published")
STATES = ("state", "status")
ACCURACIES = (
    *("top1", "top_1", "top1_acc", "top1_accuracy", "acc1", "acc_1", "accuracy", "acc", "test_top1"),
    *("test_acc", "test_accuracy", "test_acc1", "val_top1", "val_acc", "val_accuracy", "val_acc1"),
    *("eval_top1", "eval_acc", "eval_accuracy", "valid_acc", "f1", "macro_f1", "auroc", "auc"),
)
OTHERS = ("test_loss", "val_loss", "eval_loss", "loss", "error", "test_error", "top1_err", "score", "metric")
REFERENCES = ("baseline", "reference", "control", "default")
IN_HUNDREDS = re.compile(r"(?:^|_)(?:acc\w*|top_?[0-9]\w*|f1|auroc|auc|precision|recall|map|miou)(?:_|$)")
LESS_WORDS = re.compile(
    r"(?:^|_)(?:\w*loss|err|error|time|seconds|latency|perplexity|ppl|nll|mse|mae|rmse|fid|top[0-9]_err|ece)"
    r"(?:_[smh]|_ms)?(?:$|_)"
)
UNITS = ("percent", "fraction", "plain")
SMALLEST_PP = 0.2  # smallest effect of interest of a percentage, as in studies


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user says of the file; None or empty: to be found by name."""

    rows: tuple[str, ...] = ()  # columns whose values together are a row's label
    seed: str | None = None
    metrics: tuple[str, ...] = ()  # verdicts are about the first, the others are shown
    versus: str | None = None  # the row that the others are compared with, or `previous`
    table: str | None = None
    column: str | None = None
    paper: str | None = None
    unit: str | None = None  # one of UNITS
    lower_is_better: bool | None = None
    smallest_effect: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which column is what."""

    rows: tuple[str, ...]
    seed: str | None
    metrics: tuple[str, ...]
    table: str | None
    column: str | None
    paper: str | None
    state: str | None
    unit: str
    lower_is_better: bool
    smallest_effect: float

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column that is read."""
        more = (self.seed, self.table, self.column, self.paper, self.state)
        return tuple(dict.fromkeys([*self.rows, *self.metrics, *(name for name in more if name is not None)]))


def short(name: str) -> str:
    """The part of a column's name that says what it is.

    >>> short("params.random seed"), short("eval/Top-1"), short("config.seed")
    ('random_seed', 'top_1', 'seed')
    """
    return re.sub(r"[^a-z0-9]+", "_", re.split(r"[./]", name)[-1].strip().lower()).strip("_")


def choose(source: ResultsFile, asked: Asked) -> Chosen:
    """Which column is what: what was asked for, else what a column is called.

    Raises:
        StudyError: every column that is not there, cannot be found by name, or may be one of several.
    """
    problems: list[Problem] = []
    for name in (*asked.rows, asked.seed, *asked.metrics, asked.table, asked.column, asked.paper):
        if name is not None:
            problems += _not_there(source, name)
    if problems:
        raise StudyError(problems)
    rows = asked.rows or _likeliest(source, ROWS)
    if not rows:
        what = f"no column is called as a row's label ({', '.join(ROWS[:6])}, ...): say which, with --row"
        problems.append(source.problem(source.head, f"{what}. Columns: {listed(source.names)}"))
    metrics = asked.metrics or _metric(source, problems)
    if metrics:
        problems += _questions(source, metrics[0], asked)
    if problems:
        raise StudyError(problems)
    return Chosen(
        rows=rows,
        metrics=metrics,
        unit=asked.unit or "plain",
        lower_is_better=bool(asked.lower_is_better),
        smallest_effect=asked.smallest_effect or SMALLEST_PP,
        **_others(source, asked, {*rows, *metrics}),
    )


def _others(source: ResultsFile, asked: Asked, taken: Collection[str]) -> dict[str, str | None]:
    """The columns that need not be there. One that is found by name is not two things."""
    found = {
        name: (given, next(iter(_likeliest(source, names)), None))
        for name, given, names in (
            ("seed", asked.seed, SEEDS),
            ("table", asked.table, TABLES),
            ("column", asked.column, COLUMNS),
            ("paper", asked.paper, PAPERS),
            ("state", None, STATES),
        )
    }
    return {name: given or (None if seen in taken else seen) for name, (given, seen) in found.items()}


def _not_there(source: ResultsFile, name: str) -> Iterator[Problem]:
    places = list(source.names).count(name)
    if not places:
        yield source.problem(source.head, unknown("column", name, dict.fromkeys(source.names)))
    if places > 1:
        yield source.problem(source.head, f"{places} columns have this name: rename one", name)


def _likeliest(source: ResultsFile, known: Sequence[str]) -> tuple[str, ...]:
    """The column with the first of the known names; none, or one."""
    called: dict[str, str] = {}
    for name in source.names:
        called.setdefault(short(name), name)
    found = [called[name] for name in known if name in called]
    return tuple(found[:1])


def _metric(source: ResultsFile, problems: list[Problem]) -> tuple[str, ...]:
    """The only column that is called as a metric; of several, nobody but the user knows which."""
    for known in (ACCURACIES, OTHERS):
        found = [name for name in dict.fromkeys(source.names) if short(name) in known]
        if len(found) == 1:
            return (found[0],)
        if found:
            what = f"several columns may be the metric: {listed(found)}; say which, with --metric"
            problems.append(source.problem(source.head, what))
            return ()
    what = f"no column is called as a metric ({', '.join(ACCURACIES[:1] + ACCURACIES[6:8])}, loss, ...)"
    text = f"{what}: say which, with --metric. Columns: {listed(source.names)}"
    problems.append(source.problem(source.head, text))
    return ()


def _questions(source: ResultsFile, metric: str, asked: Asked) -> Iterator[Problem]:
    """What a number does not say of itself, and must be asked."""
    name, line = short(metric), source.head
    lesser = re.search(LESS_WORDS, name) is not None
    if asked.lower_is_better is None and lesser:
        what = "less of it is usually better: say --lower-is-better, or --higher-is-better"
        yield source.problem(line, what, metric)
    hundreds = re.search(IN_HUNDREDS, name) is not None
    if asked.unit is None and hundreds:
        what = "is it in percent (93.1) or a fraction (0.931)? say --percent or --fraction; --plain: as it is"
        yield source.problem(line, what, metric)
    percent = asked.unit in ("percent", "fraction") or (asked.unit is None and hundreds)
    if asked.smallest_effect is None and not percent:
        what = "which difference of it would matter? say --smallest-effect"
        yield source.problem(line, what, metric)


def listed(names: Iterable[str], most: int = 12) -> str:
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(shortened(name) or "(no name)" for name in every[:most]) + more
