"""`harness verify` says whether every number of a report follows from its raw records."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from harness.cli import build_parser
from harness.commands.verify import verify as verify_report
from harness.commands.workspace import workspace
from harness.reporting.figures.style import STYLE
from harness.reporting.frames import ARCHIVE, packed, unpacked
from scripts.rewrite_reports import rewrite
from tests.conftest import Once
from tests.end_to_end.conftest import Finished, copy_of
from tests.end_to_end.workplace import ROOT, Workplace
from tests.reporting.edits import edit_raw, loosen
from tests.timing import PATIENCE_S

campaign = partial(pytest.param, marks=pytest.mark.campaign)
COMMITTED = "batch_norm_mnist"  # the smallest; `make verify` does them all


def verify(place: Workplace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return place.call("verify", "reports/tiny", "--study", "tiny.yaml", *arguments)


def with_one_digit_up(text: str, marked: str) -> str:
    """The last digit of the first match of `marked`, one up."""
    found = re.search(marked, text)
    assert found, marked
    at = found.end() - 1
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def edit_one_digit(folder: Path, name: str, marked: str) -> None:
    """In a file of a report, or in a member of its archive."""
    if name.startswith(f"{ARCHIVE}/"):
        edit_raw(folder, Path(name).name, lambda text: with_one_digit_up(text, marked))
    else:
        (folder / name).write_text(with_one_digit_up((folder / name).read_text(), marked))


def test_a_report_follows_from_its_records_and_they_from_the_run_folders(copy: Workplace):
    done = verify(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"reports/tiny: verified: \d+ files, [\d,]+ numbers; 6 of 6 runs compared", done.stdout)


def test_without_the_run_folders_it_is_computed_from_the_records_beside_the_report(copy: Workplace):
    shutil.rmtree(copy.runs_dir)
    done = verify(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "computed from the records of 6 runs (no run folder is here)" in done.stdout


def test_a_study_may_be_named_in_place_of_its_report_folder(copy: Workplace):
    done = copy.call("verify", "tiny.yaml", "--study", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reports/tiny: verified: " in done.stdout
    shutil.rmtree(copy.report_dir)
    done = copy.call("verify", "tiny.yaml", "--study", "tiny.yaml")
    assert done.returncode == 2
    assert "tiny.yaml: has no report in " in done.stderr


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("report.md", r"\d\.\d\d"),
        campaign("report.html", r">\d\d\.\d"),
        campaign("report.json", r'"mean": \d+\.\d'),
        campaign("report.json", r'"torch": \[\s+"\d'),
        campaign("tables/only.csv", r",\d\d"),
        campaign("tables/only.tex", r"\d\.\d"),
        ("data/records.zip/runs.jsonl", r'"top1": \d\d'),
        campaign("data/records.zip/runs.jsonl", r'"started_s": \d+'),
        campaign("data/records.zip/curves.csv", r"\d\.\d\d\d"),
    ],
)
def test_one_edited_digit_is_found_without_the_runs_and_its_file_named(
    copy: Workplace, name: str, marked: str
):
    shutil.rmtree(copy.runs_dir)
    edit_one_digit(copy.report_dir, name, marked)
    done = verify(copy)
    assert done.returncode == 1, done.stdout
    assert re.search(r" differences?; ", done.stdout)
    if not name.startswith("data/"):
        assert f"  {name}: " in done.stdout


DIGITS = re.compile(r"(?<![\w.#-])-?\d+(?:\.\d+)?(?![\w.-])")


def edit_a_printed_digit(path: Path, rng: random.Random) -> str:
    """One of the first nine digits of one number anywhere in the file. Returns: the line, edited."""
    text = path.read_text()
    places = [
        found.start() + offset
        for found in DIGITS.finditer(text)
        for offset, digit in enumerate(found[0][:9])
        if digit.isdigit()
    ]
    at = rng.choice(places)
    edited = text[:at] + str((int(text[at]) + rng.randint(1, 9)) % 10) + text[at + 1 :]
    path.write_text(edited)
    return edited[edited.rfind("\n", 0, at) + 1 :].partition("\n")[0]


@pytest.mark.parametrize("draw", [0, campaign(1), campaign(2)])
def test_a_digit_edited_at_any_printed_place_of_any_text_or_drawing_is_found(copy: Workplace, draw: int):
    rng = random.Random(draw)
    shutil.rmtree(copy.runs_dir)
    kinds = (".md", ".html", ".tex", ".csv", ".svg")
    written = [path for path in sorted(copy.report_dir.rglob("*")) if path.suffix in kinds]
    paths = [path for path in written if path.parent.name != "data"]
    assert {path.suffix for path in paths} == set(kinds)
    edited = {str(path.relative_to(copy.report_dir)): edit_a_printed_digit(path, rng) for path in paths}
    args = build_parser().parse_args(
        ["verify", str(copy.report_dir), "--study", str(copy.study), "--runs", "none"]
    )
    result = verify_report(copy.report_dir, args, workspace(args))
    found = {text.partition(": ")[0] for text in result.wrong}
    assert found == set(edited), {name: edited[name] for name in edited.keys() - found}


def edit_a_number_of_the_findings(path: Path, rng: random.Random, digit: int) -> None:
    """The digit of one computed number in report.json: 1 is the first that is not 0."""
    text = path.read_text()
    start, end = text.index('\n "findings": {'), text.index('\n "header": ')
    numbers = [found for found in re.finditer(r"\d+\.\d+", text[start:end]) if len(found[0]) > 14]
    chosen = rng.choice(numbers)
    first = next(index for index, each in enumerate(chosen[0]) if each not in "0.")
    shown = [index for index, each in enumerate(chosen[0]) if index >= first and each != "."]
    at = start + chosen.start() + shown[digit - 1]
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


@pytest.mark.parametrize("digit", [1, campaign(3), campaign(6), campaign(8)])
def test_a_digit_of_a_computed_number_is_found_where_it_matters(copy: Workplace, digit: int):
    edit_a_number_of_the_findings(copy.report_dir / "report.json", random.Random(digit), digit)
    done = verify(copy)
    assert done.returncode == 1, done.stdout
    assert "  report.json: findings." in done.stdout


@pytest.mark.campaign
def test_the_last_digits_of_another_cpu_are_a_note_and_the_rule_is_said():
    """Its pooled_sd is 0.5769878681566913; the kernels of other CPUs sum to ...6971."""
    done = verify_committed(OPENBLAS_CORETYPE="Prescott")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "computed floats within 1e-09 relative, all else exactly" in done.stdout


def test_a_last_digit_that_another_cpu_may_sum_to_is_no_difference(copy: Workplace):
    path = copy.report_dir / "report.json"
    text = path.read_text()
    sd = re.search(r'"pooled_sd": ([\d.]{12,})', text)
    assert sd
    path.write_text(text.replace(sd[0], f'"pooled_sd": {float(sd[1]) * (1 + 1e-13)!r}'))
    done = verify(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    says = "note: differs in the last digits only (another CPU): 1 computed number, by at most 1e-13"
    assert says in done.stdout


def test_a_study_that_plans_other_runs_by_now_is_one_sentence(copy: Workplace):
    copy.study.write_text(copy.study.read_text().replace("epochs: 6", "epochs: 5"))
    done = verify(copy)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        "  the study has changed since: of the report's 6 runs it plans 6 no more; "
        "verify with the study of that time (--study FILE, or its commit), or train and report anew"
    )
    assert "1 difference; " in done.stdout


def test_an_edited_record_is_followed_back_to_its_run(copy: Workplace):
    edit_one_digit(copy.report_dir, "data/records.zip/runs.jsonl", r'"top1": \d\d')
    done = verify(copy)
    assert done.returncode == 1
    assert re.search(r"records.zip/runs.jsonl: run \w+: top1 is [\d.]+, its folder has [\d.]+", done.stdout)


def edit_summary(place: Workplace, **values: Any) -> str:
    """Change the summary of the first run that is here. Returns: its run_id."""
    folder = place.folders()[0]
    summary = json.loads(folder.summary.read_text())
    summary["metrics"] |= {name: value for name, value in values.items() if name in summary["metrics"]}
    summary |= {name: value for name, value in values.items() if name in summary}
    folder.summary.write_text(json.dumps(summary))
    return folder.run_id


@pytest.fixture(scope="module")
def trained_again(finished: Finished, once: Once[Workplace]) -> Workplace:
    """The report of the finished study; of its runs two folders have another training."""

    def train(folder: Path) -> Workplace:
        place = copy_of(finished, folder / "again")
        for run in place.folders()[:2]:
            shutil.rmtree(run.path)
        done = place.call("run", "tiny.yaml", "--no-report", "--on", "inline")
        assert done.returncode == 0, done.stderr
        return place

    return once("trained again", train)


@pytest.fixture
def again(trained_again: Workplace, tmp_path: Path) -> Workplace:
    return Workplace(shutil.copytree(trained_again.path, tmp_path / "again"))


def test_beside_another_training_of_its_runs_a_report_is_verified_against_its_own_records(again: Workplace):
    done = verify(again)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"  note: 2 of the report's 6 runs were trained again here \(from 20.* UTC on .*; 2 to the same "
        r"results\): the report was computed from other trainings of them \(from 20.* UTC on .*\), and is "
        r"verified against their records, data/records.zip\n",
        done.stdout,
    )
    assert "; 4 of 6 runs compared with their folders; " in done.stdout
    # As on another CPU: the same run, other bits.
    edit_summary(again, top1=12.5, loss=2.0)
    for run in again.folders()[2:]:
        shutil.rmtree(run.path)
    done = verify(again)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 1 to the same results)" in done.stdout
    assert "computed from the records of 6 runs (no folder of these trainings is here)" in done.stdout


def test_beside_another_training_an_edited_record_is_found_all_the_same(again: Workplace):
    edit_one_digit(again.report_dir, "data/records.zip/runs.jsonl", r'"top1": \d\d')
    done = verify(again)
    assert done.returncode == 1, done.stdout
    assert re.search(r"runs.jsonl: run \w+: top1 is [\d.]+, its predictions say [\d.]+\n", done.stdout)
    assert "  data/: is not what the report was computed from: " in done.stdout


def test_a_whole_report_written_anew_from_an_edited_record_does_not_follow_from_its_predictions(
    again: Workplace,
):
    edit_one_digit(again.report_dir, "data/records.zip/runs.jsonl", r'"top1": \d\d')
    shutil.move(again.runs_dir, again.path / "elsewhere")
    rewrite(again.report_dir, study=again.study, anyway=True)
    done = verify(again)
    assert done.returncode == 1, done.stdout
    assert len(done.stdout.splitlines()) == 2
    assert re.match(r"  data/records.zip/runs.jsonl: run \w+: top1 is .*, its predictions say", done.stdout)


@pytest.mark.parametrize("name", ["top1", "started_s", campaign("loss"), campaign("ended_s")])
def test_a_folder_of_the_same_training_with_another_number_is_a_difference(copy: Workplace, name: str):
    run_id = edit_summary(copy, **{name: 1.5})
    done = verify(copy)
    assert done.returncode == 1
    assert f"run {run_id}: {name} is " in done.stdout
    assert "trained again" not in done.stdout


def test_a_record_that_says_other_times_is_no_other_training(copy: Workplace):
    for name in ("started_s", "ended_s"):
        edit_one_digit(copy.report_dir, "data/records.zip/runs.jsonl", rf'"{name}": \d+')
    done = verify(copy)
    assert done.returncode == 1, done.stdout
    assert "  data/: is not what the report was computed from: " in done.stdout


@pytest.mark.campaign
def test_a_changed_bit_of_the_predictions_of_a_run_is_found(copy: Workplace):
    folder = next(folder for folder in copy.folders() if folder.predictions.exists())
    bits = bytearray(folder.predictions.read_bytes())
    bits[0] ^= 1
    folder.predictions.write_bytes(bytes(bits))
    done = verify(copy)
    assert done.returncode == 1
    assert f"run {folder.run_id}: predictions differ from its folder's" in done.stdout


@pytest.mark.campaign
def test_a_missing_and_a_foreign_file_are_found(copy: Workplace):
    (copy.report_dir / "tables" / "only.csv").unlink()
    (copy.report_dir / "figures" / "more.svg").write_text("<svg/>")
    done = verify(copy)
    assert "tables/only.csv: is missing" in done.stdout
    assert "figures/more.svg: is not a file of this report" in done.stdout


def test_a_report_with_its_records_as_text_is_verified_as_it_was(copy: Workplace):
    loosen(copy.report_dir)
    done = verify(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    edit_one_digit(copy.report_dir, "data/runs.jsonl", r'"top1": \d\d')
    assert "data/records.zip/runs.jsonl: run" in verify(copy).stdout


def test_archives_of_another_zlib_are_equal_and_what_lies_beside_one_is_foreign(copy: Workplace):
    place, files = unpacked(copy.report_dir)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    assert place.read_bytes() != packed(files)
    assert verify(copy).returncode == 0
    (place.parent / "runs.jsonl").write_bytes(files["runs.jsonl"])
    done = verify(copy)
    assert done.returncode == 1
    assert "data/runs.jsonl: is not a file of this report" in done.stdout


HERE = f"style {STYLE}"


def draw_otherwise(folder: Path, was: str, now: str) -> None:
    """Let a report say that it was drawn with something else."""
    for name in ("report.json", "details.md", "report.html"):
        text = (folder / name).read_text()
        assert was in text
        (folder / name).write_text(text.replace(was, now))


def replace_once(path: Path, was: bytes, now: bytes) -> None:
    content = path.read_bytes()
    assert was in content, was
    path.write_bytes(content.replace(was, now, 1))


def damage_the_looks(folder: Path) -> None:
    """Another colour, another place, another PDF; a page in other colours."""
    (folder / "report.pdf").write_bytes(b"another PDF")
    for path in folder.glob("figures/*.svg"):
        svg = path.read_bytes().replace(b"#1a1a1a", b"#2b2b2b")
        path.write_bytes(re.sub(rb'(<text x=")', rb"\g<1>1", svg))
    replace_once(folder / "report.html", b"<style>", b"<style>p { color: red }")


def test_of_a_report_in_another_style_words_and_data_are_compared_and_it_says_so(copy: Workplace):
    draw_otherwise(copy.report_dir, HERE, "style 99")
    damage_the_looks(copy.report_dir)
    done = verify(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"drawings are made with .*, style 99, here with .*, {HERE}: their words", done.stdout)
    assert "not compared: report.pdf\n" in done.stdout


@pytest.mark.parametrize(
    ("name", "was", "now"),
    [
        ("figures/scoreboard.svg", b">effect, ", b">affect, "),
        ("report.html", b"<h1>", b"<h1>Not "),
        campaign("report.html", b'aria-label="', b'aria-label="not '),
        campaign("report.html", b'data-value="', b'data-value="1'),
        campaign("figures/scoreboard.svg", b"</text>", b""),
    ],
)
def test_a_word_of_a_drawing_is_found_also_in_another_style(
    copy: Workplace, name: str, was: bytes, now: bytes
):
    draw_otherwise(copy.report_dir, HERE, "style 99")
    replace_once(copy.report_dir / name, was, now)
    done = verify(copy)
    assert done.returncode == 1, done.stdout
    assert f"  {name}: " in done.stdout


def test_the_data_beside_a_figure_are_compared_also_in_another_style(copy: Workplace):
    draw_otherwise(copy.report_dir, HERE, "style 99")
    name = next(str(path.relative_to(copy.report_dir)) for path in copy.report_dir.glob("figures/*.csv"))
    edit_one_digit(copy.report_dir, name, r",-?\d")
    assert f"  {name}: line " in verify(copy).stdout


def test_another_matplotlib_may_place_ticks_elsewhere_but_says_the_same_words(copy: Workplace):
    draw_otherwise(copy.report_dir, f"matplotlib {version('matplotlib')}", "matplotlib 1.0")
    path = copy.report_dir / "figures" / "scoreboard.svg"
    ticks = re.findall(rb">([\d.\xe2\x88\x92]+)</text>", path.read_bytes())
    replace_once(path, b">" + ticks[0] + b"<", b">77<")
    done = verify(copy)
    assert done.returncode == 0, done.stdout
    assert "drawings are made with matplotlib 1.0, typst " in done.stdout
    replace_once(path, b">effect, ", b">affect, ")
    assert "  figures/scoreboard.svg: says 'affect,', which was not computed" in verify(copy).stdout


def test_of_a_report_laid_out_by_an_earlier_version_the_numbers_are_compared(copy: Workplace):
    draw_otherwise(copy.report_dir, HERE, "style 2")
    (copy.report_dir / "details.md").unlink()
    (copy.report_dir / "figures" / "paper_effects.svg").write_text("<svg/>")
    edit_one_digit(copy.report_dir, "report.md", r"\d\.\d\d")
    done = verify(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "its report.json, its CSV files and its records were compared, its pages were not\n" in done.stdout
    edit_one_digit(copy.report_dir, "tables/only.csv", r"\d\.\d")
    assert "  tables/only.csv: line " in verify(copy).stdout


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_in_another_style_is_written_again_from_its_own_records_but_not_with_other_numbers(
    copy: Workplace,
):
    was = files_of(copy.report_dir)
    shutil.rmtree(copy.runs_dir)
    draw_otherwise(copy.report_dir, HERE, "style 99")
    damage_the_looks(copy.report_dir)
    assert rewrite(copy.report_dir, study=copy.study) == []
    assert files_of(copy.report_dir) == was
    edit_one_digit(copy.report_dir, "report.md", r"\d\.\d\d")
    edited = files_of(copy.report_dir)
    assert rewrite(copy.report_dir, study=copy.study)[0].startswith("report.md: line ")
    assert files_of(copy.report_dir) == edited
    assert rewrite(copy.report_dir, study=copy.study, anyway=True) == []
    assert files_of(copy.report_dir) == was


HEADER = '{"schema": 1, "runs": {}, "curves": {}}'


def edited_runs(old: str, new: str) -> Callable[[Path], None]:
    """A damage: the first of these texts in runs.jsonl becomes the other one."""
    return lambda folder: edit_raw(folder, "runs.jsonl", lambda text: text.replace(old, new, 1))


def declare_a_size(folder: Path, size: int) -> None:
    """Let the archive say that its last member is so large when unpacked."""
    content = (folder / ARCHIVE).read_bytes()
    at = content.rindex(b"PK\x01\x02") + 24
    (folder / ARCHIVE).write_bytes(content[:at] + size.to_bytes(4, "little") + content[at + 4 :])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "report.json").unlink(), "is not there; give the folder of a report"),
        (lambda folder: (folder / "report.json").write_text("{"), "is not a report"),
        (lambda folder: shutil.rmtree(folder / "data"), "`harness report` writes it again"),
        (lambda folder: edit_raw(folder, "runs.jsonl", lambda _: f"{HEADER}\n3"), "jsonl:2: is damaged"),
        (lambda folder: edit_raw(folder, "curves.csv", lambda _: "a,b\n"), "curves.csv: cannot be read"),
        (edited_runs('\n{"run_id": "', '\n{"run_id": 1.5, "was": "'), ":2: is damaged: a column of texts"),
        (edited_runs('"runs": {', '"runs": 3, "was": {'), "jsonl:1: is damaged: "),
        (lambda folder: (folder / ARCHIVE).write_bytes(b"PK"), "records.zip: is damaged: File is not a zip"),
        (lambda folder: declare_a_size(folder, 2**31), "records.zip: is damaged: it holds more than 1 GiB"),
    ],
)  # fmt: skip
def test_a_damaged_report_is_one_sentence(copy: Workplace, damage, says):
    damage(copy.report_dir)
    done = verify(copy)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def verify_committed(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", "verify", f"reports/{COMMITTED}", "--runs", "none"]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_committed_report_is_verified_from_a_clean_clone():
    done = Workplace(ROOT).call("verify", f"reports/{COMMITTED}", "--runs", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: " in done.stdout
