"""The README's tables and picture, from the committed reports."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from harness.analysis.findings import GLYPHS
from harness.reporting.sections.claims import ANSWER_GLYPHS, headline

SHOWN = ("table6",)
COLUMNS = (None, "ResNet-50-D")  # of Table 6; its other two columns are in the report
FIGURES = ("scoreboard", "table6_effects")  # the second one: of reports of before there were scoreboards
OPEN = ("not settled", "cannot be tested here")
Record = dict[str, Any]


def readme_section(report_json: Path) -> str:
    """One line per comparison, then the scoreboard of the study, in Markdown."""
    report = json.loads(report_json.read_text())
    tables = {table["key"]: table for table in report["findings"]["tables"]}
    lines = [
        "| row | over | n | top-1 | effect, points [95 % CI] | verdict | paper's effect |",
        "|---|---|--:|--:|--:|---|--:|",
    ]
    for key in SHOWN:
        lines += [_line(key, cell) for cell in _compared(tables[key])]
    return "\n".join(
        [
            *lines,
            "",
            "† from memory: no source at hand showed the printed value. Ours are short runs on small "
            "images, the paper's from ImageNet. Tables 2 to 5 and 7, Inception-V3 and MobileNet are in the "
            "report.",
            "",
            _picture(report_json.parent, report),
            "",
        ]
    )


def _picture(folder: Path, report: Record) -> str:
    """The scoreboard; its alt text has the rows of the tables that are shown, and counts the others."""
    name = next((name for name in FIGURES if (folder / "figures" / f"{name}.svg").exists()), FIGURES[0])
    tables = {table["key"]: table for table in report["findings"]["tables"]}
    alt = "; ".join(_alt(cell) for key in SHOWN for cell in _compared(tables[key]))
    if name == FIGURES[0]:
        words = Counter(c["effect"]["verdict"] for t in tables.values() for c in t["cells"] if c["effect"])
        counts = ", ".join(f"{number} {word}" for word, number in words.most_common())
        alt = f"Scoreboard of {sum(words.values())} effects: {counts}. {alt}"
    return f'<img src="reports/{folder.name}/figures/{name}.svg" width="720" alt="{escape(alt)}">'


def claims_section(reports: list[Path]) -> str:
    """Every claim that the committed reports settle: the paper's number, ours, the answer.

    Reports of before floors were measured are named, and their answers left out: they may be of networks that
    had not learnt their task.
    """
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(reports)}
    before = [name for name, report in found.items() if "floors" not in report]
    claims = [
        (name, claim) for name, report in found.items() if name not in before for claim in report["claims"]
    ]
    settled = [(study, claim) for study, claim in claims if claim["answer"] not in OPEN]
    table = [
        "| a paper says | its number | measured here [95 % CI] | n | so? | study |",
        "|---|--:|--:|--:|---|---|",
        *(_claim_line(study, claim) for study, claim in settled),
        "",
    ]
    lines = [*(table if settled else []), _counted([claim for _, claim in claims]), ""]
    if before:
        links = ", ".join(f"[{name}](reports/{name}/report.md)" for name in before)
        lines += [
            f"Not counted: {links}. These reports are of before networks were held against a linear "
            "classifier ([why](docs/decisions/0028-no-verdict-where-nothing-could-be-seen.md)), and are to "
            "be trained anew.",
            "",
        ]
    return "\n".join(lines)


def _counted(claims: list[Record]) -> str:
    """What came of all claims; of reports of before there were floors, how many their sign settles."""
    words = Counter(claim["answer"] for claim in claims)
    if any("size" in claim for claim in claims):
        return (
            f"Of the papers' claims at size `mini`: {headline(words)}. Answers are after Holm's correction "
            "over the claims of a study; the reports have the others, and say why they cannot be tested."
        )
    settled = sum(count for word, count in words.items() if word not in OPEN)
    return (
        f"{settled} of {len(claims)} claims are settled at size `mini`. Intervals are per claim; the "
        "reports have the others, and say which answers survive Holm's correction."
    )


def _claim_line(study: str, claim: Record) -> str:
    number, unit = _number_and_unit(claim["measure"])
    paper = "" if claim["paper"] is None else f"{number(claim['paper'])} {unit}"
    mark = "†" if claim["paper_status"] == "memory" else ""
    here = f"{number(claim['estimate'])} {unit}"
    if claim["low"] is not None:
        here += f" [{number(claim['low'])}, {number(claim['high'])}]"
    said = f"{ANSWER_GLYPHS[claim['answer']]} {claim['answer']}"
    size = claim.get("size") or {}
    if size.get("ratio") is not None:
        said += f" (× {size['ratio']:.1f})"
    where = f"[{study}](reports/{study}/report.md)"
    return f"| {claim['says']} | {paper}{mark} | {here} | {claim['n']} | {said} | {where} |"


def _number_and_unit(measure: str) -> tuple[Callable[[float], str], str]:
    """A difference in points or nats, or the ratio of two numbers of steps."""
    if measure == "steps_to_target":
        return "{:.2f} ×".format, "the steps"
    return _signed, "nats" if "loss" in measure else "points"


def studies_section(reports: list[Path]) -> str:
    """One line per study with a committed report: its question, its size, and what its claims came to."""
    lines = [
        "| study | its question | tables | rows | trained here | the paper's claims at this size |",
        "|---|---|--:|--:|--:|---|",
    ]
    return "\n".join([*lines, *map(_study_line, sorted(reports)), ""])


def _study_line(path: Path) -> str:
    report = json.loads(path.read_text())
    name, tables = path.parent.name, report["findings"]["tables"]
    answers = Counter(claim["answer"] for claim in report["claims"])
    said = headline(answers) if "floors" in report else "not counted: to be trained anew"
    rows = sum(len(table["cells"]) for table in tables)
    trained = sum(not report["arms"][run["arm_id"]]["observes"] for run in report["runs"])
    return (
        f"| [{name}](reports/{name}/report.md) | {report['header']['question']} | {len(tables)} "
        f"| {rows} | {trained} | {said} |"
    )


def _compared(table: Record) -> list[Record]:
    return [cell for cell in table["cells"] if cell["effect"] and cell["column"] in COLUMNS]


def _line(table: str, cell: Record) -> str:
    effect, level = cell["effect"], cell["level"]
    name = cell["row"] + (f" ({cell['column']})" if cell["column"] else "")
    interval = f"[{_signed(effect['low'])}, {_signed(effect['high'])}]" if effect["low"] is not None else ""
    word = f"{GLYPHS[effect['verdict']]} {effect['verdict']}"
    if effect["more_seeds"]:
        word += f", ~{effect['more_seeds']} more seeds"
    paper = "" if effect["paper"] is None else _signed(effect["paper"])
    mark = "†" if effect["paper_status"] == "memory" else ""
    number = table.removeprefix("table")
    measured = f"{level['mean']:.2f} ± {level['sd']:.2f} sd"
    return (
        f"| T{number} {name} | {effect['versus']} | {level['n']} | {measured} "
        f"| {_signed(effect['estimate'])} {interval} | {word} | {paper}{mark} |"
    )


def _alt(cell: Record) -> str:
    effect = cell["effect"]
    return f"{cell['row']}: {effect['verdict']}, {_signed(effect['estimate'])} points"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
