"""One fuzzed study: does it plan, is it refused in words, or is there a bug?"""

from __future__ import annotations

import contextlib
import io
import json
import re
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.commands.display import show_plan
from harness.commands.workspace import build_catalogue, load_plugins
from harness.data.entry import Look
from harness.errors import Problem, StudyError
from harness.runs.state import reconcile
from harness.study.catalogue import Catalogue
from harness.study.expand import ExpandOptions, expand, load_study
from harness.study.plan import plan_to_json
from harness.study.rows import Study
from tests.fuzz.bounds import TooLong, Watch, within

LIMIT_S = 5.0  # of one core, for each of reading and planning at one size
MORE_S_PER_ROW = 0.3e-3  # a table may have 200,000 rows
MOST_SHOWN = 2_000  # rows: writing more into a terminal is not planning
PLANNED, REFUSED, BUG = "planned", "refused", "bug"
# What is said of a file as a whole, which has no line.
WHOLE_FILE = re.compile(
    r"not UTF-8|the file is empty|nested too deeply|not valid YAML|cannot be read|larger than"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one case. `why`: of a bug, everything that is known."""

    kind: str
    why: str = ""


class Judge:
    """Plans studies as `harness plan` does, at every size, in one folder that it may only read."""

    def __init__(self, folder: Path) -> None:
        self.study = folder / "study.yaml"
        self.watch = Watch(folder)

    def judge(self, text: bytes) -> Verdict:
        """Write the study, load it, and plan it at each of its sizes and in its smoke form."""
        self.study.write_bytes(text)
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said), self.watch.on():
            verdict = self._verdict()
        if verdict.kind == BUG:
            return verdict
        if said.getvalue():
            return Verdict(BUG, f"wrote to stderr: {said.getvalue()[:500]}")
        return Verdict(BUG, f"touched: {self.watch.seen[:5]}") if self.watch.seen else verdict

    def _verdict(self) -> Verdict:
        kinds = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                kinds += self._plans()
        except StudyError as error:
            wrong = [str(problem)[:300] for problem in error.problems if not self._is_clear(problem)]
            clear = error.problems and not wrong
            return Verdict(REFUSED) if clear else Verdict(BUG, f"not a clear message: {wrong[:3]}")
        except (Exception, TooLong, SystemExit) as error:
            trace = "".join(traceback.format_exception(error)[-6:])
            return Verdict(BUG, f"{type(error).__name__}: {str(error)[:500]}\n{trace[-3000:]}")
        return Verdict(PLANNED)

    def _plans(self) -> Iterator[str]:
        """Every plan of the study, each made, written as JSON and shown as `harness plan` does.

        Raises:
            StudyError: it has none, or not at one of its sizes.
        """
        with within(LIMIT_S):
            catalogue = build_catalogue(self.study.parent / "data", load_plugins(self.study))
            study = load_study(self.study, catalogue)
        limit_s = LIMIT_S + MORE_S_PER_ROW * sum(map(len, study.rows.values()))
        for size in study.file.sizes:
            with within(limit_s):
                self._plan(study, catalogue, ExpandOptions(size=size))
            yield size
        with within(limit_s):
            self._plan(study, catalogue, ExpandOptions(smoke=True))

    def _plan(self, study: Study, catalogue: Catalogue, options: ExpandOptions) -> None:
        plan = expand(study, catalogue, options)
        reconcile(plan, self.study.parent / "runs")
        if sum(len(table.cells) for table in plan.tables) + len(plan.runs) <= MOST_SHOWN:
            json.dumps(plan_to_json(plan))
            if options.size == "mini":
                show_plan(plan, Look())

    def _is_clear(self, problem: Problem) -> bool:
        """file:line: a sentence of printable characters, of a length that a person reads."""
        beside = Path(problem.path).parent == self.study.parent
        has_line = problem.line > 0 or WHOLE_FILE.match(problem.message)
        controls = [each for each in problem.message if unicodedata.category(each) in ("Cc", "Cs")]
        return (
            bool(beside and has_line and problem.message.strip() and not controls)
            and len(problem.message) < 5000
        )
