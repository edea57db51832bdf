"""The README's table and picture, from the committed report of the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GLYPHS = {"helps": "▲", "hurts": "▼", "no detectable difference": "≈", "undecided": "?", "not evaluable": "—"}
SHOWN = ("table3", "table5", "table6")
FIGURE = "table6_effects"
Record = dict[str, Any]


def readme_section(report_json: Path) -> str:
    """One line per comparison, then the forest plot of Table 6, in Markdown."""
    tables = {table["key"]: table for table in json.loads(report_json.read_text())["findings"]["tables"]}
    lines = [
        "| row | over | n | top-1 | effect, points [95 % CI] | verdict | paper's effect |",
        "|---|---|--:|--:|--:|---|--:|",
    ]
    for key in SHOWN:
        cells = [cell for cell in tables[key]["cells"] if cell["effect"]]
        lines += [_line(key, cell) for cell in cells]
    folder = report_json.parent.name
    shown = [_alt(cell) for cell in tables["table6"]["cells"] if cell["effect"]]
    return "\n".join(
        [
            *lines,
            "",
            "† from memory: no source at hand showed the printed value. Ours are short runs on small "
            "images, the paper's from ImageNet. Table 4 (eight more comparisons) is in the report.",
            "",
            f'<img src="reports/{folder}/figures/{FIGURE}.svg" width="720" alt="{"; ".join(shown)}">',
            "",
        ]
    )


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
