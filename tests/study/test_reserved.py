"""Names that collide are refused in one line: with columns, with files, with what a reader cannot tell."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import pytest

from harness.analysis.findings import Effect, Level
from harness.plugins.load import PluginError, load
from harness.reporting.frames import EFFECT, LEVEL, RUN_FIELDS
from harness.runs.folder import RunFolder
from harness.study.plan import MEASURES
from harness.study.reserved import (
    CURVE_COLUMNS,
    METRICS,
    OF_A_STUDY,
    OF_A_TABLE,
    PREFIXES,
    RECORD_COLUMNS,
    TRICKS,
    check_apart,
    looks_like,
    why_not,
)
from harness.study.rows import SHOWN
from harness.study.schema import CHANGE_FIELDS
from harness.study.yaml import YamlFile
from harness.tracking.content import FINAL_METRICS, parameters
from tests.fuzz import workplace
from tests.study.fakes import HEAD, HEAD_LINES, mistakes

REPORTS = sorted((Path(__file__).parents[2] / "reports").glob("*/report.json"))
METRIC = "def score(logits, labels):\n    return 1.0\n\n\nMETRICS = {%r: score}\n"
TRICK = """
from dataclasses import dataclass
from typing import ClassVar
from harness.tricks.base import Trick


@dataclass(frozen=True, kw_only=True)
class Mine(Trick):
    name: ClassVar[str] = %r


TRICKS = (Mine,)
"""


def is_taken(column: str) -> bool:
    return column in METRICS or column.startswith(PREFIXES)


def test_every_column_beside_a_metric_is_in_the_one_list(tmp_path: Path):
    """Records, curves, events, MLflow's points, a report's runs and tables, the frames of Python."""
    place = workplace.finished_study(tmp_path)
    folder = RunFolder(next(path for path in sorted(place.runs_dir.glob("[!.]*")) if path.is_dir()))
    summary = folder.read_summary() or {}
    events = {key for event in folder.read_events() if event["kind"] == "epoch" for key in event}
    columns = {
        *RECORD_COLUMNS,
        *CURVE_COLUMNS,
        *FINAL_METRICS,
        *RUN_FIELDS,
        *MEASURES,
        *SHOWN,
        *EFFECT,
        *LEVEL,
    }
    columns |= {*summary, *events, *(field.name for field in dataclasses.fields(Level))} - {
        "secondary",
        "values",
    }
    columns |= {f"effect_{field.name}" for field in dataclasses.fields(Effect)}
    columns |= {"row", "column", "seed", "difference", "reason"}
    assert {"train_loss", "val_top1", "epoch", "lr", "energy_j", "missing_reason"} <= columns
    assert sorted(column for column in columns - {"without_value"} if not is_taken(column)) == []


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.parent.name)
def test_every_column_of_a_committed_report_is_in_it(report: Path):
    runs = json.loads(report.read_text())
    tables = [table["key"] for table in runs["findings"]["tables"]]
    lines = [(report.parent / "tables" / f"{key}.csv").read_text().partition("\n")[0] for key in tables]
    heads = list(csv.reader(lines))
    assert heads
    found = {*runs["runs"][0], *(column for head in heads for column in head)}
    assert sorted(column for column in found if not is_taken(column)) == []
    files = {path.stem for kind in ("tables", "figures") for path in (report.parent / kind).iterdir()}
    known = {f"{key}_{suffix}" for key in tables for suffix in OF_A_TABLE} | {*tables, *OF_A_STUDY}
    assert sorted(name for name in files if not {name, re.sub("_[0-9]+$", "", name)} & known) == []


def test_no_parameter_of_mlflow_can_be_a_trick_s(tmp_path: Path):
    place = workplace.finished_study(tmp_path)
    (spec, *_) = place.specs()
    heads = {name.partition(".")[0] for name in parameters(json.loads(json.dumps(dataclasses.asdict(spec))))}
    own = {trick.name for trick in spec.arm.tricks}
    assert sorted(heads - TRICKS - own) == []
    assert sorted(CHANGE_FIELDS - TRICKS) == []


@pytest.mark.parametrize("name", sorted(METRICS | {"val_acc", "seed_0", "paper_top1", "effect_p", "con"}))
def test_a_metric_of_a_taken_name_is_refused_with_its_line(name: str, tmp_path: Path):
    (tmp_path / "lab.py").write_text(METRIC % name)
    with pytest.raises(PluginError, match=rf"lab\.py:5: .*'{name}'") as caught:
        load(tmp_path / "lab.py")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(TRICKS | {"aux"}))
def test_a_trick_of_a_taken_name_is_refused_with_its_line(name: str, tmp_path: Path):
    (tmp_path / "lab.py").write_text(TRICK % name)
    with pytest.raises(PluginError, match=rf"lab\.py:\d+: .*'{name}'"):
        load(tmp_path / "lab.py")


@pytest.mark.parametrize(
    "name", ["accuracy", "kappa", "calibration", "probability_of_class_000", "top_3", "errors"]
)
def test_other_names_are_free(name: str, tmp_path: Path):
    assert why_not("metric", name) == ""
    (tmp_path / "lab.py").write_text(METRIC % name)
    assert list(load(tmp_path / "lab.py").tables.metrics) == [name]


def test_a_name_longer_than_a_key_is_refused():
    assert why_not("metric", "a" * 100) == ""
    assert why_not("metric", "a" * 101) == "a metric has a name of at most 100 bytes, got 101"


def table(key: str, *labels: str) -> str:
    rows = "\n".join(
        f"      - {{label: {json.dumps(label)}, set: {{lr: {n + 1}}}}}" for n, label in enumerate(labels)
    )
    return f"  {json.dumps(key)}:\n    title: T\n    design: rows\n    rows:\n{rows}\n"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["t", "T"], "'T' (U+0054) and 't' (U+0074) look the same to a reader or a file system; rename one"),
        (["a", "a_values"], "a table cannot be called 'a_values': the table 'a' has files of that name"),
        (
            ["a", "A_effects_2"],
            "a table cannot be called 'A_effects_2': the table 'a' has files of that name",
        ),
        (["runs"], "a table cannot be called 'runs': every report has files of that name"),
        (["paper_claims"], "a table cannot be called 'paper_claims': every report has files of that name"),
        (["Seeds_2"], "a table cannot be called 'Seeds_2': every report has files of that name"),
        (["con"], "'con' cannot be the name of a file on Windows; choose another one"),
        (["LPT1.x"], "'LPT1.x' cannot be the name of a file on Windows; choose another one"),
        (["a."], "'a.' cannot be the name of a file on Windows; choose another one"),
    ],
)
def test_tables_whose_files_would_overwrite_others_are_refused(keys: list[str], says: str, tmp_path: Path):
    text = HEAD + "tables:\n" + "".join(table(key, "a", "b") for key in keys)
    (said,) = mistakes(tmp_path, text)
    assert said.partition(": ")[2] == says
    assert int(said.split(":")[1]) > HEAD_LINES


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ("caf\u00e9", "cafe\u0301", "'cafe\u0301' (U+0065 U+0301) and 'caf\u00e9' (U+00E9) look the same"),
        ("ab", "a\u200bb", "'a\u200bb' (U+200B) and 'ab' (nothing there) look the same"),
        ("a b", "a  b", "'a  b' (U+0020) and 'a b' (nothing there) look the same"),
    ],
)
def test_labels_that_a_reader_cannot_tell_apart_are_refused(one: str, other: str, says: str, tmp_path: Path):
    said = mistakes(tmp_path, HEAD + "tables:\n" + table("t", one, other))
    assert any(says in each for each in said), said


def test_labels_that_differ_in_case_are_two():
    problems = YamlFile("x").problem_list()
    check_apart(["Mixup", "mixup"], ("rows",), problems, case=True)
    assert len(problems) == 0
    assert looks_like(" a\u00a0 b\u200d") == "a b"
