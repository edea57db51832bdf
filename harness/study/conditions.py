"""When a comparison can be tested at all: pure functions from plain facts to a reason, or to "" where it can.

A reason is a phrase that names its numbers; it goes on after "cannot be tested here: ". Accuracies are in
percent and differences in percentage points. Why these conditions: docs/statistics.md, decision 28.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from harness.errors import Location, counted
from harness.spec import ACCURACIES, Arm, DataSpec, Recipe, as_plain, canonical_json
from harness.study.plan import Cell, Plan, PlanTable

# The floor of a data setting, as it is kept beside runs and in reports: what simple classifiers reach.


FLOORS_SCHEMA = 1
NOT_MEASURED = "it was not measured"
PERCENTAGES = ("chance", "guessing", "neighbours", "linear")
COUNTS = ("classes", "train_images", "test_images", "channels", "pixels")


def setting_of(spec: DataSpec) -> str:
    """A data setting as text: the set with its options, its parts' sizes and the resolution."""
    return canonical_json(as_plain(spec))


def wrong_with_floor(entry: Any) -> str:
    """What is wrong with a floor that was read from a file; "": nothing."""
    if not isinstance(entry, Mapping):
        return "it is no JSON object"
    if entry.get("schema") != FLOORS_SCHEMA:
        return f"it is of schema {entry.get('schema')}, this version reads {FLOORS_SCHEMA}"
    for name in ("setting", "data"):
        if not isinstance(entry.get(name), str):
            return f"`{name}` is no text"
    for name in ("problem", "fingerprint"):
        if not isinstance(entry.get(name), str | None):
            return f"`{name}` is no text"
    return "" if entry.get("problem") is not None else _wrong_with_numbers(entry)


def _wrong_with_numbers(entry: Mapping[str, Any]) -> str:
    for name in PERCENTAGES:
        value = entry.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            return f"`{name}` is no percentage"
    for name in COUNTS:
        if type(entry.get(name)) is not int or entry[name] < 1:
            return f"`{name}` is no count"
    return ""


def wrong_with_floors(kept: Any) -> str:
    """What is wrong with all floors of a report; "": nothing."""
    if not isinstance(kept, Mapping) or kept.get("schema") != FLOORS_SCHEMA:
        return "is damaged: it holds no floors of this version"
    if not isinstance(kept.get("why"), str) or not isinstance(kept.get("floors"), list):
        return "is damaged: `why` or `floors` is not there"
    found = [wrong_with_floor(entry) for entry in kept["floors"]]
    return next((f"is damaged: {text}" for text in found if text), "")


# The arithmetic of a training: how many updates of the weights it makes, and in which phases.


FEWEST_UPDATES, FEWEST_WARMUP_UPDATES, FEWEST_PHASE_UPDATES = 500, 50, 20


class Dose(NamedTuple):
    """Updates of the weights (optimizer steps) of one training."""

    updates: int
    warmup: int
    shortest_phase: int | None  # between two milestones of a `step` schedule; None: it has no phases


def dose_of(recipe: Recipe, updates_per_epoch: float) -> Dose:
    """The dose of a recipe. An exponential decay is a curve in small steps, not phases."""
    total = max(1, round(recipe.epochs * updates_per_epoch))
    warmup = round(recipe.warmup_epochs * updates_per_epoch)
    phase = None
    if recipe.schedule == "step":
        inner = [round(epoch * updates_per_epoch) for epoch in recipe.milestones]
        ends = [warmup, *(end for end in inner if warmup < end < total), total]
        phase = min(end - start for start, end in pairwise(ends))
    return Dose(updates=total, warmup=warmup, shortest_phase=phase)


def updates_per_epoch(images: int, batch_size: int) -> int:
    """Whole batches, at least one, as training counts them (`training.feed.count_steps_per_epoch`)."""
    return max(1, images // batch_size)


def too_few_updates(name: str, dose: Dose | None) -> str:
    """An arm that is trained too briefly for anything to be learnt about its recipe."""
    if dose is None:
        return ""
    if dose.updates < FEWEST_UPDATES:
        return f"{name} is trained for {dose.updates:,} updates, fewer than {FEWEST_UPDATES}"
    if dose.shortest_phase is not None and dose.shortest_phase < FEWEST_PHASE_UPDATES:
        return (
            f"a phase of {name}'s schedule has {dose.shortest_phase:,} updates, fewer than "
            f"{FEWEST_PHASE_UPDATES}"
        )
    return ""


def too_short_warmup(names: tuple[str, str], doses: tuple[Dose | None, Dose | None]) -> str:
    """A comparison of two warm-ups of which the longer one is hardly there."""
    row, versus = doses
    if row is None or versus is None or row.warmup == versus.warmup:
        return ""
    longest = max(row.warmup, versus.warmup)
    if longest >= FEWEST_WARMUP_UPDATES:
        return ""
    name = names[0] if row.warmup > versus.warmup else names[1]
    return f"the warm-up of {name} has {longest:,} updates, fewer than {FEWEST_WARMUP_UPDATES}"


# What results must show before a comparison of them means anything.


COLLAPSED_AT = 0.25  # of the way from chance to the floor
HEADROOM = 10.0  # smallest effects of interest
PRINTED_CLOSE_PP, HERE_CLOSE_PP = 1.0, 3.0


class Floor(NamedTuple):
    """What simple classifiers reach on the data of an arm; see `harness.data.floor`."""

    chance: float
    guessing: float
    neighbours: float
    linear: float

    @property
    def value(self) -> float:
        return max(self.guessing, self.neighbours, self.linear)

    @property
    def name(self) -> str:
        """The classifier that sets the value."""
        if self.linear == self.value:
            return "a linear classifier on the same images"
        return "the 5 nearest training images" if self.neighbours == self.value else "guessing"

    @property
    def in_words(self) -> str:
        return f"{self.name}, {self.value:.1f} %"

    @property
    def collapsed_below(self) -> float:
        return self.chance + COLLAPSED_AT * (self.value - self.chance)


def floor_of(entry: Mapping[str, Any] | None) -> Floor | None:
    """From an entry that `wrong_with_floor` has nothing to say against; None: it has no numbers."""
    if entry is None or entry["problem"] is not None:
        return None
    return Floor(**{name: float(entry[name]) for name in PERCENTAGES})


def below_floor(name: str, mean: float, lower: float, floor: Floor | None) -> str:
    """An arm that a simple classifier beats. `lower`: the one-sided 95 % limit of the mean; or the mean."""
    if floor is None or lower >= floor.value:
        return ""
    if mean < floor.value:
        return f"{name}, {mean:.1f} %, is below {floor.in_words}"
    return f"{name}, {mean:.1f} % (95 % lower limit {lower:.1f} %), is not clearly above {floor.in_words}"


def both_below_floor(means: tuple[float, float], floor: Floor) -> str:
    """Both arms of a comparison."""
    return f"both networks, {means[0]:.1f} % and {means[1]:.1f} %, are below {floor.in_words}"


def collapsed(name: str, values: Mapping[int, float], floor: Floor | None) -> str:
    """An arm of which a run learnt next to nothing: below a quarter of the way from chance to the floor."""
    if floor is None:
        return ""
    seed = min(values, key=lambda each: values[each], default=None)
    if seed is None or values[seed] >= floor.collapsed_below:
        return ""
    limits = f"chance {floor.chance:.1f} %, {floor.in_words}"
    return f"a training of {name} collapsed: seed {seed} ended at {values[seed]:.1f} % ({limits})"


def diverged(name: str, lost: int, ended: int) -> str:
    """An arm of which a run diverged."""
    return f"{lost} of {ended} runs of {name} diverged" if lost else ""


def other_regime(names: tuple[str, str], ours: float, paper: float | None) -> str:
    """Two arms that are nearly equal in the paper and far apart here: something else happened."""
    if paper is None or abs(paper) > PRINTED_CLOSE_PP or abs(ours) <= HERE_CLOSE_PP:
        return ""
    return (
        f"another regime: {names[0]} and {names[1]} are {abs(ours):.1f} pp apart, in the paper "
        f"{abs(paper):.2f} pp"
    )


def no_headroom(metric: str, level: float, smallest_effect: float) -> str:
    """Two arms near the end of the scale; `level` of the lower one, in percent."""
    if 100.0 - level >= HEADROOM * smallest_effect:
        return ""
    return (
        f"no headroom: {metric} is {level:.1f} % already, {100.0 - level:.1f} pp from the end of the scale; "
        f"{HEADROOM:g} times the smallest effect of interest are {HEADROOM * smallest_effect:g} pp"
    )


def same_arm(versus: str) -> str:
    """By construction: both rows are one training."""
    return f"by construction: it is the same run as {versus} at this size"


# Tricks that change what the training loss is measured against: it moves with them whatever is learnt.
CHANGES_THE_LOSS = frozenset({"label_smoothing", "mixup", "distillation", "auxiliary_loss"})


def other_loss(tricks: Iterable[str], others: Iterable[str]) -> str:
    """By construction: two training losses of which one has another target."""
    changed = sorted((set(tricks) ^ set(others)) & CHANGES_THE_LOSS)
    if not changed:
        return ""
    return f"by construction: {' and '.join(changed)} changes what the training loss is measured against"


def not_sensitive(detectable: float | None, smallest_effect: float, control: str, unit: str = " pp") -> str:
    """A table that could have missed an effect that matters. `control`: what came of it; "": none named."""
    if detectable is not None and detectable <= smallest_effect:
        return ""
    seen = "no effect would be found" if detectable is None else f"only {detectable:.2f}{unit} would be found"
    return f"{seen} with 80 % power and {control or 'the table has no control'}"


# What a reason contains -> what stands for it where there is room for a few words alone.
_SHORT = (
    ("both networks", "both below the floor"),
    (" is below ", "below the floor"),
    ("not clearly above", "not clearly above floor"),
    (" collapsed:", "a run collapsed"),
    (" diverged", "a run diverged"),
    ("another regime", "another regime"),
    ("no headroom", "no headroom"),
    ("the same run as", "one and the same run"),
    ("by construction", "true by construction"),
    ("warm-up of", "too short a warm-up"),
    (" updates, fewer than", "trained too briefly"),
    ("with 80 % power", "could not be seen"),
)


def in_short(reason: str) -> str:
    """A reason in a few words; "" where it is none of those above.

    >>> in_short(diverged("A", 1, 3)), in_short(same_arm("A")), in_short("of some other kind")
    ('a run diverged', 'one and the same run', '')
    """
    return next((short for text, short in _SHORT if text in reason), "")


def in_words(room: str) -> str:
    """All conditions, for a report. `room`: of the scale, for example "2 pp"."""
    return (
        "A comparison gets a word only where both of its rows have no diverged run; lie, with the one-sided "
        "95 % limit of their mean, at or above what simple classifiers make of the same images (the floor), "
        "and with no run below a quarter of the way from chance to it; were trained for "
        f"{FEWEST_UPDATES} updates or more, {FEWEST_PHASE_UPDATES} in each phase of a schedule and "
        f"{FEWEST_WARMUP_UPDATES} in a warm-up that is compared; leave {room} of the scale free; are not the "
        f"same run; and, where the paper prints them within {PRINTED_CLOSE_PP:g} pp, are within "
        f"{HERE_CLOSE_PP:g} pp here. A row that failed in the paper too need not reach the floor, where its "
        "study says so beforehand."
    )


# What a plan alone can know: said before the first run.


ImagesOf = Callable[[DataSpec], int | None]
MOST_NAMED = 4


def doses(arms: Mapping[str, Arm], images_of: ImagesOf) -> dict[str, Dose]:
    """arm_id -> the dose it is planned with; those that are not trained by the harness are left out.

    What an arm starts from counts with it; an arm that evaluates has the smallest dose of its networks.
    """
    counts: dict[int, int | None] = {}  # by the id of the data, which arms share
    own: dict[str, Dose] = {}
    for arm_id, arm in arms.items():
        data = arm.recipe.data
        if arm.observes or arm.recipe.trainer != "harness":
            continue
        if id(data) not in counts:
            counts[id(data)] = images_of(data)
        images = counts[id(data)]
        if images:
            own[arm_id] = dose_of(arm.recipe, updates_per_epoch(images, arm.recipe.batch_size))
    return own | dict(_inherited(arms, own))


def _inherited(arms: Mapping[str, Arm], own: Mapping[str, Dose]) -> Iterator[tuple[str, Dose]]:
    for arm_id, arm in arms.items():
        members = [own[member.arm] for member in arm.observes if member.arm in own]
        if members:
            yield arm_id, min(members, key=lambda dose: dose.updates)
        elif arm.source is not None and arm.source in own and arm_id in own:
            dose = own[arm_id]
            yield arm_id, dose._replace(updates=dose.updates + own[arm.source].updates)


def contradictions(
    tables: Iterable[PlanTable], arms: Mapping[str, Arm], images_of: ImagesOf
) -> Iterator[tuple[Location, str]]:
    """Where the numbers of a study contradict what it declares: (place in the file, what is wrong)."""
    known: Mapping[str, Dose] | None = None
    for table in tables:
        cells = {(cell.column, cell.row): cell for cell in table.cells}
        for cell in table.cells:
            other = cells.get((cell.column, cell.paper_versus or cell.versus or ""))
            if cell.may_fail and (text := _did_not_fail(cell, other)):
                yield ("tables", table.key), text
        if table.control is not None:
            known = doses(arms, images_of) if known is None else known
            at: Location = ("tables", table.key, "control")
            pairs = [tuple(cells.get((column, row)) for row in table.control) for column in table.columns]
            for text in dict.fromkeys(_useless(table.control, pairs, known)):
                yield at, text


def _did_not_fail(cell: Cell, other: Cell | None) -> str:
    printed = cell.paper.get("top1"), other.paper.get("top1") if other else None
    if printed[0] is None or printed[1] is None:
        return ""
    gap = printed[0].value - printed[1].value
    if gap < -PRINTED_CLOSE_PP:
        return ""
    values = f"{printed[0].value:g} % against {printed[1].value:g} %"
    return f"row '{cell.row}' may fail, but the paper prints no failure of it: {values}"


def _useless(
    control: tuple[str, str], pairs: Iterable[tuple[Cell | None, ...]], known: Mapping[str, Dose]
) -> Iterator[str]:
    for row, versus in pairs:
        if row is None or versus is None or row.arm_id is None or versus.arm_id is None:
            continue
        if row.arm_id == versus.arm_id:
            yield f"the control compares a run with itself: '{row.row}' and '{versus.row}' are one recipe"
            continue
        for cell in (row, versus):
            if why := too_few_updates(f"'{cell.row}'", known.get(cell.arm_id or "")):
                yield f"a table with a control must be able to tell, but {why}"


class Foresight(NamedTuple):
    """What is known of a plan before its first run."""

    doses: Mapping[str, Dose]  # by arm_id
    classes_of: ImagesOf  # None: not known yet
    floors: Mapping[str, Any]  # by data setting: entries as in `ReportInput.floors`
    smallest_effect: float

    def of_pair(self, pair: tuple[Cell, Cell], arms: tuple[Arm, Arm], measure: str) -> str:
        """Why the two cannot be compared, whatever they come to; "": nothing is known against it."""
        cell, other = pair
        known = [self.doses.get(each.arm_id or "") for each in pair]
        few = [dose.updates for dose in known if dose is not None and dose.updates < FEWEST_UPDATES]
        if few:
            shortest = min(dose.updates for dose in self.doses.values())
            return f"runs of fewer than {FEWEST_UPDATES} updates (the shortest has {shortest:,})"
        if any(too_few_updates("", dose) for dose in known):
            return f"a phase of a schedule has fewer than {FEWEST_PHASE_UPDATES} updates"
        if text := too_short_warmup((cell.row, other.row), (known[0], known[1])):
            return text
        if measure == "train_loss" and (text := other_loss(cell.tricks, other.tricks)):
            return text
        if measure not in ACCURACIES or any(arm.recipe.trainer != "harness" for arm in arms):
            return ""
        spared = cell.may_fail or other.may_fail
        return self._headroom([arm.recipe.data for arm in arms], measure, may_fail=spared)

    def _headroom(self, data: Iterable[DataSpec], measure: str, *, may_fail: bool) -> str:
        """The lower of two accuracies is too close to 100 % even where it is the lowest that counts."""
        least = min(self._least(spec, measure, may_fail=may_fail) for spec in data)
        needed = HEADROOM * self.smallest_effect
        if 100.0 - least >= needed:
            return ""
        return (
            f"no headroom: {measure.replace('top', 'top-')} is {least:.1f} % at the least on these data, and "
            f"{HEADROOM:g} times the smallest effect of interest, {needed:g} pp, must be left"
        )

    def _least(self, spec: DataSpec, measure: str, *, may_fail: bool) -> float:
        """What a network that may stand in a comparison reaches: the floor, where it is known, or chance."""
        classes = self.classes_of(spec)
        floor = floor_of(self.floors.get(setting_of(spec))) if self.floors and not may_fail else None
        guessed = min(100.0, 100.0 * (5 if measure == "top5" else 1) / classes) if classes else 0.0
        return max(guessed, floor.value if floor else 0.0)


def foreseen(
    plan: Plan, images_of: ImagesOf, classes_of: ImagesOf = lambda _: None, floors: Iterable[Any] = ()
) -> list[str]:
    """What cannot be tested whatever the runs come to, a line each; at most a few lines.

    images_of, classes_of: of some data; None: not known yet. floors: entries as in `ReportInput.floors`.
    """
    by_setting = {entry["setting"]: entry for entry in floors}
    known = Foresight(
        doses=doses(plan.arms, images_of), classes_of=classes_of, floors=by_setting,
        smallest_effect=plan.header["smallest_effect"],
    )  # fmt: skip
    rows: dict[str, list[str]] = {}
    total = 0
    for table in plan.tables:
        cells = {(cell.column, cell.row): cell for cell in table.cells if cell.arm_id is not None}
        for cell in cells.values():
            other = cells.get((cell.column, cell.versus or ""))
            if other is None:
                continue
            total += 1
            if kind := _of_cells(plan, known, (cell, other), plan.header["metric"]):
                rows.setdefault(kind, []).append(f"{table.key} / {cell.row}")
    lines = [
        f"cannot be tested at this size: {len(named)} of {total} comparisons: {kind} ({_listed(named)})"
        for kind, named in sorted(rows.items(), key=lambda item: -len(item[1]))
    ]
    return lines + [
        f"the claim “{claim}” cannot be tested at this size: {text}" for claim, text in _claims(plan, known)
    ]


def _of_cells(plan: Plan, known: Foresight, pair: tuple[Cell, Cell], measure: str) -> str:
    if pair[0].arm_id is not None and pair[0].arm_id == pair[1].arm_id:
        return "both rows are the same run at this size"
    arms = [plan.arms.get(cell.arm_id or "") for cell in pair]
    if arms[0] is None or arms[1] is None:
        return ""
    return known.of_pair(pair, (arms[0], arms[1]), measure)


def _claims(plan: Plan, known: Foresight) -> Iterator[tuple[str, str]]:
    tables = {table.key: table for table in plan.tables}
    for claim in plan.claims:
        cells = tables[claim.table].cells if claim.table in tables else ()
        row = _cell_of(cells, claim.row, claim.column)
        beside = claim.versus_column or (row.column if row else claim.column)
        versus = _cell_of(cells, claim.versus, beside)
        if row and versus and (text := _of_cells(plan, known, (row, versus), claim.measure)):
            yield claim.says, text


def _cell_of(cells: Iterable[Cell], row: str, column: str | None) -> Cell | None:
    """As `analysis.claims.cells_of_claim`: without a column the first that has the row."""
    return next((cell for cell in cells if cell.row == row and column in (None, cell.column)), None)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


# What can be said as soon as the first runs have ended.


def below_so_far(plan: Plan, top1: Mapping[str, Mapping[int, float]], floors: Mapping[str, Any]) -> list[str]:
    """The rows that are compared with and lie below the floor by now, a line each; then the others in one.

    Args:
        top1: arm_id -> seed -> percent, of the runs that have finished.
        floors: as `ReportInput.floors`.
    """
    judged = _means_below(plan, top1, floors)
    below = {arm_id: text for arm_id, text in judged.items() if text}
    return list(_lines_of(plan, below, known=len(judged)))


def below_everywhere(plan: Plan, top1: Mapping[str, Mapping[int, float]], floors: Mapping[str, Any]) -> str:
    """Why more seeds would not help: every comparison has a row whose mean is below its floor.

    Args:
        top1, floors: as for `below_so_far`.
    Returns:
        The reason of the first comparison; "" where one could be tested, or nothing is known of a floor.
    """
    below = _means_below(plan, top1, floors)
    reasons = []
    for table in plan.tables:
        arms = {(cell.column, cell.row): cell.arm_id for cell in table.cells}
        for cell in table.cells:
            versus = arms.get((cell.column, cell.versus or ""))
            if cell.arm_id is not None and versus is not None:
                reasons.append(below.get(cell.arm_id) or below.get(versus) or "")
    return reasons[0] if reasons and all(reasons) else ""


def _means_below(
    plan: Plan, top1: Mapping[str, Mapping[int, float]], floors: Mapping[str, Any]
) -> dict[str, str]:
    """arm_id -> that its mean is below its floor, or ""; of the arms with results and a floor."""
    entries = {entry["setting"]: entry for entry in floors["floors"]}
    cells = {
        cell.arm_id: cell
        for table in plan.tables
        for cell in table.cells
        if cell.arm_id and not cell.may_fail
    }
    judged: dict[str, str] = {}
    for arm_id, cell in cells.items():
        values, arm = list(top1.get(arm_id, {}).values()), plan.arms[arm_id]
        floor = floor_of(entries.get(setting_of(arm.recipe.data)))
        if floor is None or not values or arm.recipe.trainer != "harness":
            continue
        mean = sum(values) / len(values)
        name = f"“{cell.row}” (after {counted(len(values), 'seed')})"
        judged[arm_id] = below_floor(name, mean, mean, floor)
    return judged


def _lines_of(plan: Plan, below: Mapping[str, str], *, known: int) -> Iterator[str]:
    references: dict[str, list[str]] = {}  # arm -> the tables in which rows are compared with it
    for table in plan.tables:
        arms = {(cell.column, cell.row): cell.arm_id for cell in table.cells}
        for arm_id in dict.fromkeys(arms.get((cell.column, cell.versus or "")) for cell in table.cells):
            if arm_id in below:
                references.setdefault(str(arm_id), []).append(table.key)
    for arm_id, tables in references.items():
        yield f"{', '.join(tables)}: {below[arm_id]}: nothing that is compared with it can be tested"
    others = [text for arm_id, text in below.items() if arm_id not in references]
    if others:
        are = "is" if len(others) == 2 else "are"
        more = f"; so {are} {len(others) - 1} more of the {known} recipes with results" if others[1:] else ""
        yield others[0] + more
