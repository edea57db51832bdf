"""Write what is generated: docs/tricks.md, docs/cli.md, the tree, README's and results' tables, model costs.

`--check` writes nothing and fails where a file on disk differs from what would be written. `--fidelity` adds
docs/fidelity.md, which takes half a minute and needs timm. Costs in costs.json are taken as they are (a test
measures a sample of them again); `--fresh` measures them all again, as must be when an architecture changes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fidelity
from readme_table import claims_section, scoreboard_section, studies_section

from harness.cli import build_parser
from harness.commands.workspace import CLASSES_IF_UNKNOWN, build_catalogue
from harness.models.costs import COSTS_FILE, answers, costs_text
from harness.spec import DataSpec, ModelSpec
from harness.study.catalogue import Cost
from harness.study.expand import ExpandOptions, expand, load_study
from harness.tricks import TRICKS
from harness.tricks.build import card, describe

ROOT = Path(__file__).resolve().parents[1]
SCOREBOARD_BEGIN, TABLE_END = "<!-- scoreboard: made by make docs -->\n", "<!-- end of table -->\n"
CLAIMS_BEGIN = "<!-- claims: made by make docs -->\n"
STUDIES_BEGIN = "<!-- studies: made by make docs -->\n"


def tricks_page() -> str:
    """One section per trick, from its card."""
    parts = [
        "# Tricks\n",
        "Made by `make docs` from the cards in `harness/tricks/`. A study switches a trick on by its name.\n",
    ]
    for name, trick in sorted(TRICKS.items()):
        about, lines = describe(trick), card(trick)
        options = ", ".join(f"`{key}` = {value!r}" for key, value in about["options"].items()) or "none"
        parts.append(
            f"## {name}\n\n{lines.summary}\n\n"
            f"- Paper: {lines.paper}\n- Equation: `{lines.equation}`\n- Acts on: {lines.acts_on}\n"
            f"- Options: {options}\n- Defaults: {lines.defaults}\n- Differs: {lines.differs}\n"
            f"- Conflicts with: {', '.join(sorted(about['conflicts'])) or 'nothing'}\n"
        )
    return "\n".join(parts)


def cli_page() -> str:
    """Every command with its arguments, from the parser itself."""
    parser = build_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    parts = [
        "# Command line\n",
        "Made by `make docs` from the parser. Exit codes: 0 done, 1 some runs failed (the report "
        "says which), 2 usage or study error, 3 interrupted (resumable).\n",
    ]
    for name, sub in commands.choices.items():
        parts.append(f"## harness {name}\n\n{sub.description}\n\n| argument | meaning |\n|---|---|")
        for action in sub._actions:
            if action.dest == "help":
                continue
            label = ", ".join(action.option_strings) or (action.metavar or action.dest)
            value = f" {action.metavar}" if action.option_strings and action.metavar else ""
            parts.append(f"| `{label}{value}` | {action.help or ''} |")
        parts.append("")
    return "\n".join(parts)


def whole_reports(folder: Path) -> list[Path]:
    """Every report but those that were made here, of a part or beside one, such as the demo's."""
    made_here = ("-part", "-here")
    return [each for each in folder.glob("*/report.json") if not each.parent.name.endswith(made_here)]


def readme() -> str:
    """The hand-written page with the scoreboard of Bag of Tricks and the first claims of all studies."""
    reports = ROOT / "reports"
    found = whole_reports(reports)
    section = scoreboard_section(reports / "bag_of_tricks" / "report.json", found)
    return _between((ROOT / "README.md").read_text(), SCOREBOARD_BEGIN, section, TABLE_END)


def results_page() -> str:
    """What every committed report says, study by study and claim by claim."""
    found = whole_reports(ROOT / "reports")
    page = _between(
        (ROOT / "docs" / "results.md").read_text(), STUDIES_BEGIN, studies_section(found), TABLE_END
    )
    return _between(page, CLAIMS_BEGIN, claims_section(found), TABLE_END)


def study_was_run_here() -> bool:
    """Whether the report of Bag of Tricks differs from the committed one."""
    command = ["git", "-C", str(ROOT), "diff", "--quiet", "HEAD", "--", "reports/bag_of_tricks"]
    return subprocess.call(command, stderr=subprocess.DEVNULL) == 1


def _between(page: str, begin: str, made: str, end: str) -> str:
    before, rest = page.split(begin)
    _, after = rest.split(end, maxsplit=1)
    return f"{before}{begin}{made}{end}{after}"


def model_costs() -> str:
    """Parameters and multiply-adds of every family, every variant and every arm of every study, the README's
    among them."""
    questions: list[dict[str, Any]] = []
    catalogue = build_catalogue(ROOT / "data")

    def cost(model: ModelSpec, data: DataSpec) -> Cost:
        classes = catalogue.data[data.name].facts(data.args)[0] or CLASSES_IF_UNKNOWN
        about = {"name": model.name, "args": dict(model.args), "resolution": data.resolution}
        questions.append({**about, "classes": classes})
        return Cost(params=0, macs=0)  # only which questions are asked matters here

    listening = catalogue._replace(cost=cost)
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder) / "my_study.yaml"
        shown.write_text((ROOT / "README.md").read_text().split("```yaml\n")[1].split("```")[0])
        for path in (*sorted((ROOT / "studies").glob("*.yaml")), shown):
            study = load_study(path, listening)
            for size in study.file.sizes:
                expand(study, listening, ExpandOptions(size=size))
    fresh = "--fresh" in sys.argv[1:] or not COSTS_FILE.exists()
    return costs_text(answers(questions, known=[] if fresh else json.loads(COSTS_FILE.read_text())))


PAGES: dict[str, Callable[[], str]] = {
    "docs/tricks.md": tricks_page,
    "docs/cli.md": cli_page,
    "README.md": readme,
    "docs/results.md": results_page,
    "harness/models/costs.json": model_costs,
}


def wanted() -> dict[str, Callable[[], str]]:
    """The pages that are made, or compared, this time."""
    if "--fidelity" not in sys.argv[1:]:
        return PAGES
    if not fidelity.available():
        print("docs/fidelity.md is left as it is: timm is not installed, and half of it compares with timm")
        return PAGES
    return {**PAGES, "docs/fidelity.md": fidelity.page}


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for name, make in wanted().items():
        if check and name in ("README.md", "docs/results.md") and study_was_run_here():
            continue  # they show the committed report, the folder now has this machine's
        path, text = ROOT / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text)
    print(("stale, run `make docs`: " if check else "written: ") + (", ".join(stale) or "nothing"))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
