"""Bad results: a report, or a message, that says what can be concluded; no certain number, no traceback.

Records that no run should leave behind go through the analysis and into the formats; stores that are damaged
or gone through the command line.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import harness
from harness import cli
from harness.analysis import analyse
from harness.analysis.findings import NOT_EVALUABLE, UNDECIDED, Settings
from harness.reporting import ReportInput
from harness.reporting.figures.runs import draw_all
from harness.reporting.frames import ARCHIVE, packed, raw_files, read_raw, to_csv, to_json, unpacked
from harness.spec import Member
from harness.study.plan import Claim, Plan
from tests.analysis.plans import Noise, Row, frames_of, make_plan, observer, trained
from tests.conftest import mostly_campaign
from tests.fuzz.workplace import Workplace, finished_study
from tests.reporting.edits import whole_text
from tests.tracking.servers import free_port

Frames = tuple[pd.DataFrame, pd.DataFrame]
RESULTS = ["top1", "top5", "loss", "train_loss", "f1"]
IMAGES = 1000
CERTAIN = re.compile(r"\bnan\b|\binf\b|None", re.IGNORECASE)  # what an unknown number looks like, unguarded


def plan_of(seeds: int, metric: str = "top1") -> Plan:
    """A baseline and four rows, a network with an ensemble of it, two claims, a target."""
    rows = [
        Row(label=f"Row {k}", arm=trained(k), versus="Row 0" if k else None, paper={"top1": 76.0 + k})
        for k in range(5)
    ]
    one = trained(50)
    crops = Row(label="crops", arm=observer(Member(arm=one.arm_id)), versus="one")
    more = [Row(label="one", arm=one), crops, Row(label="two", arm=trained(51), versus="one")]
    said = {"source": "Table 1", "table": "t1", "versus": "Row 0"}
    claims = [
        Claim(says="Row 1 is better", row="Row 1", **said),
        Claim(says="Row 2 is faster", row="Row 2", measure="steps_to_target", expect="lower", **said),
    ]
    plan = make_plan({"t1": rows, "t2": more}, seeds=seeds, claims=claims, targets={"t1": {"row": "Row 0"}})
    plan.header = {**plan.header, "metric": metric}
    return plan


def good(plan: Plan) -> Frames:
    """Every run finished; rows 3 and 4 are clearly better."""
    levels = {arm_id: 80 + 0.9 * place for place, arm_id in enumerate(plan.arms)}
    records, curves = frames_of(plan, levels, Noise(metrics=("f1",)))
    rng = np.random.default_rng(0)
    records["predictions"] = [
        np.packbits(rng.random(IMAGES) < top1 / 100).tobytes() for top1 in records["top1"]
    ]
    return records, curves


def judged(plan: Plan, frames: Frames) -> tuple[ReportInput, str]:
    """The report's input and its answer, without figures. No number may look certain without a reason."""
    records, curves = frames
    settings = Settings(metric=plan.header["metric"], smallest_effect_pp=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of numpy: an overflow, a mean of nothing
        findings = analyse(plan, records, curves, settings)
        report = ReportInput(
            title="Bad", findings=findings, plan=plan, records=records, curves=curves, provenance={}
        )
        text = whole_text(report)
    json.loads(to_json(report), parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    raw_files(records, curves, {})
    for table in findings.tables:
        to_csv(table)
        for cell in table.cells:
            assert_no_false_certainty(cell)
    words = re.findall(r"^\*\*.* in words\*\*\n\n((?:- .*\n)+)", text, re.M)
    first = text.split("## Answer\n\n")[1].partition("\n")[0]
    answer = "\n".join([first, *words])
    assert not CERTAIN.search(answer), answer
    return report, answer


def assert_no_false_certainty(cell) -> None:
    """An interval or a verdict only where two seeds of both rows differ; every number is finite."""
    level, effect = cell.level, cell.effect
    if level is not None and level.n < 2:
        assert level.low is level.high is level.sd is None
    if effect is None:
        return
    if effect.n < 3:
        assert effect.verdict in (UNDECIDED, NOT_EVALUABLE)
    if effect.n < 2:
        assert effect.verdict == NOT_EVALUABLE
        assert effect.low is effect.p is effect.p_holm is effect.detectable is None
    if effect.verdict != NOT_EVALUABLE:
        assert effect.low is not None
        assert effect.low < effect.high
    for name in ("estimate", "low", "high", "p", "p_holm", "detectable", "prob_better", "new_images_low"):
        value = getattr(effect, name)
        assert value is None or math.isfinite(value)


def lines(answer: str) -> dict[str, str]:
    """Row -> what is said of it."""
    found = re.findall(r"^- \S+ ((?:Row \d|one|crops|two)) ?(.*)$|^- · (.+?): (.*)$", answer, re.M)
    return {a or c: b or d for a, b, c, d in found}


def lost(records: pd.DataFrame, which, status: str) -> pd.DataFrame:
    out = records.copy()
    out.loc[which, RESULTS] = np.nan
    out.loc[which, "status"] = status
    out["predictions"] = out["predictions"].where(~which, None)
    return out


def test_one_seed_gives_values_and_no_verdict():
    plan = plan_of(1)
    _, answer = judged(plan, good(plan))
    assert "6 — not evaluable" in answer
    assert lines(answer)["Row 3"].startswith("is not evaluable against Row 0: 1 seed: no verdict possible")


def test_two_seeds_give_intervals_and_no_verdict():
    plan = plan_of(2)
    report, answer = judged(plan, good(plan))
    effects = [cell.effect for table in report.findings.tables for cell in table.cells if cell.effect]
    assert {effect.verdict for effect in effects} == {UNDECIDED}
    assert "2 seeds: a verdict needs at least 3" in lines(answer)["Row 3"]


def test_rows_that_lack_seeds_are_judged_by_what_is_there_and_say_so():
    plan = plan_of(3)
    records, curves = good(plan)
    third = list(plan.arms)[3]
    records = records[~((records["arm_id"] == third) & (records["seed"] > 0))]
    report, answer = judged(plan, (records, curves))
    assert "1 seed: no verdict possible" in lines(answer)["Row 3"]
    assert report.findings.tables[0].cells[3].level.missing_reason == "2 not run yet"


@pytest.mark.parametrize("by_arm", [False, True])
def test_equal_values_of_all_seeds_are_no_proof_of_anything(by_arm: bool):
    plan = plan_of(3)
    records, curves = good(plan)
    means = records.groupby("arm_id")["top1"].transform("mean").round(2)
    records["top1"] = means if by_arm else 80.0
    _, answer = judged(plan, (records, curves))
    assert "6 — not evaluable" in answer
    assert "every seed gave the same value: the spread between seeds is unknown" in lines(answer)["Row 3"]


def test_metrics_that_are_nan_are_no_value_and_no_divergence():
    plan = plan_of(3)
    records, curves = good(plan)
    records[RESULTS] = np.nan
    report, answer = judged(plan, (records, curves))
    assert "6 — not evaluable" in answer
    assert "no value (3 with no finite value of top1)" in lines(answer)["Row 0"]
    assert {claim.answer for claim in report.findings.claims} == {"not settled"}


def test_a_diverged_baseline_leaves_its_rows_without_a_verdict_and_the_others_with_theirs():
    plan = plan_of(3)
    records, curves = good(plan)
    records = lost(records, records["arm_id"] == next(iter(plan.arms)), "diverged")
    report, answer = judged(plan, (records, curves))
    first, second = report.findings.tables
    assert {cell.effect.verdict for cell in first.cells if cell.effect} == {NOT_EVALUABLE}
    assert "3 of 3 runs diverged" in lines(answer)["Row 3"]
    assert all(cell.effect.estimate is not None for cell in second.cells if cell.effect)


@pytest.mark.parametrize(("status", "says"), [("failed", "3 failed"), ("running", "3 running")])
def test_where_no_run_has_a_result_the_report_says_why(status: str, says: str):
    plan = plan_of(3)
    records, curves = good(plan)
    _, answer = judged(plan, (lost(records, records["seed"] >= 0, status), curves.iloc[:0]))
    assert "6 — not evaluable" in answer
    assert says in lines(answer)["Row 0"]


def test_without_any_run_there_is_a_report_that_says_so():
    plan = plan_of(3)
    records, curves = good(plan)
    report, answer = judged(plan, (records.iloc[:0], curves.iloc[:0]))
    assert "6 — not evaluable" in answer
    assert "3 not run yet" in lines(answer)["Row 0"]
    assert draw_all(report) != []


@pytest.mark.parametrize("bits", [b"\x00", b"\x00" * 5000, b""])
def test_predictions_of_another_length_are_not_used_for_new_images(bits: bytes):
    plan = plan_of(3)
    records, curves = good(plan)
    records["predictions"] = [bits] * len(records)
    report, _ = judged(plan, (records, curves))
    effects = [cell.effect for table in report.findings.tables for cell in table.cells if cell.effect]
    assert all(effect.new_images_low is None for effect in effects)
    assert all(effect.low is not None for effect in effects)


def test_a_text_in_place_of_an_accuracy_is_no_value():
    plan = plan_of(3)
    records, curves = good(plan)
    records["top1"] = records["top1"].astype(object)
    records.at[3, "top1"] = "99.9"
    report, answer = judged(plan, (records, curves))
    assert report.findings.tables[0].cells[3].level.n == 2
    assert "99.9" not in answer


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300, -1e300, 250.0, -5.0])
def test_an_accuracy_that_is_no_percentage_is_no_value(value: float):
    plan = plan_of(3)
    records, curves = good(plan)
    records.loc[3, "top1"] = value
    report, answer = judged(plan, (records, curves))
    level = report.findings.tables[0].cells[3].level
    assert (level.n, level.diverged, level.without_value) == (2, 0, 1)
    assert "diverged" not in lines(answer)["Row 3"]


@pytest.mark.parametrize("value", [1e300, -1e300, 1e99, math.inf])
def test_a_metric_too_large_to_reckon_with_is_no_value(value: float):
    plan = plan_of(3, metric="f1")
    records, curves = good(plan)
    records.loc[3, ["f1", "loss"]] = value
    report, answer = judged(plan, (records, curves))
    assert report.findings.tables[0].cells[3].level.n == 2
    records[["f1", "loss", "train_loss"]] = value
    _, answer = judged(plan, (records, curves))
    assert "6 — not evaluable" in answer


def test_a_metric_too_small_to_square_has_no_spread():
    plan = plan_of(3, metric="f1")
    records, curves = good(plan)
    records["f1"] *= 1e-302
    _, answer = judged(plan, (records, curves))
    assert "the spread between seeds is unknown" in lines(answer)["Row 3"]


def test_a_study_whose_metric_is_in_no_record_is_not_evaluable():
    plan = plan_of(3, metric="f1")
    records, curves = good(plan)
    _, answer = judged(plan, (records.drop(columns="f1"), curves))
    assert "6 — not evaluable" in answer


def test_infinite_numbers_are_drawn_nowhere_kept_in_the_records_and_reach_no_target(tmp_path: Path):
    plan = plan_of(3)
    records, curves = good(plan)
    second = list(plan.arms)[2]
    records.loc[1, "train_loss"] = math.inf
    records.loc[2, "loss"] = -math.inf
    curves.loc[curves["arm_id"] == second, "val_top1"] = math.inf
    report, _ = judged(plan, (records, curves))
    speed = report.findings.speed[0].panels[0].rows[2]
    assert not any(speed.steps.values())
    assert draw_all(report) != []
    (tmp_path / "data").mkdir()
    (tmp_path / ARCHIVE).write_bytes(packed(raw_files(records, curves, {})))
    read, _ = read_raw(tmp_path)
    wanted = records.sort_values("run_id", kind="stable").reset_index(drop=True)
    for name in ("train_loss", "loss", "top1"):
        pd.testing.assert_series_equal(read[name], wanted[name])


def test_of_two_records_of_one_run_the_worse_counts():
    plan = plan_of(3)
    records, curves = good(plan)
    flattering = records[records["arm_id"] == list(plan.arms)[3]].assign(top1=99.0)
    _, once = judged(plan, (records, curves))
    _, twice = judged(plan, (pd.concat([records, flattering], ignore_index=True), curves))
    assert once == twice


# Stores


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = finished_study(tmp_path_factory.mktemp("template"))
    assert place.harness("sync") == 0
    return place


@pytest.fixture
def place(template: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the finished and mirrored study; its artifacts are its own."""
    copy = Workplace(tmp_path / "copy")
    shutil.copytree(template.path, copy.path)
    sql(copy, f"UPDATE runs SET artifact_uri = replace(artifact_uri, '{template.path}', '{copy.path}')")
    return copy


def sql(place: Workplace, statement: str) -> None:
    with closing(sqlite3.connect(place.path / "mlflow.db")) as connection:
        connection.execute(statement)
        connection.commit()


def keep(share: float) -> Callable[[Workplace], object]:
    def cut(place: Workplace) -> None:
        file = place.path / "mlflow.db"
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])

    return cut


def run(statement: str) -> Callable[[Workplace], object]:
    return lambda place: sql(place, statement)


def no_database(place: Workplace) -> None:
    (place.path / "mlflow.db").write_text("no database" * 1000)


def a_folder(place: Workplace) -> None:
    (place.path / "mlflow.db").unlink()
    (place.path / "mlflow.db").mkdir()


ONE = "run_uuid = (SELECT run_uuid FROM tags WHERE key = 'run_id' ORDER BY value LIMIT 1)"
OTHER_SCHEMA = run("UPDATE alembic_version SET version_num = '0123456789ab'")
TEXT_TOP1 = 'replace(value, \'"top1":\', \'"top1":"99","was":\')'
UNUSABLE = {
    "truncated": (keep(0.4), "database disk image is malformed"),
    "no database": (no_database, "file is not a database"),
    "a folder in its place": (a_folder, "delete .*mlflow.db and run `harness sync`"),
    "of another schema": (OTHER_SCHEMA, "found version 0123456789ab"),
    "a summary with a text as top1": (
        run(f"UPDATE tags SET value = {TEXT_TOP1} WHERE key = 'summary' AND {ONE}"),
        "has a top1 that is no number",
    ),
    "artifacts without their files": (
        lambda place: [path.unlink() for path in (place.path / "mlartifacts").rglob("predictions.bin")],
        "predictions.bin is missing in",
    ),
}


def test_half_a_summary_in_the_store_is_read_from_its_artifact(place: Workplace):
    findings = []
    for out in (place.path / "before", place.path / "after"):
        assert place.harness("report", "--out", str(out)) == 0
        findings.append(json.loads((out / "report.json").read_text())["findings"])
        run(f"UPDATE tags SET value = substr(value, 1, 99) WHERE key = 'summary' AND {ONE}")(place)
    assert findings[0] == findings[1]


@pytest.mark.parametrize("damage", UNUSABLE)
def test_a_damaged_store_is_one_sentence_with_its_mend_and_exit_code_2(
    damage: str, place: Workplace, capsys: pytest.CaptureFixture[str]
):
    break_it, says = UNUSABLE[damage]
    break_it(place)
    capsys.readouterr()
    assert place.harness("report", "--out", str(place.path / "out")) == 2
    said = capsys.readouterr().err
    assert re.search(says, said)
    assert "harness sync` to rebuild it" in said
    assert "no run is lost by it" in said
    assert "Traceback" not in said
    assert not (place.path / "out").exists()
    with pytest.raises(harness.StudyError):
        harness.load(place.study, runs=place.runs_dir).results()


TAGS = ("run_id", "arm_id", "seed", "status", "summary", "mirrored")


@pytest.mark.parametrize("tag", mostly_campaign(TAGS, "run_id", "status", "mirrored"))
def test_a_half_mirrored_run_is_mirrored_again_and_never_counts_as_diverged(tag: str, place: Workplace):
    study = harness.load(place.study, runs=place.runs_dir)
    whole = study.results(sync=True)
    sql(place, f"DELETE FROM tags WHERE key = '{tag}' AND {ONE}")
    if tag in ("arm_id", "seed", "summary"):
        with pytest.raises(harness.StudyError, match=f"lacks its {tag}: it says nothing; delete the MLflow"):
            study.results()
    elif tag != "mirrored":
        with pytest.warns(UserWarning, match="1 runs that have ended are not in the tracking store"):
            assert len(study.results().runs) == len(whole.runs) - 1
    mended = study.results(sync=True)
    assert mended.findings == whole.findings
    assert study.results().findings == whole.findings


def test_a_run_that_is_twice_in_the_store_counts_once_and_two_results_of_it_are_refused(place: Workplace):
    study = harness.load(place.study, runs=place.runs_dir)
    whole = study.results()
    with closing(sqlite3.connect(place.path / "mlflow.db")) as connection:
        [(source,)] = connection.execute(f"SELECT run_uuid FROM runs WHERE {ONE}").fetchall()
        for table in ("runs", "tags", "metrics"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join("'again'" if name == "run_uuid" else name for name in names)
            connection.execute(
                f"INSERT INTO {table} SELECT {chosen} FROM {table} WHERE run_uuid = ?", [source]
            )
        connection.commit()
    twice = study.results()
    assert twice.findings == whole.findings
    pd.testing.assert_frame_equal(twice.curves, whole.curves)
    sql(place, "UPDATE tags SET value = replace(value, '\"top1\":', '\"top1\":1.5,\"was\":') "
        "WHERE key = 'summary' AND run_uuid = 'again'")  # fmt: skip
    with pytest.raises(harness.StudyError, match="is twice in the MLflow store, with different results"):
        study.results()


def test_a_summary_that_was_edited_by_hand_is_named_and_its_run_left_out(
    place: Workplace, caplog: pytest.LogCaptureFixture
):
    folders = sorted(place.runs_dir.glob("[0-9a-f]*"))
    for folder, value in zip(folders[:2], ('"99.9"', "250.0"), strict=True):
        file = folder / "summary.json"
        file.write_text(re.sub(r'"top1": [0-9.]+', f'"top1": {value}', file.read_text()))
    found = harness.load(place.study, runs=place.runs_dir).results(sync=True)
    said = [record.getMessage() for record in caplog.records]
    assert any("its metrics are not numbers" in text and folders[0].name in text for text in said)
    assert any("its top1 is 250, which is no percentage" in text for text in said)
    assert 99.9 not in set(found.runs["top1"])
    assert 250.0 not in set(found.runs["top1"])


def test_a_server_that_refuses_is_said_within_seconds(place: Workplace, capsys: pytest.CaptureFixture[str]):
    uri = f"http://127.0.0.1:{free_port()}"
    assert place.harness("report", "--tracking-uri", uri, "--out", str(place.path / "out")) == 2
    said = capsys.readouterr().err
    assert f"cannot open the tracking store {uri}" in said
    assert "refused" in said
    assert "Traceback" not in said


def test_two_studies_with_different_metrics_are_not_put_side_by_side(
    place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    one = harness.load(place.study, runs=place.runs_dir).results().report(tmp_path / "one").parent
    other = tmp_path / "other"
    shutil.copytree(one, other)
    report = json.loads((other / "report.json").read_text())
    report["findings"]["settings"]["metric"] = "macro_f1"
    (other / "report.json").write_text(json.dumps(report))
    capsys.readouterr()
    code = cli.main(["report", str(one), str(other), "--out", str(tmp_path / "both")])
    assert code == 2
    said = capsys.readouterr().err
    assert "top1" in said
    assert "macro_f1" in said
    assert "Traceback" not in said
    assert not (tmp_path / "both").exists()


# Printed tables


def audited(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, what is printed, what is said to be wrong."""
    file = folder / "printed.csv"
    file.write_text(text)
    code = cli.main(["audit", str(file)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("table", "word", "why"),
    [
        ("label,value,plus_minus\na,76,0.2\nb,77,0.2\n", "cannot be told", "not stated and counted as 1"),
        ("label,value,runs\na,76,5\nb,77,5\n", "cannot be told", "no spread over runs is stated"),
        ("label,value,plus_minus,runs\na,76,0.1,5\nb,77,0.1,5\n", "better", "of unknown kind"),
        ("label,value,plus_minus,runs\na,76,0.1,1\nb,77,0.1,1\n", "cannot be told", "cannot be over"),
        ("label,value,plus_minus,runs\na,76,0,5\nb,77,0,5\n", "cannot be told", "rounded away"),
        ("label,value,plus_minus,runs\na,76,0.1,5\nb,77,1e-300,5\n", "cannot be told", "rounded away"),
    ],
)
def test_an_audit_says_what_a_printed_table_leaves_open(
    table: str, word: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code, printed, wrong = audited(table, tmp_path, capsys)
    assert (code, wrong) == (0, "")
    [line] = [line for line in printed.splitlines() if line.startswith("| b | a |")]
    assert line.endswith(f"| {word} |")
    assert why in printed
    assert ("—" in line.split("|")[4]) == (word == "cannot be told")  # no interval without a spread


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("nan,0.1,5,sd", "printed.csv:3: value must be a number, got nan"),
        ("77,abc,5,sd", "printed.csv:3: plus_minus must be a number, got 'abc'"),
        ("77,-1,5,sd", "printed.csv:3: plus_minus must be at least 0, got -1"),
        ("77,0.1,5,stderr", "printed.csv:3: unknown spread 'stderr'. Valid: ci95, sd, se, unknown"),
        ("77,0.1,many,sd", "printed.csv:3: runs must be a whole number, got 'many'"),
        ("1e300,1e300,5,sd", "printed.csv:3: value is 1e+300: too large for a result"),
    ],
)
def test_an_audit_refuses_what_is_no_result_and_names_the_line(
    cell: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = f"label,value,plus_minus,runs,spread\na,76,0.1,5,sd\nb,{cell}\n"
    code, printed, wrong = audited(text, tmp_path, capsys)
    assert (code, printed) == (2, "")
    assert says in wrong


def test_a_large_file_of_records_is_packed_as_it_was_and_less_tightly(tmp_path: Path, monkeypatch):
    files = {"runs.jsonl": b"".join(b'{"run": %d}\n' % (number * number) for number in range(5000))}
    tight = packed(files)
    monkeypatch.setattr("harness.reporting.frames.LARGE", 1000)
    (tmp_path / "data").mkdir()
    (tmp_path / ARCHIVE).write_bytes(packed(files))
    assert len(tight) < (tmp_path / ARCHIVE).stat().st_size
    assert unpacked(tmp_path)[1] == files
