"""How what sbatch says is read: fewer tasks may be taken, the user must mend something, or nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scheduling.sbatch import NoAnswer, Refused, submit

FEWER = [  # words of Slurm 22.05
    "sbatch: error: AssocMaxSubmitJobLimit sbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: QOSMaxSubmitJobPerUserLimit sbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: Batch job submission failed: Invalid job array specification",
]
NEVER = [
    "sbatch: error: invalid partition specified: gpuu sbatch: error: Batch job submission failed: Invalid "
    "partition name specified",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
    "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some "
    "limit)",
]
UNKNOWN = [
    "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An sbatch that says these words and fails."""

    def speak(words: str) -> Path:
        (tmp_path / "words").write_text(words)
        (tmp_path / "sbatch").write_text(f"#!/bin/sh\ncat {tmp_path / 'words'} >&2\nexit 1\n")
        (tmp_path / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "g0.0.sh"

    return speak


@pytest.mark.parametrize("words", FEWER)
def test_of_what_a_limit_refuses_fewer_tasks_may_be_accepted(says, words: str) -> None:
    with pytest.raises(Refused) as refused:
        submit(says(words))
    assert refused.value.too_many
    assert str(refused.value) == words


@pytest.mark.parametrize("words", NEVER)
def test_what_the_user_must_mend_is_not_tried_with_fewer_tasks(says, words: str) -> None:
    with pytest.raises(Refused) as refused:
        submit(says(words))
    assert not refused.value.too_many


@pytest.mark.parametrize("words", UNKNOWN)
def test_silence_is_not_a_refusal(says, words: str) -> None:
    with pytest.raises(NoAnswer):
        submit(says(words))
