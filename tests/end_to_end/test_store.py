"""MLflow is a mirror: it can be deleted and made again from the run folders."""

from __future__ import annotations

import pytest

from tests.end_to_end.conftest import Finished
from tests.end_to_end.workplace import Workplace


@pytest.mark.campaign
def test_after_the_store_was_deleted_sync_and_report_give_the_same_report_byte_for_byte(
    copy: Workplace, finished: Finished
):
    assert sorted(path.name for path in copy.path.iterdir()) == ["reports", "runs", "tiny.yaml"]
    (copy.report_dir / "report.json").unlink()

    synced = copy.call_apart("sync", "tiny.yaml")
    assert synced.returncode == 0, synced.stderr
    assert (copy.path / "mlflow.db").exists()
    runs_before = [copy.files()[path] for path in sorted(copy.files()) if path.startswith("runs/")]
    reported = copy.harness("report")
    assert reported.returncode == 0, reported.stderr

    original = (finished.place.report_dir / "report.json").read_bytes()
    assert (copy.report_dir / "report.json").read_bytes() == original
    assert [copy.files()[path] for path in sorted(copy.files()) if path.startswith("runs/")] == runs_before
