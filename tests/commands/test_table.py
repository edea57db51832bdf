"""`harness table`: what it reads, what it says, and the sentence for each thing that is wrong with a file."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import harness
from harness.analysis.findings import Effect
from harness.analysis.intervals import Estimate, mean_squares, new_images_half_width
from harness.api import Results
from harness.cli import main
from harness.commands.table import report_of, show, source_of
from harness.errors import StudyError
from harness.reporting.document import Block, ClaimList, TextTable
from harness.reporting.frames import to_csv, to_json
from harness.reporting.markdown import to_short
from harness.reporting.render import outline
from harness.reporting.report_input import indented, json_template, json_texts
from harness.reporting.sections.results import class_effects, classes_table
from harness.reporting.sections.tables import main_table, values_table, without_paper
from harness.results.lines import Asked, open_results
from harness.results.table import results_of

ROWS = {"baseline": 93.0, "cosine": 94.0, "mixup": 93.05, "no_flip": 91.5}


def lines(seeds: int = 5, rows: dict[str, float] | None = None) -> list[tuple[str, int, float]]:
    """(row, seed, accuracy in percent) of made-up runs; the same each time."""
    draw = random.Random(0)
    found = rows or ROWS
    of_seed = [draw.gauss(0, 0.2) for _ in range(seeds)]
    return [
        (row, seed, round(mean + of_seed[seed] + draw.gauss(0, 0.1), 2))
        for row, mean in found.items()
        for seed in range(seeds)
    ]


def as_csv(head: str = "recipe,seed,acc", separator: str = ",", comma: bool = False) -> str:
    text = head + "\n"
    for row, seed, value in lines():
        number = f"{value:.2f}".replace(".", ",") if comma else f"{value:.2f}"
        text += separator.join((row, str(seed), number)) + "\n"
    return text


def read(tmp_path: Path, content: str | bytes, name: str = "r.csv", **asked: Any) -> Any:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    asked.setdefault("unit", "percent")
    return results_of(open_results(path), Asked(**asked))


def verdicts(results: Any) -> dict[str, str]:
    (table,) = report_of(results).findings.tables
    return {cell.row: cell.effect.verdict for cell in table.cells if cell.effect}


def refused(tmp_path: Path, content: str | bytes, name: str = "r.csv", **asked: Any) -> str:
    """The only problem, without the folder."""
    with pytest.raises(StudyError) as error:
        read(tmp_path, content, name, **asked)
    (problem,) = error.value.problems
    return str(problem).replace(f"{tmp_path}/", "")


# What comes out.


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a CSV was made into a report."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "mine.csv").write_text(as_csv())
    assert main(["table", str(folder / "mine.csv"), "--percent", "--out", str(folder / "out")]) == 0
    return folder / "out"


@pytest.mark.parametrize(("name", "place"), [("results.csv", 0), ("wandb_export.csv", 1)])
def test_the_files_of_the_page_become_reports_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: int
):
    page = (Path(__file__).parents[2] / "docs" / "results-of-your-own.md").read_text()
    files, commands = (re.findall(rf"^```{kind}\n(.*?)^```", page, re.M | re.S) for kind in ("csv", "sh"))
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(files[place])
    assert main(commands[place].split()[1:]) == 0
    report = json.loads(Path("reports", Path(name).stem, "report.json").read_text())
    (table,) = report["findings"]["tables"]
    found = {
        cell["row"]: (cell["level"]["n"], (cell["effect"] or {}).get("verdict")) for cell in table["cells"]
    }
    assert found["cosine"] == (3, "helps")
    assert found[["no flip", "mixup"][place]] == [(3, "hurts"), (2, "undecided")][place]


def words(folder: Path) -> str:
    """The report and its details."""
    return (folder / "report.md").read_text() + (folder / "details.md").read_text()


def test_a_csv_becomes_a_report_in_every_format(written: Path):
    names = {path.name for path in written.iterdir()}
    assert names >= {"report.md", "report.html", "report.pdf", "report.json", "tables", "figures", "data"}
    text = words(written)
    assert text.startswith("Written from mine.csv (20 lines): nothing here was trained by the harness.")
    assert "▲ cosine helps by at least 0.2 pp" in text
    assert "▼ no_flip hurts by at least 0.2 pp" in text


def test_the_report_says_nothing_of_recipes_and_trainings_that_it_does_not_know(written: Path):
    text = words(written)
    for word in ("batch_size", "resnet", "Every recipe", "last epoch", "test set, read", "was recorded"):
        assert word not in text


def test_the_terminal_says_what_was_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "r.csv").write_text(as_csv())
    main(["table", str(tmp_path / "r.csv"), "--percent", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "r.csv: 20 lines; rows = recipe, seed = seed, metric = acc; compared with baseline" in said
    assert "▲ helps" in said


def test_the_same_file_gives_the_same_bytes(written: Path, tmp_path: Path):
    main(["table", str(written.parent / "mine.csv"), "--percent", "--out", str(tmp_path / "again")])
    for name in ("report.md", "report.json", "report.html", "report.pdf", "data/records.zip"):
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes()


def test_the_report_of_a_study_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "r.csv").write_text(as_csv())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text('{"header": {"question": "mine"}}')
    assert main(["table", str(tmp_path / "r.csv"), "--percent", "--out", str(tmp_path / "out")]) == 2
    assert "has the report of a study" in capsys.readouterr().err


def test_tables_that_begin_alike_have_short_names_of_their_own(tmp_path: Path):
    alike = "the configuration that was tried in the experiment"
    text = "".join(
        f"{alike} {t},{row},{seed},9{seed}.5\n" for t in range(100) for row in "ab" for seed in (0, 1)
    )
    tables = read(tmp_path, "table,recipe,seed,acc\n" + text).plan.tables
    keys = [table.key for table in tables]
    first = "the_configuration_that_was_tried_in_the_"
    assert keys == [first, *(f"{first}_{number}" for number in range(2, 101))]


# How rows are compared.


def test_shared_seeds_are_paired_in_the_fit_of_studies(tmp_path: Path):
    results = read(tmp_path, as_csv())
    assert results.seeds_shared
    (table,) = report_of(results).findings.tables
    assert table.seed_correlation is not None
    assert verdicts(results) == {"cosine": "helps", "mixup": "undecided", "no_flip": "hurts"}


@pytest.mark.parametrize("without", ["a column", "a shared one"])
def test_seeds_that_are_not_shared_mean_welch_and_it_says_so(tmp_path: Path, without: str):
    found = lines()
    text = "recipe,acc\n" + "".join(f"{row},{value}\n" for row, _, value in found)
    if without == "a shared one":
        text = "recipe,seed,acc\n" + "".join(
            f"{row},{100 * list(ROWS).index(row) + seed},{value}\n" for row, seed, value in found
        )
    results = read(tmp_path, text)
    assert not results.seeds_shared
    assert "Welch" in results.notes[0]
    report = report_of(results)
    cell = report.findings.tables[0].cells[1]
    ours, theirs = ([v for r, _, v in found if r == name] for name in ("cosine", "baseline"))
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    assert cell.effect is not None
    assert cell.effect.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (cell.effect.low, cell.effect.high) == pytest.approx((low, high))
    assert cell.effect.differences == {}


def test_rows_may_have_unequal_numbers_of_seeds(tmp_path: Path):
    text = "recipe,seed,acc\n" + "".join(
        f"{row},{seed},{value}\n" for row, seed, value in lines() if row != "cosine" or seed < 3
    )
    results = read(tmp_path, text)
    cells = {cell.row: cell for cell in report_of(results).findings.tables[0].cells}
    assert (cells["cosine"].level.n, cells["cosine"].level.missing) == (3, 0)
    assert cells["baseline"].level.n == 5
    assert "3 to 5 runs" in results.notes[-1]


def test_less_of_a_loss_is_better(tmp_path: Path):
    text = "recipe,seed,loss\n" + "".join(f"{row},{s},{3 - v / 100}\n" for row, s, v in lines())
    asked = {"unit": None, "lower_is_better": True, "smallest_effect": 0.002}
    results = read(tmp_path, text, **asked)
    assert verdicts(results)["cosine"] == "helps"
    assert verdicts(results)["no_flip"] == "hurts"
    cell = report_of(results).findings.tables[0].cells[1]
    assert cell.effect is not None
    assert cell.effect.estimate < 0
    assert cell.effect.prob_better == 1.0


def test_an_error_in_percent_that_diverged_counts_as_the_worst(tmp_path: Path):
    text = "recipe,seed,error\n" + "".join(f"{row},{s},{100 - v}\n" for row, s, v in lines(6))
    text = text.replace(text.splitlines()[9], "cosine,2,nan")
    asked = {"unit": "percent", "lower_is_better": True}
    found = report_of(read(tmp_path, text, **asked)).findings.tables[0].cells[1]
    assert found.level.diverged == 1
    assert found.effect.fragile


def test_fractions_are_shown_in_percent(tmp_path: Path):
    text = "recipe,seed,acc\n" + "".join(f"{row},{s},{v / 100}\n" for row, s, v in lines())
    ours = report_of(read(tmp_path, text, unit="fraction")).findings.tables[0]
    percent = report_of(read(tmp_path, as_csv())).findings.tables[0]
    assert [cell.sentence for cell in ours.cells] == [cell.sentence for cell in percent.cells]


def test_percentages_may_go_down_to_a_half_where_no_gap_parts_them(tmp_path: Path):
    """As timm's results on ImageNet-A do: 0.48 is beside 1.12."""
    text = "model,top1\n" + "".join(f"net{k},{v}\n" for k, v in enumerate((88.63, 31.5, 4.1, 1.12, 0.48)))
    (table,) = report_of(read(tmp_path, text)).findings.tables
    assert table.cells[-1].level.mean == pytest.approx(0.48)
    parted = text.replace("4.1", "41").replace("1.12", "52")
    assert "0.48 is a fraction beside percentages (31.5 and above)" in refused(tmp_path, parted)


def test_tables_columns_and_printed_values_are_read(tmp_path: Path):
    text = "table,dataset,recipe,seed,acc,paper\n"
    for table in ("Table 1", "Table 2"):
        for data in ("cifar10", "svhn"):
            text += "".join(f"{table},{data},{r},{s},{v},{ROWS[r]}\n" for r, s, v in lines())
    found = report_of(read(tmp_path, text)).findings.tables
    assert [(table.title, table.columns) for table in found] == [
        ("Table 1", ("cifar10", "svhn")), ("Table 2", ("cifar10", "svhn"))
    ]  # fmt: skip
    assert found[0].cells[2].effect.paper == pytest.approx(1.0)


def test_columns_for_printed_values_are_there_where_some_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "200")
    text = "recipe,seed,acc,paper\n" + "".join(f"{r},{s},{v},{ROWS[r]}\n" for r, s, v in lines())
    for printed, said in ((False, as_csv()), (True, text)):
        results = read(tmp_path, said)
        report = report_of(results)
        show(report)
        shown = (capsys.readouterr().out, to_short(report), Results(report)._repr_html_())
        assert ["Paper effect" in each for each in shown] == [printed] * 3


def test_the_reference_is_named_or_is_the_row_above(tmp_path: Path):
    cells = report_of(read(tmp_path, as_csv(), versus="mixup")).findings.tables[0].cells
    assert {cell.effect.versus for cell in cells if cell.effect} == {"mixup"}
    cells = report_of(read(tmp_path, as_csv(), versus="previous")).findings.tables[0].cells
    assert [cell.effect.versus for cell in cells if cell.effect] == ["baseline", "cosine", "mixup"]


def test_further_metrics_are_shown_beside(tmp_path: Path):
    text = "recipe,seed,acc,f1\n" + "".join(f"{row},{s},{v},{v - 1}\n" for row, s, v in lines())
    report = report_of(read(tmp_path, text, metrics=("acc", "f1")))
    shown = without_paper(values_table(report.findings.tables[0], report.findings.settings))
    assert [column.title for column in shown.columns] == ["Row", "n", "acc, %: mean ± sd", "f1"]
    mean = report.findings.tables[0].cells[0].level.mean
    assert shown.rows[0].cells[3].text == f"{mean - 1:.2f}"


@pytest.mark.parametrize("printed", [True, False])
def test_a_report_has_columns_for_printed_values_only_where_there_are_some(tmp_path: Path, printed: bool):
    text = "recipe,seed,acc,paper\n" + "".join(
        f"{row},{s},{v},{ROWS[row] if printed else ''}\n" for row, s, v in lines()
    )
    report = report_of(read(tmp_path, text))
    for table in (main_table, values_table):
        shown = without_paper(table(report.findings.tables[0], report.findings.settings))
        assert any("Paper" in column.title for column in shown.columns) is printed
        assert {len(row.cells) for row in shown.rows} == {len(shown.columns)}


def test_a_run_that_did_not_end_well_or_has_no_value_is_missing(tmp_path: Path):
    text = "recipe,seed,acc,State\n" + "".join(f"{row},{s},{v},finished\n" for row, s, v in lines())
    text = text.replace("cosine,0,", "cosine,0,,finished\nx").replace("mixup,1,", "mixup,1,nan,finished\nx")
    rest = [line for line in text.splitlines() if not line.startswith("x")]
    rest[-1] = rest[-1].replace("finished", "crashed")
    cells = report_of(read(tmp_path, "\n".join(rest))).findings.tables[0].cells
    levels = {cell.row: cell.level for cell in cells}
    assert levels["cosine"].missing_reason == "1 failed: nothing in column acc"
    assert (levels["mixup"].diverged, levels["mixup"].missing) == (1, 0)
    assert levels["no_flip"].missing_reason == "1 failed: State is crashed"


# The kinds of files.


def test_csv_json_lines_parquet_and_a_frame_say_the_same(tmp_path: Path):
    frame = pd.DataFrame(lines(), columns=["recipe", "seed", "acc"])
    expected = verdicts(read(tmp_path, as_csv()))
    rows = [{"config": {"recipe": r, "seed": s}, "summary": {"acc": v}} for r, s, v in lines()]
    assert verdicts(read(tmp_path, "\n".join(map(json.dumps, rows)), "r.jsonl")) == expected
    frame.to_parquet(tmp_path / "r.parquet")
    path = tmp_path / "r.parquet"
    assert verdicts(results_of(open_results(path), Asked(unit="percent"))) == expected
    table = harness.compare(frame, unit="percent").table("results")
    assert dict(zip(table["row"][1:], table["verdict"][1:], strict=True)) == expected


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + as_csv(),
        as_csv("recipe;seed;acc", ";"),
        as_csv("recipe;seed;acc", ";", comma=True),
        as_csv("recipe\tseed\tacc", "\t"),
        as_csv().replace("\n", "\r\n"),
        as_csv().replace("recipe", '"recipe"') + "\n\n",
    ],
    ids=["byte order mark", "semicolons", "decimal commas", "tabs", "ends of Windows", "blank lines"],
)
def test_a_csv_of_another_program_is_read(tmp_path: Path, content: str):
    assert verdicts(read(tmp_path, content)) == verdicts(read(tmp_path, as_csv()))


def test_a_quoted_line_end_is_part_of_its_cell_and_lines_after_it_keep_their_number(tmp_path: Path):
    text = as_csv().replace("cosine", '"co\nsine"').replace("no_flip,4,", "no_flip,four,")
    assert refused(tmp_path, text).startswith("r.csv:26: column 'seed': 'four' is no whole number")
    labels = {cell.row for cell in read(tmp_path, text.replace("four", "4")).plan.tables[0].cells}
    assert "co sine" in labels


def test_ten_thousand_columns_are_no_hindrance(tmp_path: Path):
    more = "".join(f",c{k}" for k in range(10_000))
    text = f"recipe,seed,acc{more}\n" + "".join(f"{r},{s},{v}{',0' * 10_000}\n" for r, s, v in lines(3))
    assert len(read(tmp_path, text).plan.runs) == 12


# What other programs export, in the shape that they give it; the numbers are made up.


def test_an_export_of_weights_and_biases_is_read(tmp_path: Path):
    head = '"Name","State","Created","Runtime","Sweep","recipe","seed","test/acc","train/loss"\n'
    rows = [
        f'"swift-wood-{k}","finished","2026-11-29T10:00:00.000Z","812","","{row}","{seed}","'
        f'{value / 100}","0.1"\n'
        for k, (row, seed, value) in enumerate(lines())
    ]
    rows[-1] = rows[-1].replace('"finished"', '"crashed"')
    results = read(tmp_path, head + "".join(rows), unit="fraction")
    assert results.chosen.wanted == ("recipe", "test/acc", "seed", "State")
    assert verdicts(results)["cosine"] == "helps"
    assert results.records["status"].count("failed") == 1


def test_maps_in_cells_are_columns_as_the_api_of_weights_and_biases_gives_them(tmp_path: Path):
    """As W&B's own page has it: a frame of summary, config and name, and `to_csv` of that."""
    frame = pd.DataFrame({
        "summary": [{"test/acc": v, "loss": float("nan"), "_wandb": {"runtime": 3}} for _, _, v in lines()],
        "config": [{"recipe": row, "optim": {"seed": seed}} for row, seed, _ in lines()],
        "name": "swift-wood",
    })  # fmt: skip
    frame.to_csv(tmp_path / "project.csv")
    text = (tmp_path / "project.csv").read_text()
    assert "'loss': nan" in text
    results = read(tmp_path, text)
    assert results.chosen.wanted == ("config.recipe", "summary.test/acc", "config.optim.seed")
    assert verdicts(results) == verdicts(read(tmp_path, as_csv()))
    as_json = frame.assign(config=frame["config"].map(json.dumps), summary=frame["summary"].map(json.dumps))
    for each in (frame, as_json):
        shown = harness.compare(each, unit="percent").table("results")
        assert dict(zip(shown["row"][1:], shown["verdict"][1:], strict=True)) == verdicts(results)
    cut = text.replace("{'recipe': 'cosine', 'optim': {'seed': 1}}", "{'recipe': 'cosine', 'optim'")
    assert refused(tmp_path, cut) == (
        "r.csv:8: column 'config': '{'recipe': 'cosine', 'optim'' is no map such as {'seed': 1}, as in the "
        "first line"
    )
    said = refused(tmp_path, text, metrics=("summary.test/ac",))
    assert "did you mean 'summary.test/acc'? Valid: config.optim.seed, config.recipe, name, " in said
    assert verdicts(read(tmp_path, "recipe,acc\n{a},1\n{a},2\nb,1\nb,2\n", unit="plain", smallest_effect=1))


def exported(folder: Path, row: str, seed: int, value: float, tag: str = "val_acc", last: int = 2) -> Path:
    """The course of one number over one run, as TensorBoard writes it."""
    path = folder / f"run-{row}_seed{seed}-tag-{tag}.csv"
    steps = [f"17000{k}.25,{k},{value - 10 * (last - k)}\n" for k in range(last + 1)]
    path.write_text("Wall time,Step,Value\n" + "".join(steps))
    return path


def test_exports_of_tensorboard_are_a_run_each_with_its_value_at_the_last_step(tmp_path: Path):
    paths = [exported(tmp_path, *line) for line in lines()]
    found = results_of(source_of([str(path) for path in paths]), Asked(unit="percent"))
    assert found.metric == "val_acc"
    assert (
        report_of(found).findings.tables[0].cells
        == report_of(read(tmp_path, as_csv("recipe,seed,val_acc"))).findings.tables[0].cells
    )
    assert not any("steps" in note for note in found.notes)
    exported(tmp_path, *lines()[0], last=1)
    cut = results_of(source_of([str(path) for path in paths]), Asked(unit="percent"))
    assert "The runs end at different steps, 1 to 2: some may have been cut off." in cut.notes


def test_several_files_that_are_no_runs_of_one_number_are_refused(tmp_path: Path):
    good, other = exported(tmp_path, "a", 0, 90.0), exported(tmp_path, "a", 1, 90.0, "loss")
    table, nameless, wrong = (
        tmp_path / "r.csv",
        tmp_path / "run-a_0-tag-val_acc.csv",
        tmp_path / "b_seed0.csv",
    )
    table.write_text(as_csv())
    nameless.write_bytes(good.read_bytes())
    wrong.write_text("Wall time,Step,Value\n1,first,2\n")

    def says(path: Path) -> str:
        with pytest.raises(StudyError) as error:
            source_of([str(good), str(path)])
        (problem,) = error.value.problems
        return str(problem).replace(f"{tmp_path}/", "")

    assert says(table).startswith("r.csv:1: of several files, each must be a run as TensorBoard exports it")
    assert says(nameless) == (
        "run-a_0-tag-val_acc.csv: its name must say row and seed, such as mixup_seed3.csv"
    )
    assert says(wrong) == "b_seed0.csv:2: column 'Step': 'first' is no step"
    assert says(other) == (
        "run-a_seed1-tag-loss.csv: has values of 'loss', and run-a_seed0-tag-val_acc.csv of 'val_acc': "
        "say the files of one number"
    )


def test_results_of_timm_are_single_runs_without_a_verdict(tmp_path: Path):
    text = "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
    text += 'net_a.in1k,224,80.100,19.900,95.000,5.000,"1,013.01",0.900,bicubic\n'
    text += "net_b.in1k,224,81.300,18.700,95.500,4.500,25.60,0.950,bicubic\n"
    results = read(tmp_path, text)
    assert results.chosen.wanted == ("model", "top1")
    assert verdicts(results) == {"net_b.in1k": "not evaluable"}
    labels = [cell.row for cell in read(tmp_path, text, rows=("model", "img_size")).plan.tables[0].cells]
    assert labels == ["model net_a.in1k, img_size 224", "model net_b.in1k, img_size 224"]


def test_a_frame_of_mlflow_and_one_of_seml_are_read():
    found = pd.DataFrame(lines(), columns=["recipe", "seed", "acc"])
    mlflow = pd.DataFrame({
        "run_id": [f"{k:032x}" for k in range(len(found))],
        "experiment_id": "1",
        "status": "FINISHED",
        "artifact_uri": "file:///x",
        "start_time": pd.Timestamp("2026-11-29"),
        "end_time": pd.NaT,
        "metrics.acc": found["acc"],
        "params.seed": found["seed"].astype(str),
        "params.recipe": found["recipe"],
        "tags.mlflow.runName": "swift-wood",
        "tags.mlflow.source.name": "train.py",
    })  # fmt: skip
    seml = pd.DataFrame({
        "_id": range(1, len(found) + 1),
        "config.recipe": found["recipe"],
        "config.seed": found["seed"],
        "config.db_collection": "mine",
        "result.test_acc": found["acc"],
    })  # fmt: skip
    expected = list(harness.compare(found, unit="percent").table("results")["verdict"])
    for frame in (mlflow, seml):
        assert list(harness.compare(frame, unit="percent").table("results")["verdict"]) == expected


@pytest.mark.campaign
def test_an_experiment_of_mlflow_is_read_by_its_uri_and_as_the_frame_of_search_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("my runs", artifact_location=str(tmp_path / "artifacts"))
    for row, seed, value in lines(3):
        run = client.create_run(experiment).info.run_id
        client.log_param(run, "recipe", row)
        client.log_param(run, "seed", seed)
        client.log_metric(run, "acc", value)
        client.set_terminated(run)
    assert len(source_of([f"{uri}#my%20runs"]).read(["params.recipe"]).at) == 12
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    table = harness.compare(mlflow.search_runs([experiment]), unit="percent").table("results")
    found = {row: word for row, word in zip(table["row"], table["verdict"], strict=True) if row != "baseline"}
    assert found == verdicts(results_of(source_of([f"{uri}#my runs"]), Asked(unit="percent")))
    for named, said in (
        ("#my_runs", "unknown experiment 'my_runs'; did you mean 'my runs'?"),
        ("", "names no experiment; say it after a #, such as sqlite:///mlflow.db#my_experiment"),
        ("x#my runs", "there is no MLflow store at"),
    ):
        with pytest.raises(StudyError, match=said.replace("?", "[?]")):
            source_of([uri + named])
    assert not (tmp_path / "mlflow.dbx").exists()


# What is wrong with a file: one sentence with its line and column.


SAID = {
    "no file": (None, {}, "r.csv: cannot be read: No such file or directory"),
    "empty": ("", {}, "r.csv:1: is empty: its first line must name the columns"),
    "names only": ("recipe,seed,acc\n", {}, "r.csv:1: there is no line below the names of the columns"),
    "one column": ("recipe\nx\n", {}, "r.csv:1: has one column only, 'recipe'; columns are separated by , "
    "; | or a tab"),
    "UTF-16": ("recipe,acc\n".encode("utf-16"), {}, "r.csv:1: is UTF-16 text; save it as UTF-8 (“CSV "
    "UTF-8”)"),
    "Latin-1": (
        "recipe,acc\nbaseline,1\ngrün,2\n".encode("latin-1"), {},
        "r.csv:3: is not UTF-8 text (byte 0xfc); save it as UTF-8",
    ),
    "zero byte": ("recipe,acc\na,1\nb\0,2\n", {}, "r.csv:3: has a zero byte, which no text has; export it "
    "again"),
    "open quote": (
        'recipe,acc\n"base,1\nb,2\n', {},
        "r.csv:2: cannot be read as a row (unexpected end of data); is a quotation mark not closed?",
    ),
    "a cell too many": (
        "recipe,seed,acc\na,0,93,1\n", {},
        "r.csv:2: has 4 cells, the line of names has 3; put a value that has a comma in it into quotation "
        "marks",
    ),
    "a cell too few": ("recipe,seed,acc\na,0\n", {}, "r.csv:2: has 2 cells, the line of names has 3"),
    "no row column": (
        "x,seed,acc\na,0,93\n", {},
        "r.csv:1: no column is called as a row's label (row, recipe, variant, method, arm, setting, ...): "
        "say "
        "which, with --row. Columns: x, seed, acc",
    ),
    "no metric": (
        "recipe,seed,x\na,0,93\n", {},
        "r.csv:1: no column is called as a metric (top1, accuracy, acc, loss, ...): say which, with "
        "--metric. "
        "Columns: recipe, seed, x",
    ),
    "two metrics": (
        "recipe,seed,val_acc,test_acc\na,0,93,92\n", {},
        "r.csv:1: several columns may be the metric: val_acc, test_acc; say which, with --metric",
    ),
    "misspelt column": (
        "recipe,seed,acc\na,0,93\n", {"metrics": ("acx",)},
        "r.csv:1: unknown column 'acx'; did you mean 'acc'? Valid: acc, recipe, seed",
    ),
    "a name twice": ("recipe,acc,acc\na,1,2\n", {"metrics": ("acc",)}, "r.csv:1: column 'acc': 2 columns "
    "have this name: rename one"),
    "misspelt row": (
        as_csv(), {"versus": "baselin"},
        "r.csv:1: column 'recipe': unknown row 'baselin'; did you mean 'baseline'? Valid: baseline, "
        "cosine, mixup, no_flip",
    ),
    "percent or fraction": (
        as_csv(), {"unit": None},
        "r.csv:1: column 'acc': is it in percent (93.1) or a fraction (0.931)? say --percent or "
        "--fraction; --plain: as it is",
    ),
    "better": (
        "recipe,seed,loss\na,0,1\n", {"smallest_effect": 0.1, "unit": None},
        "r.csv:1: column 'loss': less of it is usually better: say --lower-is-better, or --higher-is-better",
    ),
    "what matters": (
        "recipe,seed,score\na,0,1\n", {"unit": None},
        "r.csv:1: column 'score': which difference of it would matter? say --smallest-effect",
    ),
    "text": (as_csv().replace("cosine,1,", "cosine,1,abc", 1), {}, "r.csv:8: column 'acc': 'abc93.66' is "
    "no number"),
    "spread": ("recipe,acc\na,93.1±0.2\nb,93\n", {}, "r.csv:2: column 'acc': '93.1±0.2' is no number: one "
    "line is one run; take the spread out"),
    "sign": ("recipe,acc\na,93.1%\nb,93\n", {}, "r.csv:2: column 'acc': '93.1%' is no number: leave out "
    "the sign and say --percent"),
    "quoted decimal comma": (
        'recipe,acc\na,"93,1"\nb,93\n', {},
        "r.csv:2: column 'acc': '93,1' is no number: a decimal comma is read where ; or a tab separates "
        "columns, write a point here",
    ),
    "duplicate": (
        as_csv() + "cosine,1,94\n", {},
        "r.csv:22: column 'seed': row 'cosine' has seed 1 twice, here and on line 8; take one out, or say "
        "--column "
        "or --table where another column tells them apart",
    ),
    "empty seed": (as_csv().replace("cosine,1,", "cosine,,"), {}, "r.csv:8: column 'seed': is empty: a "
    "seed is one, such as 0"),
    "half a seed": (as_csv().replace("cosine,1,", "cosine,1.5,"), {}, "r.csv:8: column 'seed': '1.5' is "
    "no whole number: a seed is one, such as 0"),
    "empty row": (
        as_csv().replace("cosine,1,", ",1,"), {},
        "r.csv:8: column 'recipe': is empty: every line must say which row it is a run of",
    ),
    "a fraction among percentages": (
        "recipe,seed,acc\na,0,93.1\na,1,0.94\nb,0,92\nb,1,92.5\n", {},
        "r.csv:3: column 'acc': 0.94 is a fraction beside percentages (92 and above): write 94",
    ),
    "above one hundred": ("recipe,acc\na,931\nb,92\n", {}, "r.csv:2: column 'acc': 931 is no percentage "
    "(0 to 100); mend it, or say --plain"),
    "a percentage among fractions": (
        "recipe,acc\na,93.1\na,0.94\nb,0.92\n", {"unit": "fraction"},
        "r.csv:2: column 'acc': 93.1 is no fraction (0 to 1); percent beside fractions: mend it",
    ),
    "huge": ("recipe,score\na,1e99\nb,2\n", {"unit": "plain", "smallest_effect": 1}, "r.csv:2: column "
    "'score': 1e+99 is too large to be reckoned with"),
    "one row": (
        "recipe,seed,acc\na,0,93\na,1,94\n", {},
        "r.csv:1: column 'recipe': every line is a run of 'a': nothing to compare; say --row. Columns: "
        "recipe, seed, acc",
    ),
    "two printed values": (
        "recipe,seed,acc,paper\na,0,93,1\na,1,94,2\nb,0,91,1\n", {},
        "r.csv:3: column 'paper': row 'a' has 2 here and 1 on line 2; a row has one printed value",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", SAID)
def test_what_is_wrong_is_said_in_one_sentence_with_its_line_and_column(tmp_path: Path, wrong: str):
    content, asked, said = SAID[wrong]
    if content is None:
        with pytest.raises(StudyError) as error:
            open_results(tmp_path / "r.csv")
        assert str(error.value).replace(f"{tmp_path}/", "") == said
    else:
        assert refused(tmp_path, content, **asked) == said


def test_other_files_are_refused_with_their_place(tmp_path: Path):
    for name, content, said in (
        ("r.xlsx", "x", "r.xlsx: is of a kind that is not read ('.xlsx'); valid endings: .csv, .tsv, .txt, "
         ".jsonl, .ndjson, .parquet"),
        ("r.jsonl", '{"recipe": "a"}\n{"recipe" 1}\n', "r.jsonl:2: is not JSON: Expecting ':' delimiter "
            "at character 11"),
        ("r.jsonl", "[1]\n", 'r.jsonl:1: is a list, and must be an object such as {"row": "baseline"}'),
        ("r.jsonl", "", "r.jsonl:1: is empty: each line must be one JSON object"),
        ("r.parquet", "PAR1", "r.parquet: cannot be read as Parquet"),
    ):  # fmt: skip
        assert refused(tmp_path, content, name).startswith(said)


def test_a_thousand_mistakes_are_counted_not_listed(tmp_path: Path):
    text = "recipe,acc\n" + "a,x\nb,y\n" * 500
    with pytest.raises(StudyError) as error:
        read(tmp_path, text)
    assert len(error.value.problems) == 21
    assert str(error.value).endswith("r.csv:22: and 980 more mistakes from here on")


def test_one_seed_per_row_gives_means_and_no_verdict(tmp_path: Path):
    results = read(tmp_path, "recipe,seed,acc\nbaseline,0,93\ncosine,0,94\n")
    (table,) = report_of(results).findings.tables
    assert table.cells[1].sentence == (
        "cosine is not evaluable against baseline: 1 seed: no verdict possible; observed +1.00 pp, 1 seed."
    )


def test_a_frame_is_wrong_at_a_row(tmp_path: Path):
    frame = pd.DataFrame({"recipe": ["a", "b"], "seed": [0, 1.5], "acc": [93.0, np.nan]})
    with pytest.raises(StudyError, match=r"^frame:2: column 'seed': '1.5' is no whole number"):
        harness.compare(frame, unit="percent")
    with pytest.raises(StudyError, match="unknown argument 'unti'; did you mean 'unit'"):
        harness.compare(frame, unti="percent")


def test_a_report_of_a_file_is_not_verified_by_a_study(written: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(written)]) == 2
    assert "is made from a file of results; to verify it, make it again" in capsys.readouterr().err


def test_many_runs_are_compared_without_a_fit_over_all_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.results.table.LARGEST_FIT", 100)
    results = read(tmp_path, as_csv())
    assert not results.seeds_shared
    assert "too many runs" in results.notes[0]
    assert verdicts(results)["cosine"] == "helps"


def test_many_tables_of_few_runs_have_a_fit_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    twice = [f"{table},{line}" for table in "ab" for line in as_csv().splitlines()[1:]]
    monkeypatch.setattr("harness.results.table.LARGEST_FIT", 200)
    results = read(tmp_path, "\n".join(["table,recipe,seed,acc", *twice]))
    assert len(results.plan.tables) == 2
    assert results.seeds_shared
    assert results.notes == ()


def test_a_page_has_the_first_rows_of_a_long_table_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def blocks() -> list[Block]:
        document = outline(report, [])
        return [block for section in (*document.sections, *document.details) for block in section.blocks]

    report = report_of(read(tmp_path, as_csv()))
    (table,) = report.findings.tables
    long = {block.key for block in blocks() if isinstance(block, TextTable) and len(block.rows) == len(ROWS)}
    assert {table.key, f"{table.key}_effects"} <= long
    monkeypatch.setattr("harness.reporting.document.MOST_ROWS", 3)
    says = "The first 3 of 4 rows; report.json has all of them."
    for block in blocks():
        if isinstance(block, TextTable) and block.key in long:
            assert (len(block.rows), block.notes[0]) == (3, says)
        if isinstance(block, ClaimList):
            assert [line.text for line in block.items[3:]] == [says]
    cells = json.loads(to_json(report))["findings"]["tables"][0]["cells"]
    assert [cell["row"] for cell in cells] == list(ROWS)
    assert to_csv(table).count("\n") == 1 + len(ROWS)


# Single images and single classes.


def with_answers(folder: Path, suffix: str = ".npy") -> str:
    """The runs with a file of answers each, of 1,000 images; the accuracies are those of the answers."""
    draw = np.random.default_rng(0)
    hard, text = draw.random(1000), "recipe,seed,acc,answers\n"
    for row, seed, value in lines(4):
        right = (hard + draw.normal(0, 0.05, 1000) < value / 100).astype(np.uint8)
        name = f"{row}_{seed}{suffix}"
        if suffix == ".npy":
            np.save(folder / name, right)
        elif suffix == ".npz":
            np.savez(folder / name, correct=right, other=right[:5])
        else:
            (folder / name).write_text("correct\n" + "\n".join(map(str, right)))
        text += f"{row},{seed},{100 * right.mean():.1f},{name}\n"
    return text


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_files_of_answers_give_the_interval_on_new_images_of_our_own_runs(tmp_path: Path, suffix: str):
    report = report_of(read(tmp_path, with_answers(tmp_path, suffix), images="answers"))
    right = {
        (row, seed): np.unpackbits(np.frombuffer(bits, np.uint8), count=images)
        for row, seed, bits, images in zip(
            [row for row in ROWS for _ in range(4)],
            *(report.records[name] for name in ("seed", "predictions", "test_images")),
            strict=True,
        )
    }
    (table,) = report.findings.tables
    for cell in table.cells[1:]:
        differences = [right[cell.row, s].astype(np.int8) - right["baseline", s] for s in range(4)]
        effect = cell.effect
        assert effect is not None
        estimate = Estimate(
            value=np.asarray(effect.estimate), se=np.asarray(half_95(effect)), df=np.asarray(effect.df)
        )
        wide = new_images_half_width(estimate, mean_squares(np.stack(differences).astype(np.int8)), 0.05)
        assert effect.new_images_high == pytest.approx(effect.estimate + wide)
    assert len(report.findings.flips) == 3


def half_95(effect: Effect) -> float:
    """The standard error behind a 95 % interval."""
    return (effect.high - effect.estimate) / stats.t.ppf(0.975, effect.df)


def test_answers_that_cannot_be_of_the_run_are_refused(tmp_path: Path):
    text = with_answers(tmp_path)
    first = text.splitlines()[1].split(",")[2]
    np.save(tmp_path / "baseline_1.npy", np.ones(999))
    np.save(tmp_path / "baseline_2.npy", np.full(1000, 2))
    (tmp_path / "baseline_3.npy").unlink()
    with pytest.raises(StudyError) as error:
        read(tmp_path, text.replace(f",{first},", ",50.0,", 1), images="answers")
    said = [str(problem).replace(f"{tmp_path}/", "") for problem in error.value.problems]
    assert said == [
        f"r.csv:2: column 'answers': by baseline_0.npy it is {first}, the column 'acc' says 50: "
        "they are not of one run",
        "r.csv:3: column 'answers': baseline_1.npy has 999 images, that of line 2 has 1000: "
        "all runs need the same test images",
        "r.csv:4: column 'answers': baseline_2.npy has neither 1 (right) nor 0 for image 1",
        "r.csv:5: column 'answers': baseline_3.npy cannot be read: No such file or directory",
    ]


def by_class() -> str:
    """The runs with the accuracy on two classes: on cats as on all images, on dogs better with mixup."""
    draw = random.Random(1)
    dogs = [50 + 20 * (row == "mixup") + draw.gauss(0, 1) for row, _, _ in lines()]
    text = "recipe,seed,acc,class_cat,class_dog\n"
    return text + "".join(
        f"{row},{seed},{value},{value},{dog:.2f}\n"
        for (row, seed, value), dog in zip(lines(), dogs, strict=True)
    )


def test_classes_are_a_table_of_their_own_that_says_how_many_comparisons_it_makes(tmp_path: Path):
    report, alone = (report_of(read(tmp_path, by_class(), classes=said)) for said in ("class_", None))
    assert report.findings == alone.findings
    effects = class_effects(report, 0)
    assert [(each.cell.row, each.name) for each in effects[:2]] == [("cosine", "cat"), ("cosine", "dog")]
    whole = [cell.effect.estimate for cell in report.findings.tables[0].cells if cell.effect]
    assert [each.effect.estimate for each in effects if each.name == "cat"] == whole
    smallest = sorted((each.effect.p, each.p_holm) for each in effects)[:2]
    assert [adjusted for _, adjusted in smallest] == pytest.approx([6 * smallest[0][0], 5 * smallest[1][0]])
    table = classes_table(report, 0)
    assert "6 comparisons with 95 % intervals that are not adjusted" in table.caption
    helped = {(row.group, row.cells[0].text) for row in table.rows if row.cells[-1].text.endswith("*")}
    assert helped == {("cosine", "cat"), ("mixup", "dog"), ("no_flip", "cat")}
    data = json.loads(to_json(report))
    assert [each["class"] for each in data["classes"]] == ["cat", "dog"] * 3
    assert all(run["class cat"] == run["acc"] for run in data["runs"])
    assert "classes" not in json.loads(to_json(alone))
    assert any(block == table for section in outline(report, []).details for block in section.blocks)


def test_a_class_that_is_not_there_or_no_percentage_is_refused(tmp_path: Path):
    head, first, *rest = by_class().splitlines()
    wrong = "\n".join([head, first.rpartition(",")[0] + ",193", *rest])
    says = "r.csv:2: column 'class_dog': 193 is no percentage (0 to 100)"
    assert refused(tmp_path, wrong, classes="class_") == says
    assert "no column's name begins with 'klass'" in refused(tmp_path, by_class(), classes="klass")


def test_json_is_that_of_the_library_whatever_a_run_holds(written: Path):
    text = (written / "report.json").read_text()
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    for data in (
        [],
        {},
        [{"a": {"b": [1, "x\ny"], "a": []}}, {"c": None}],
        {"%s": [[0.1, -1e300], True, {}]},
    ):
        assert indented(data) == json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False)


def test_columns_become_the_lines_of_json_that_the_library_writes_for_each_run():
    columns = {"a % s": [1, -2, 3], "b\n": ["x\ny", "\u2028é", None], "c": [[1, {"k": 2.5}], {}, 0.1]}
    texts = [json_texts(values, json.dumps) for values in columns.values()]
    of_one = "{" + json_template(list(columns), ", ") + "}"
    runs = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    written = [of_one % row for row in zip(*texts, strict=True)]
    assert written == [json.dumps(run, ensure_ascii=False) for run in runs]
    assert json_texts([], json.dumps) == []


def test_a_report_does_not_wait_for_what_it_does_not_use():
    slow = ("scipy.stats", "scipy.interpolate", "scipy.optimize", "mlflow", "torch")
    code = "import harness.commands.table, harness.reporting, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in slow if name in done.stdout.split()] == []
