"""`harness plan` with one study, with several, and with a folder of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.commands import workspace
from tests.end_to_end.test_json import PAGE, documented, emitted, is_kind
from tests.study.fakes import CATALOGUE, HEAD

PLAN = ["plan", "--json", "--runs", "nowhere"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies that share their baseline."""
    monkeypatch.setattr(workspace, "build_catalogue", lambda data_dir, plugins: CATALOGUE)
    for name, trick in (("one", "mixup"), ("two", "cosine")):
        rows = f"[{{label: plain}}, {{label: other, add: {trick}}}]"
        text = HEAD.replace("study: small", f"study: {name}")
        (tmp_path / f"{name}.yaml").write_text(
            text + f"tables: {{t: {{title: T, design: rows, rows: {rows}}}}}\n"
        )
    return tmp_path


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*PLAN, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_study_is_shown_as_ever(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = _json(capsys, str(folder / "one.yaml"))
    assert (data["study"], data["schema"], len(data["runs"])) == ("one", 2, 4)


def test_a_folder_and_its_files_are_the_same_and_each_counts_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(folder / "one.yaml"), str(folder / "two.yaml")]
    data = _json(capsys, *files)
    assert [study["study"] for study in data["studies"]] == ["one", "two"]
    assert data["totals"]["runs"] == 2 * 3
    assert data["totals"]["sharing"] == [{"studies": ["one", "two"], "runs": 2}]
    assert _json(capsys, str(folder)) == _json(capsys, *files, str(folder)) == data


def test_what_is_printed_for_several_is_what_the_page_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text().replace("--json with several studies", "several --json")
    keys = documented(page, "plan several")
    data = _json(capsys, str(folder))
    assert data["studies"][0].pop("missing_data") == []
    assert data["studies"][0].pop("data_notes") == []
    pairs = list(emitted(data, keys))
    assert {name for name, _ in pairs if not name.startswith("studies[]")} == set(keys)
    assert [name for name, value in pairs if name in keys and not is_kind(value, keys[name])] == []


def test_mistakes_of_every_study_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        path = folder / f"{name}.yaml"
        path.write_text(path.read_text().replace("label: plain", "lable: plain"))
    assert main([*PLAN, str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"{folder / 'one.yaml'}:9: " in said
    assert f"{folder / 'two.yaml'}:9: " in said


def test_a_folder_without_studies_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, str(tmp_path)]) == 2
    assert f"{tmp_path}: no study (*.yaml) in this folder" in capsys.readouterr().err


def _planned(capsys: pytest.CaptureFixture[str], folder: Path, *changes: str) -> Any:
    said = [word for change in changes for word in ("--set", change)]
    return _json(capsys, str(folder / "one.yaml"), *said)


def test_what_is_set_changes_the_baseline_at_its_size_and_is_marked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, changed = _planned(capsys, folder), _planned(capsys, folder, "epochs=3", "lr=0.5", "flip=0")
    recipes = [arm["recipe"] for arm in changed["arms"].values()]
    assert {(recipe["epochs"], recipe["lr"], recipe["augment"]["flip"]) for recipe in recipes} == {
        (3, 0.5, 0)
    }
    assert changed["study"] == "one-set-epochs-3-flip-0-lr-0-5", "records and report of the study stay"
    assert changed["header"]["set"] == ["epochs=3", "lr=0.5", "flip=0"]
    assert "exploratory: --set epochs=3 --set lr=0.5 --set flip=0, not said by the study" in changed["notes"]
    assert "set" not in plain["header"]
    assert plain["arms"].keys().isdisjoint(changed["arms"])


def test_what_is_set_may_be_what_the_study_says_anyway(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = _planned(capsys, folder)
    [epochs] = {arm["recipe"]["epochs"] for arm in plain["arms"].values()}
    assert _planned(capsys, folder, f"epochs={epochs}")["arms"].keys() == plain["arms"].keys()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["epoch=3"], "--set: unknown key 'epoch'; did you mean 'epochs'? Valid: "),
        (["epochs"], "--set: write it as KEY=VALUE, such as epochs=3"),
        (["epochs=0"], "--set epochs=0: epochs must be greater than 0, got 0"),
        (["lr=fast"], "--set lr=fast: lr must be a number"),
        (["lr=1", "lr=2"], "--set: lr is set twice"),
        (["batch_size=4"], "did you mean 'batch_scale'?"),
        (["crop_area=[0.1, "], "--set crop_area=[0.1, : crop_area is not valid YAML"),
        (["data=cifar"], "unknown data set 'cifar'; did you mean 'cifar10'?"),
        (["crop_pad=99"], "crop_pad 99 around 32 x 32 pixels"),
    ],
)
def test_what_is_set_is_checked_as_the_study_is(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: list[str], says: str
) -> None:
    said = [word for change in changes for word in ("--set", change)]
    assert main([*PLAN, str(folder / "one.yaml"), *said]) == 2
    assert says in capsys.readouterr().err
