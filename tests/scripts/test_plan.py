"""The plan of a study with a script: what its rows run, what a run is, and the sentence for each mistake."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import StudyError
from harness.runs.provenance import script_code
from harness.scripts.plan import plan_scripts
from harness.scripts.study_file import ReadAs, read_as
from harness.spec import ScriptRun, run_id, spec_from_json
from harness.study.expand import ExpandOptions
from tests.scripts.studies import WRITES, commands, planned, study, with_table

BASE = "--lr 0.1 --flip=0.5 --amp"


def mistakes(path: Path) -> str:
    with pytest.raises(StudyError) as error:
        planned(path)
    return str(error.value)


def ids(path: Path) -> list[str]:
    return list(planned(path).arm_labels)


def test_rows_add_flags_and_replace_values(tmp_path):
    assert commands(planned(study(tmp_path))) == {
        "plain": BASE,
        "cosine": f"{BASE} --sched cosine",
        "no flip": "--lr 0.1 --flip=0 --amp",
    }


FLAGS_OF_A_SCRIPT = """
study: my_flags
question: Which of these flags help?
script:
  run: python train.py --data {data} --seed {seed} --out {folder} {flags}
  resume: --resume {folder}/last.pth
  results: {top1: "summary.csv: eval_top1", loss: "log.txt: /val_loss=([0-9.]+)/ last"}
tables:
  main:
    design: add_one_in
    baseline: --lr 0.1
    rows: [{label: cosine, flags: --sched cosine}, {label: no flip, replace: {--hflip: 0}}]
"""


def test_what_a_script_itself_names_may_be_replaced_and_data_are_where_all_data_are(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "my_flags.yaml"
    path.write_text(FLAGS_OF_A_SCRIPT)
    script = tmp_path / "train.py"
    script.write_text('parser.add_argument("--hflip", type=float, default=0.5)\n')
    plan = plan_scripts(path, script_code, ExpandOptions(), tmp_path / "data")
    begin = "python train.py --data {data} --seed {seed} --out {folder} --lr 0.1"
    assert [arm.line for arm in plan.scripts.values()] == [
        begin, f"{begin} --sched cosine", f"{begin} --hflip 0"
    ]  # fmt: skip
    assert {place.data for place in plan.places.values()} == {str(tmp_path / "data")}
    path.write_text(FLAGS_OF_A_SCRIPT.replace("--hflip:", "--hflp:"))
    said = "unknown flag '--hflp'; did you mean '--hflip'? "
    with pytest.raises(StudyError, match=re.escape(said) + ".* say flags: --hflp 0"):
        plan_scripts(path, script_code, ExpandOptions(), tmp_path / "data")
    script.write_text("")
    path.write_text(FLAGS_OF_A_SCRIPT)
    with pytest.raises(StudyError, match=r"replaces a flag that is not there.* say flags: --hflip 0"):
        plan_scripts(path, script_code, ExpandOptions(), tmp_path / "data")


ROWS = """
rows:
  - {label: cosine, flags: --sched cosine}
  - {label: slow, replace: {--lr: 0.01}}
"""
BOTH = "--lr 0.01 --flip --sched cosine"
DESIGNS = {
    "stack": {"cosine": "--lr 0.1 --flip --sched cosine", "slow": BOTH},
    "add_one_in": {
        "baseline": "--lr 0.1 --flip",
        "+ cosine": "--lr 0.1 --flip --sched cosine",
        "+ slow": "--lr 0.01 --flip",
    },
    "leave_one_out": {
        "all": BOTH,
        "without cosine": "--lr 0.01 --flip",
        "without slow": "--lr 0.1 --flip --sched cosine",
    },
    "factorial": {
        "none": "--lr 0.1 --flip",
        "slow": "--lr 0.01 --flip",
        "cosine": "--lr 0.1 --flip --sched cosine",
        "cosine + slow": BOTH,
    },
}


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_switches_rows_on_and_off(tmp_path, design):
    path = with_table(tmp_path, f"design: {design}\nbaseline: --lr 0.1 --flip{ROWS}")
    assert commands(planned(path)) == DESIGNS[design]


def test_a_grid_is_over_values_of_flags(tmp_path):
    table = """
    design: grid
    baseline: --lr 0.1
    factors: {--lr: [0.1, 0.2], --amp: [true, null]}
    exclude: [{--lr: 0.2, --amp: null}]
    """
    assert commands(planned(with_table(tmp_path, table))) == {
        "lr=0.1, amp": "--lr 0.1 --amp",
        "lr=0.1, no amp": "--lr 0.1",
        "lr=0.2, amp": "--lr 0.2 --amp",
    }


def test_columns_and_sizes_have_flags_of_their_own(tmp_path):
    sizes = "sizes: {small: {flags: --epochs 1}, large: {flags: --epochs 9}}\ntables:"
    columns = "    columns: {a: {flags: --data a}, b: {flags: --data b}}\n    baseline:"
    path = study(tmp_path, {"tables:": sizes, "    baseline:": columns})
    lines = [arm.line for arm in planned(path, size="large").scripts.values()]
    assert lines[1].endswith("--amp --epochs 9 --data b")
    assert next(iter(planned(path).scripts.values())).line.endswith("--epochs 1 --data a")
    assert len(lines) == 6


def test_rows_that_come_to_one_command_share_their_runs(tmp_path):
    path = study(tmp_path, {"{--flip: 0}": "{--flip: 0.5}"})
    assert len(planned(path).runs) == 2 * 2


def test_a_run_is_found_again_wherever_the_study_stands(tmp_path):
    here = planned(study(tmp_path / "here"))
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere")
    there = planned(tmp_path / "elsewhere" / "flags.yaml")
    assert [run.run_id for run in here.runs] == [run.run_id for run in there.runs]
    spec = here.spec(here.runs[0])
    assert isinstance(spec, ScriptRun)
    assert spec_from_json(spec.to_json()) == spec
    assert spec.run_id == here.runs[0].run_id == run_id(spec.arm.arm_id, 0)
    assert str(tmp_path) not in str(spec.to_json())


def test_a_file_elsewhere_is_known_by_its_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "other.sh").write_text(WRITES)
    path = study(tmp_path / "s", {"sh train.sh": f"sh {tmp_path}/a/other.sh"})
    before = ids(path)
    (tmp_path / "a").rename(tmp_path / "b")
    path.write_text(path.read_text().replace("/a/other", "/b/other"))
    assert ids(path) == before
    (tmp_path / "b" / "other.sh").write_text("exit 1\n")
    assert ids(path) != before


@pytest.mark.parametrize("change", ["script", "results", "flags"])
def test_what_changes_the_result_makes_other_runs(tmp_path, change):
    path = study(tmp_path)
    before = ids(path)
    if change == "script":
        (tmp_path / "train.sh").write_text(WRITES + "# other\n")
    else:
        old, new = {"results": ("r.csv: acc", "r.csv: epoch"), "flags": ("--lr 0.1", "--lr 0.2")}[change]
        path.write_text(path.read_text().replace(old, new))
    assert not set(ids(path)) & set(before)


def test_what_does_not_change_it_makes_none(tmp_path):
    path = study(tmp_path)
    before = ids(path)
    path.write_text(
        path.read_text().replace("script:\n", "script:\n  grace: 5\n  resume: --resume {folder}/x.pth\n")
    )
    assert ids(path) == before


def test_the_repository_counts_and_committing_it_does_not(tmp_path):
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    path = study(tmp_path)
    alone = ids(path)
    (tmp_path / "library.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    committed = ids(path)
    assert not set(committed) & set(alone)
    path.write_text(path.read_text().replace("seeds: 2", "seeds: 3"))  # the study is no code
    (tmp_path / "untracked.txt").write_text("x")
    assert ids(path) == committed
    (tmp_path / "library.py").write_text("x = 2\n")
    tried = ids(path)
    assert not set(tried) & set(committed)
    git("commit", "-qam", "second")
    assert ids(path) == tried


MISTAKES = {
    "no seed": (
        {"{seed}": "1"},
        "flags.yaml:5: 'run' has no {seed}: every seed would be the same run; a script that takes none is "
        "started by one that sets it (docs/scripts.md)",
    ),
    "a placeholder": (
        {"{folder}": "{folders}"},
        "5: unknown placeholder '{folders}'; did you mean '{folder}'?",
    ),
    "in a row": (
        {"--sched cosine": "'--x {sed}'"},
        "13: unknown placeholder '{sed}'; did you mean '{seed}'?",
    ),
    "no such script": ({"train.sh": "trian.sh"}, "5: there is no trian.sh in "),
    "the nearest script": ({"train.sh": "trian.sh"}, "unknown file 'trian.sh'; did you mean 'train.sh'?"),
    "no such program": ({"sh train": "shh train"}, "5: the program 'shh' is not on the PATH"),
    "beside it": (
        {"sh train.sh": "train.sh"},
        "5: the program 'train.sh' is not on the PATH; ./train.sh is the file",
    ),
    "not executable": (
        {"sh train.sh": "./train.sh"},
        "5: './train.sh' is not executable: chmod +x ./train.sh",
    ),
    "a quote": ({"sh train.sh": "sh 'train.sh"}, "5: script.run is wrong: no closing quotation"),
    "no place for flags": ({" {flags}": ""}, "'run' has no {flags}, and so no place for the flags of a row"),
    "flags not alone": ({" {flags}": " x{flags}"}, "5: {flags} stands alone, and once"),
    "no results": ({'{top1: "r.csv: acc"}': "{}"}, "6: script.results must name at least one result"),
    "a result": ({"r.csv: acc": "r.csv"}, "6: script.results.top1 must be 'FILE: COLUMN', "),
    "outside": (
        {"r.csv: acc": "../r.csv: acc"},
        "6: script.results.top1 must name a file below the run's own folder",
    ),
    "absolute": (
        {"r.csv: acc": "/tmp/r.csv: acc"},
        "must name a file below the run's own folder, got '/tmp/r.csv'",
    ),
    "no group": (
        {"r.csv: acc": "r.csv: /acc/"},
        "must have one group, such as acc=([0-9.]+), got 0 in 'acc'",
    ),
    "no expression": ({"r.csv: acc": "r.csv: /(acc/"}, "'(acc' is no regular expression"),
    "a choice": ({"r.csv: acc": "r.csv: /(a)/ lst"}, "unknown choice of a match 'lst'; did you mean 'last'?"),
    "a metric": ({"seeds: 2": "metric: top5"}, "3: unknown metric 'top5'; did you mean 'top1'? Valid: top1"),
    "a taken name": ({"top1:": "epoch:"}, "6: a metric cannot be called 'epoch'"),
    "what matters": ({"top1:": "auc:"}, "say smallest_effect: the difference in auc that matters"),
    "no data": (
        {"--amp": "--amp {data}"},
        "the command names {data}; say data: FOLDER in the script or in the size",
    ),
    "set already": (
        {"--sched cosine": "--lr 0.2"},
        "13: the flags of 'cosine' clash: --lr is there already (--lr 0.1); "
        "say replace: {--lr: 0.2} (main, row 'cosine')",
    ),
    "not there": (
        {"{--flip: 0}": "{--flop: 0}"},
        "14: 'no flip' replaces a flag that is not there: unknown flag '--flop'; did you mean '--flip'?",
    ),
    "the harness's own": (
        {"{--flip: 0}": "{--out: 0}", "{folder}": "--out {folder}"},
        "replaces --out '{folder}', which the harness fills in",
    ),
    "false": (
        {"{--flip: 0}": "{--flip: false}"},
        "--flip: say null to take a flag out, true for one without a value",
    ),
    "a key": ({"  run:": "  rnu: x\n  run:"}, "5: unknown key 'rnu'; did you mean 'run'?"),
    "our own keys": ({"seeds: 2": "baseline: {model: resnet50}"}, "3: unknown key 'baseline'"),
    "a design": ({"design: rows": "design: row"}, "unknown design 'row'; did you mean 'rows'?"),
    "twice": ({"label: no flip": "label: cosine"}, "duplicate row label 'cosine' in table 'main'"),
    "resume": ({"  run:": "  resume: --resume last.pth\n  run:"}, "5: 'resume' names no file of the run"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_sentence_with_its_line(tmp_path, kind):
    changed, said = MISTAKES[kind]
    assert said in mistakes(study(tmp_path, changed))


def test_changes_that_cannot_be_on_together_are_refused(tmp_path):
    rows = "rows: [{label: a, replace: {--lr: 1}}, {label: b, replace: {--lr: 2}}]"
    said = mistakes(with_table(tmp_path, f"design: factorial\nbaseline: --lr 0.1\n{rows}"))
    assert "'a' and 'b' both set --lr: they cannot be on together (main, row 'a + b')" in said
    later = with_table(tmp_path, f"design: stack\nbaseline: --lr 0.1\n{rows}")
    assert commands(planned(later)) == {"a": "--lr 1", "b": "--lr 2"}


def test_a_size_that_is_not_there_is_named(tmp_path):
    path = study(tmp_path)
    with pytest.raises(StudyError, match=r"unknown size 'gpu'\. Valid: all"):
        planned(path, size="gpu")
    with pytest.raises(StudyError, match="a script has no smoke form of ours"):
        planned(path, smoke=True)


def test_what_reads_a_result():
    assert read_as("r.csv: acc") == ReadAs("r.csv", "csv", "acc")
    assert read_as("*/out.json: test.acc * 100") == ReadAs("*/out.json", "json", "test.acc", scale=100.0)
    assert read_as("log.txt: /a: ([0-9]+)/ min") == ReadAs("log.txt", "match", "a: ([0-9]+)", "min")
