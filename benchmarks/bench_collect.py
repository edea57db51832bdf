"""What reading a large study back from the MLflow store costs: 10,000 finished runs, curves and predictions.

    python benchmarks/bench_collect.py [--runs 10000] [--repeats 3] [--out FILE]

The store is a SQLite file with 43 points of curves and 1,250 bytes of predictions for each run
(`many_mirrored_runs.py`; making it takes a minute or two and is not counted). Each figure is the median of
`--repeats`:

- `collect`: store -> frames of records and curves, every predictions artifact read and its digest checked;
- `analyse`: frames -> findings, in tables of 20 arms at 20 seeds.

Wall time, and beside it CPU time of this process, which other processes on the machine disturb less. The
files have been written just before: they are read from memory, not from a disk or a network. For comparison,
MLflow's client reads `--client-runs` such runs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import bench_analysis
import figures
import many_mirrored_runs as many
import numpy as np

from harness.analysis import analyse
from harness.analysis.findings import Settings
from harness.spec import Arm
from harness.study.plan import Plan
from harness.study.reserved import CURVES
from harness.tracking.collect import collect, from_client

COLLECT_S = 2.0  # the goal
ARMS_PER_TABLE = 20


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--client-runs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    table = figures.Figures()
    with tempfile.TemporaryDirectory() as name:
        store = many.make_store(Path(name), options.runs)
        what = f"collect {options.runs:,} finished runs"
        records, curves = bench_analysis.measure(
            table, what, lambda: collect(store, many.STUDY, many.SIZE), options, COLLECT_S
        )
    assert len(records) == options.runs
    assert records["predictions"].notna().all()
    records["reason"] = records["error"]
    plan = plan_of(options.runs)
    bench_analysis.measure(
        table, "analyse them", lambda: analyse(plan, records, curves, Settings()), options, None
    )
    with tempfile.TemporaryDirectory() as name:
        few = many.make_store(Path(name), options.client_runs)
        began_s = time.perf_counter()
        from_client(few, many.STUDY, many.SIZE, ("epoch", *CURVES))
        each_ms = 1e3 * (time.perf_counter() - began_s) / options.client_runs
    table.add("MLflow's client instead, for one run", [each_ms], "ms")
    table.save(options.out)


def plan_of(runs: int) -> Plan:
    """The plan that has these runs as its own."""
    specs = [many.spec_of(number) for number in range(0, runs, many.SEEDS_PER_ARM)]
    arms: dict[str, Arm] = {spec.arm.arm_id: spec.arm for spec in specs}
    tables = int(np.ceil(len(arms) / ARMS_PER_TABLE))
    return bench_analysis.plan_for(list(arms.values()), many.SEEDS_PER_ARM, tables)


if __name__ == "__main__":
    main()
