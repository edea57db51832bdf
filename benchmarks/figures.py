"""A table of figures as Markdown and, with `--out FILE`, as JSON."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: the median of its values, and their range."""

    what: str
    median: float
    low: float
    high: float
    unit: str
    goal: float | None
    within: bool | None  # whether the median meets the goal; None without one


class Figures:
    """Rows, printed as they come; `save` writes them as JSON."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        load = os.getloadavg()[0]
        self.about = {
            "date": datetime.datetime.now().astimezone().date().isoformat(),
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "load": round(load, 1),
            "python": platform.python_version(),
        }
        about = self.about
        print(
            f"{about['cpu']}, {about['cores']} cores, load {about['load']}, Python {about['python']}, "
            f"{about['date']}\n\n| measured | median | of all | goal |\n| --- | --- | --- | --- |",
            flush=True,
        )

    def add(self, what: str, values: Sequence[float], unit: str, goal: float | None = None) -> None:
        """A row; the goal is the most that the median may be."""
        median = statistics.median(values)
        within = None if goal is None else median <= goal
        row = Row(
            what=what, median=median, low=min(values), high=max(values), unit=unit, goal=goal, within=within
        )
        self.rows.append(row)
        wanted = "" if goal is None else f"{goal:g} {unit}" + ("" if within else " (missed)")
        span = f"{row.low:.3g} to {row.high:.3g}" if len(values) > 1 else ""
        print(f"| {what} | {median:.3g} {unit} | {span} | {wanted} |", flush=True)

    def ratio(self, what: str, values: Sequence[float], *, must: float, goal: float) -> None:
        """A row of how many times as good, which must be `must` at least and should be `goal`."""
        median, low, high = statistics.median(values), min(values), max(values)
        row = Row(what=what, median=median, low=low, high=high, unit="x", goal=must, within=median >= must)
        self.rows.append(row)
        verdict = "missed" if median < must else "met" if median < goal else "goal met"
        span = f"{low:.3g} to {high:.3g}" if len(values) > 1 else ""
        print(f"| {what} | {median:.3g} x | {span} | must {must:g}, goal {goal:g} ({verdict}) |", flush=True)

    def save(self, file: Path | None) -> None:
        """Write the rows, where a file was asked for."""
        if file is not None:
            file.write_text(json.dumps({"about": self.about, "rows": [asdict(row) for row in self.rows]}))


def parser(description: str | None) -> argparse.ArgumentParser:
    """Of a benchmark that writes its figures to `--out`."""
    new = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    new.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    return new


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
