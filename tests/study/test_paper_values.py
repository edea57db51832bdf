"""What a row may print beside top1 and top5: carried along under its name, never analysed."""

from __future__ import annotations

from pathlib import Path

from harness.study.plan import PaperValue
from tests.study.fakes import HEAD, cells, plan_of

PRINTED = {
    "top1_std": 0.12,
    "params_m": 4.2,
    "gflops": 0.569,
    "cost": 144,
    "cost_bn_ops": 1.5,
    "epoch_minutes": 16,
    "steps_to_target_m": 2.1,
}


def test_every_printed_number_is_kept_with_its_mark(tmp_path: Path) -> None:
    pairs = ", ".join(f"{name}: {value}" for name, value in PRINTED.items())
    marks = ", ".join(f"{name}: verified" for name in PRINTED)
    row = f"{{label: a, paper: {{top1: 76.4, top5: null, {pairs}, status: {{top1: memory, {marks}}}}}}}"
    plan = plan_of(tmp_path, HEAD + f"tables: {{t: {{title: T, design: rows, rows: [{row}]}}}}\n")
    expected = {name: PaperValue(value=float(value), status="verified") for name, value in PRINTED.items()}
    found = cells(plan, "t")["a", None].paper
    assert found == {"top1": PaperValue(value=76.4, status="memory"), **expected}
