"""What a study declares has one hash; a later change is an amendment; records are never rewritten."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.findings import Settings
from harness.runs.state import read_history, study_folder, write_declaration
from harness.study.declaration import ALPHA, amendments, declaration_of, exploratory, plan_hash
from harness.study.plan import Plan
from tests.study.fakes import HEAD, plan_of

TABLE = """\
tables:
  t:
    title: T
    design: rows
    rows:
      - {label: plain}
      - {label: mixed, add: mixup, versus: plain}
      - {label: smooth, add: label_smoothing, versus: plain}
"""
STUDY = HEAD + TABLE
CLAIM = """\
claims:
  - {says: it helps, source: Sec. 1, table: t, row: mixed, versus: plain, measure: top1, expect: higher}
"""


def declared(folder: Path, text: str = STUDY, **options: Any) -> dict[str, Any]:
    return declaration_of(plan_of(folder, text, **options))


def entry(declaration: dict[str, Any], ended: int = 0, seen: int = 0) -> dict[str, Any]:
    return {
        "time": "2026-11-22T17:31:29Z",
        "harness": "0.1.0",
        "commit": None,
        "dirty": None,
        "runs": 6,
        "ended": ended,
        "seen": seen,
        "plan_hash": plan_hash(declaration),
        "declaration": declaration,
    }


def test_the_declared_error_rate_is_the_one_that_the_analysis_uses():
    assert Settings().alpha == ALPHA


def test_the_hash_is_of_what_is_declared_and_not_of_what_happened(tmp_path: Path):
    plan = plan_of(tmp_path, STUDY)
    before = plan_hash(declaration_of(plan))
    for run in plan.runs:
        run.done, run.time_s = True, 12.0
    changed = replace(plan, notes=("another remark",), header={**plan.header, "question": "Another?"})
    assert plan_hash(declaration_of(changed)) == before
    assert plan_hash(json.loads(json.dumps(declaration_of(plan)))) == before  # a file gives it back


def test_a_plan_that_grew_by_a_block_has_the_hash_that_it_had(tmp_path: Path):
    plan: Plan = replace(plan_of(tmp_path, STUDY), looks=(2, 5, 8))
    grown = replace(plan, seeds=tuple(range(5)), arm_seeds=dict.fromkeys(list(plan.arms)[:1], 2))
    assert declaration_of(grown) == declaration_of(plan)
    assert declaration_of(plan)["looks"] == [2, 5, 8]


CHANGES: list[tuple[str, Callable[[str], str], str]] = [
    ("metric", lambda text: text.replace("question", "metric: top5\nquestion"), "metric top1 → top5"),
    ("effect", lambda text: text + "smallest_effect: 0.5\n", "smallest effect 0.2 → 0.5 pp"),
    ("row", lambda text: text + "      - {label: warm, add: warmup}\n", "row “warm” of t added"),
    (
        "gone",
        lambda text: text.replace("      - {label: smooth, add: label_smoothing, versus: plain}\n", ""),
        "row “smooth” of t left out",
    ),
    ("recipe", lambda text: text.replace("add: mixup", "add: cosine"), "recipe of row “mixed” (arm "),
    (
        "versus",
        lambda text: text.replace(
            "add: label_smoothing, versus: plain", "add: label_smoothing, versus: mixed"
        ),
        "row “smooth” of t is compared with “mixed”, not with “plain”",
    ),
    ("claim", lambda text: text + CLAIM, "claim “it helps” added"),
    (
        "table",
        lambda text: text + "  u: {title: U, design: rows, rows: [{label: alone}]}\n",
        "u added (1 trained row)",
    ),
]


@pytest.mark.parametrize(("edit", "says"), [change[1:] for change in CHANGES], ids=[c[0] for c in CHANGES])
def test_each_change_is_another_hash_and_an_amendment_in_words(tmp_path: Path, edit: Any, says: str):
    before, after = declared(tmp_path), declared(tmp_path, edit(STUDY))
    assert plan_hash(before) != plan_hash(after)
    words = amendments(before, after)
    assert any(text.startswith(says) for text in words), words
    assert len(words) == 1, words
    assert amendments(before, before) == []


def test_more_seeds_and_changed_code_of_a_plugin_are_amendments(tmp_path: Path):
    before = declared(tmp_path)
    assert amendments(before, declared(tmp_path, seeds=5)) == ["seeds 2 → 5"]
    adaptive = {**before, "looks": [3, 5, 10]}
    assert amendments(before, adaptive) == ["seeds 2 → 3..10 (looks at 3, 5, 10)"]
    other = {**before, "plugins": {"lab.py": "ab12cd34" * 8}}
    assert amendments(before, other) == ["code of lab.py changed (sha256 none → ab12cd34)"]


def test_many_changed_rows_are_one_phrase_that_names_some(tmp_path: Path):
    rows = "".join(f"      - {{label: r{n}, add: mixup, versus: plain}}\n" for n in range(20))
    before = declared(tmp_path, STUDY)
    (words,) = amendments(before, declared(tmp_path, STUDY + rows))
    assert words.startswith("20 rows (“r0”, ")
    assert words.endswith(" and 14 more) of t added")


# Exploratory


def keys(found: frozenset[tuple[str, str | None, str]]) -> set[str]:
    return {row for _, _, row in found}


def test_only_contrasts_that_were_declared_before_results_are_confirmatory(tmp_path: Path):
    first = entry(declared(tmp_path))
    longer = STUDY + "      - {label: warm, add: warmup, versus: plain}\n"
    late = plan_of(tmp_path, longer)
    amended = entry(declaration_of(late), ended=2)
    assert keys(exploratory(late, [first, amended])) == {"warm"}
    assert keys(exploratory(late, [first, {**amended, "ended": 0, "seen": 4}])) == {"warm"}
    assert keys(exploratory(late, [first, {**amended, "ended": 0}])) == set()  # nothing was known by then
    assert keys(exploratory(late, [first])) == {"warm"}  # the amendment was not even recorded
    assert keys(exploratory(late, [])) == set()


def test_another_recipe_reference_or_metric_after_results_is_exploratory(tmp_path: Path):
    first = entry(declared(tmp_path))
    for old, new, rows in (
        ("add: mixup", "add: cosine", {"mixed"}),
        ("add: label_smoothing, versus: plain", "add: label_smoothing, versus: mixed", {"smooth"}),
        ("label: plain", "label: plain, add: warmup", {"mixed", "smooth"}),
        ("question", "metric: top5\nquestion", {"mixed", "smooth"}),
    ):
        plan = plan_of(tmp_path, STUDY.replace(old, new))
        assert keys(exploratory(plan, [first, entry(declaration_of(plan), ended=1)])) == rows


def test_a_row_that_was_only_renamed_is_as_declared(tmp_path: Path):
    first = entry(declared(tmp_path))
    renamed = plan_of(tmp_path, STUDY.replace("plain", "nothing on").replace("label: mixed", "label: mixup"))
    assert keys(exploratory(renamed, [first])) == set()


# The records


def test_what_was_recorded_is_read_back_and_reading_writes_nothing(tmp_path: Path):
    folder = tmp_path / "runs" / ".studies" / "small-mini"
    assert read_history(folder) is None
    assert not folder.exists()
    first, second = entry(declared(tmp_path)), entry(declared(tmp_path, seeds=5), ended=2)
    assert write_declaration(folder, 1, first)
    assert write_declaration(folder, 2, second)
    found = read_history(folder)
    assert found is not None
    assert found["problem"] is None
    assert [each["plan_hash"] for each in found["declarations"]] == [first["plan_hash"], second["plan_hash"]]
    assert sorted(path.name for path in folder.iterdir()) == ["declaration.1.json", "declaration.2.json"]


def test_a_smoke_run_and_another_size_have_records_of_their_own(tmp_path: Path):
    plans = [
        plan_of(tmp_path, STUDY),
        plan_of(tmp_path, STUDY, smoke=True),
        plan_of(tmp_path, STUDY, size="gpu"),
    ]
    names = [study_folder(tmp_path, plan).name for plan in plans]
    assert names == ["small-mini", "small-mini-smoke", "small-gpu"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_of_processes_that_record_at_once_one_gets_the_number(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    won = []
    data = entry(declared(tmp_path))

    def record() -> None:
        won.append(write_declaration(tmp_path / "s", 1, data))

    assert write_declaration(tmp_path / "s", 2, data)
    threads = [threading.Thread(target=record) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert sorted(won) == [False, True]
    history = read_history(tmp_path / "s")
    assert history is not None
    assert history["problem"] is None


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], Any]:
    def edit(path: Path) -> None:
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (lambda path: path.write_text(""), "declaration.1.json is damaged: "),
    (lambda path: path.write_bytes(b"\xff\xfe\x00"), "declaration.1.json is damaged: "),
    (lambda path: path.write_text("[1, 2]"), "declaration.1.json is damaged: "),
    (lambda path: path.write_text("[" * 100_000), "declaration.1.json is damaged: "),
    (lambda path: path.unlink(), "declaration.1.json is missing"),
    (_edit(lambda data: data.pop("ended")), "the key 'ended' is missing"),
    (_edit(lambda data: data.update(ended="none")), "a count of runs is no whole number"),
    (_edit(lambda data: data.update(time="yesterday")), "is damaged: time data"),
    (_edit(lambda data: data.update(schema=9)), "is of schema 9; this version reads 1"),
    (_edit(lambda data: data["declaration"].update(smallest_effect=0.01)), "was changed by hand"),
    (_edit(lambda data: data["declaration"].pop("tables")), "the key 'tables' is missing"),
    (_edit(lambda data: data["declaration"].update(tables=3)), "is damaged: "),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGES, ids=[str(n) for n in range(len(DAMAGES))])
def test_a_damaged_or_edited_record_is_said_in_words(tmp_path: Path, damage: Any, says: str):
    folder = tmp_path / "s"
    for number in (1, 2):
        write_declaration(folder, number, entry(declared(tmp_path)))
    damage(folder / "declaration.1.json")
    history = read_history(folder)
    assert history is not None
    assert says in history["problem"]
    assert history["declarations"] == []


def test_a_file_with_an_absurd_number_does_not_make_the_reader_count_to_it(tmp_path: Path):
    folder = tmp_path / "s"
    write_declaration(folder, 1, entry(declared(tmp_path)))
    (folder / "declaration.999999999999.json").write_text("{}")  # nobody's number, nobody's file
    history = read_history(folder)
    assert history is not None
    assert history["problem"] is None
    (folder / "declaration.999999999.json").write_text("{}")
    history = read_history(folder)
    assert history is not None
    assert history["problem"] == "declaration.2.json is missing"
