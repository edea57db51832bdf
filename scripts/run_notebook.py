"""Run the code cells of notebooks in order and store what they show, without a notebook server.

    python scripts/run_notebook.py examples/results.ipynb            run it and write its outputs
    python scripts/run_notebook.py --check examples/results.ipynb    run it; ends with 1 where a text differs

What a cell prints, and its last expression as text, HTML and PNG where the value offers them, become its
outputs. Cells run in the notebook's folder. The check compares texts, not pictures or HTML: those depend on
the versions of the packages that draw them.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FORMATS = (("_repr_html_", "text/html"), ("_repr_png_", "image/png"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", type=Path, nargs="+")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    different = 0
    for path in options.notebooks:
        stored = json.loads(path.read_text(encoding="utf-8"))
        executed = execute(stored, path.parent)
        if options.check:
            wrong = differences(stored, executed)
            different += len(wrong)
            print("\n".join([f"{path}: {text}" for text in wrong] or [f"{path}: as stored"]))
        else:
            path.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if different else 0


def execute(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, run in `folder` one after the other."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    with contextlib.chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                outputs = run_cell("".join(cell["source"]), names, count)
                cell = {**cell, "execution_count": count, "outputs": outputs}
            cells.append(cell)
    return {**notebook, "cells": cells}


def run_cell(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What the cell prints, then its last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None:
        data = shown(value)
        outputs.append(
            {"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}
        )
    return outputs


def shown(value: Any) -> dict[str, Any]:
    """The value in every format that it offers."""
    data: dict[str, Any] = {"text/plain": lines(repr(value))}
    for method, kind in FORMATS:
        content = getattr(value, method)() if hasattr(value, method) else None
        if isinstance(content, bytes):
            data[kind] = base64.b64encode(content).decode() + "\n"
        elif content is not None:
            data[kind] = lines(content)
    return data


def lines(text: str) -> list[str]:
    """As notebooks keep text."""
    return text.splitlines(keepends=True)


def differences(stored: dict[str, Any], executed: dict[str, Any]) -> list[str]:
    """Where the texts of two runs differ, one sentence for each cell."""
    pairs = zip(stored["cells"], executed["cells"], strict=True)
    return [
        f"cell {number} shows other text than it did"
        for number, (was, now) in enumerate(pairs, start=1)
        if list(texts(was)) != list(texts(now))
    ]


def texts(cell: dict[str, Any]) -> Iterator[str]:
    """The plain texts among the outputs of a cell."""
    for output in cell.get("outputs", []):
        yield "".join(output.get("text", output.get("data", {}).get("text/plain", "")))


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    sys.exit(main())
