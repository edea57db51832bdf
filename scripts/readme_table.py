"""The README's tables and picture, from the committed reports."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.analysis.findings import GLYPHS
from harness.reporting.sections.claims import ANSWER_GLYPHS, headline
from harness.reporting.sections.paper import KEY as SCOREBOARD

MOST_CLAIMS = 5  # in the README; docs/results.md has all
OPEN = ("not settled", "cannot be tested here")
Record = dict[str, Any]


def scoreboard_section(report_json: Path, reports: list[Path]) -> str:
    """The scoreboard of a report, then what the claims of all came to: at most `MOST_CLAIMS` rows."""
    report, folder = json.loads(report_json.read_text()), report_json.parent.name
    effects = [cell for table in report["findings"]["tables"] for cell in table["cells"] if cell["effect"]]
    verdicts = Counter(cell["effect"]["verdict"] for cell in effects)
    alt = ", ".join(f"{count} {GLYPHS[word]} {word}" for word, count in verdicts.most_common())
    alt = f"Scoreboard of {len(effects)} effects: {alt}"
    picture = f'<img src="reports/{folder}/figures/{SCOREBOARD}.svg" width="760" alt="{alt}">'
    claims = _claims_of_papers(reports)
    table = _claims_table(of_many_studies(claims), "reports")
    return "\n".join([picture, "", *table, _counted([claim for _, claim in claims]), ""])


def of_many_studies(claims: list[tuple[str, Record]], most: int = MOST_CLAIMS) -> list[tuple[str, Record]]:
    """Settled claims: with each answer there is, so that misses are shown too, then of many studies."""
    left = [at for at, (_, claim) in enumerate(claims) if claim["answer"] not in OPEN]
    shown: list[int] = []
    answers: set[str] = set()
    of_study: Counter[str] = Counter()
    while left and len(shown) < most:
        at = min(left, key=lambda at: (claims[at][1]["answer"] in answers, of_study[claims[at][0]], at))
        left.remove(at)
        shown.append(at)
        answers.add(claims[at][1]["answer"])
        of_study[claims[at][0]] += 1
    return [claims[at] for at in sorted(shown)]


def _claims_of_papers(reports: list[Path]) -> list[tuple[str, Record]]:
    """(study, claim), without studies of no paper and reports of before floors were measured."""
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(reports)}
    return [
        (name, claim)
        for name, report in found.items()
        if report["header"]["paper"]
        for claim in report["claims"]
    ]


def claims_section(reports: list[Path]) -> str:
    """Every claim that the committed reports settle: the paper's number, ours, the answer."""
    claims = _claims_of_papers(reports)
    settled = [(study, claim) for study, claim in claims if claim["answer"] not in OPEN]
    lines = [*_claims_table(settled, "../reports"), _counted([claim for _, claim in claims]), ""]
    return "\n".join(lines)


def _claims_table(claims: list[tuple[str, Record]], reports: str) -> list[str]:
    """One line per claim of a study; nothing where there is none. `reports`: their folder, from the page."""
    head = [
        "| a paper says | its number | measured here [95 % CI] | n | so? | study |",
        "|---|--:|--:|--:|---|---|",
    ]
    lines = [_claim_line(study, claim, reports) for study, claim in claims]
    return [*head, *lines, ""] if lines else []


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


def _claim_line(study: str, claim: Record, reports: str) -> str:
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
    where = f"[{study}]({reports}/{study}/report.md)"
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
    said = headline(answers)
    rows = sum(len(table["cells"]) for table in tables)
    trained = sum(not report["arms"][run["arm_id"]]["observes"] for run in report["runs"])
    return (
        f"| [{name}](../reports/{name}/report.md) | {report['header']['question']} | {len(tables)} "
        f"| {rows} | {trained} | {said} |"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
