"""Studies with a script for tests: a shell script in place of a training, which takes a millisecond."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from harness.runs.folder import RunFolder
from harness.runs.provenance import keep_places, script_code
from harness.scripts.plan import plan_scripts
from harness.scripts.run import run_script
from harness.spec import Machine, ScriptRun, Stop
from harness.study.expand import ExpandOptions
from harness.study.plan import Plan

SCRIPT = """\
study: flags
question: Which flags help?
seeds: 2
script:
  run: sh train.sh {seed} {folder} {flags}
  results: {top1: "r.csv: acc"}
tables:
  main:
    design: rows
    baseline: --lr 0.1 --flip=0.5 --amp
    rows:
      - {label: plain}
      - {label: cosine, flags: --sched cosine}
      - {label: no flip, replace: {--flip: 0}}
"""
WRITES = 'printf "epoch,acc\\n0,50\\n1,7$1\\n" > "$2/r.csv"; echo "did $*"\n'  # 70 + seed


def study(folder: Path, changed: dict[str, str] | None = None, script: str = WRITES) -> Path:
    """The study above with texts replaced, beside its script."""
    text = SCRIPT
    for old, new in (changed or {}).items():
        assert old in text, old
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "train.sh").write_text(script)
    path = folder / "flags.yaml"
    path.write_text(text)
    return path


def with_table(folder: Path, table: str, script: str = WRITES) -> Path:
    """The study above with another table."""
    head = SCRIPT[: SCRIPT.index("    design")]
    path = study(folder, script=script)
    path.write_text(head + textwrap.indent(textwrap.dedent(table).strip(), "    ") + "\n")
    return path


def planned(path: Path, **options: Any) -> Plan:
    return plan_scripts(path, script_code, ExpandOptions(**options))


def commands(plan: Plan) -> dict[str, str]:
    """Row -> its command without what all have."""
    begin = "sh train.sh {seed} {folder} "
    cells = [(cell, plan.scripts[str(cell.arm_id)].line) for table in plan.tables for cell in table.cells]
    return {cell.row: line.removeprefix(begin) for cell, line in cells}


def machine(folder: Path) -> Machine:
    return Machine(runs_dir=folder / "runs", data_dir=folder / "data")


def execute(path: Path, stop: Stop = lambda: False, row: int = 0) -> tuple[str, RunFolder]:
    """One run of the study's plan, in this process."""
    plan = planned(path)
    run = plan.runs[row]
    keep_places(path.parent / "runs", plan.places)
    folder = RunFolder(path.parent / "runs" / run.run_id)
    spec = plan.spec(run)
    assert isinstance(spec, ScriptRun)
    return run_script(spec, folder, machine(path.parent), stop), folder


def reason(folder: RunFolder) -> str:
    """Why it failed."""
    last = folder.read_events()[-1]
    assert last["kind"] == "failed", last
    return str(last["message"])
