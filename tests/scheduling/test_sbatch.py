"""How what sbatch says is read: fewer tasks may be taken, the user must mend something, or nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.slurm import sbatch
from harness.slurm.sbatch import Accepted, NoAnswer, Refused, accepted, answer_file, submit

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


HERE, ALPHA = Accepted("4101"), Accepted("4101", "alpha")


@pytest.mark.parametrize(
    ("output", "job"),
    [
        ("4101\n", HERE),
        ("4101;alpha\n", ALPHA),
        ("Submitted batch job 4101\n", HERE),
        ("Submitted batch job 4101 on cluster alpha\n", ALPHA),
        ("this is job 3 of 50 allowed\n4101\n", HERE),
        ("this is job 3 of 50 allowed\nSubmitted batch job 4101\n", HERE),
        ("12\n4101;alpha\n", ALPHA),
        ("Submitted batch job 4101 on cluster alpha\n4101\n", ALPHA),
        ("4101\r\n\r\n", HERE),
        ("  4101  \n\n\n", HERE),
        ("\x1b[32mSubmitted batch job 4101\x1b[0m\n", HERE),
        ("4101\nThank you for using alpha.\n", HERE),
        ("Submitted batch job\n4101\n", HERE),
        ("99999999999\n", Accepted("99999999999")),
        ("this is job 3 of 50 allowed\n", None),
        ("job 4101 on cluster alpha\n", None),
        ("Auftrag 4101 wurde angenommen\n", None),
        ("Submitted batch job 4101\n17\n", None),
        ("the last Submitted batch job 3 was yours\n", None),
        ("Submitted batch job 3 of 50\n", None),
        ("4101_0\n", None),
        ("4101+0\n", None),
        ("4101; rm -rf ~\n", None),
        ("4101;--flag x\n", None),
        ("1" * 30 + "\n", None),
        ("", None),
    ],
)
def test_the_id_is_read_where_slurm_writes_it_and_nowhere_else(output: str, job: Accepted | None) -> None:
    assert accepted(output) == job


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An sbatch with this output, these errors and this exit code."""

    def speak(output: bytes, errors: bytes = b"", code: int = 0) -> Path:
        (tmp_path / "output").write_bytes(output)
        (tmp_path / "errors").write_bytes(errors)
        lines = f"cat {tmp_path}/output\ncat {tmp_path}/errors >&2\nexit {code}\n"
        (tmp_path / "sbatch").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n{lines}')
        (tmp_path / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "g0.0.sh"

    return speak


def test_it_is_asked_for_the_bare_id_and_for_the_cluster_that_is_meant(answers, tmp_path: Path) -> None:
    file = answers(b"7\n")
    assert submit(file) == Accepted("7")
    assert (tmp_path / "called").read_text() == f"--parsable {file}\n"
    submit(file, "alpha")
    assert (tmp_path / "called").read_text() == f"--parsable --clusters=alpha {file}\n"


def test_a_banner_in_another_encoding_and_warnings_are_no_trouble(answers) -> None:
    warning = b"sbatch: warning: this partition is for tests \xe9\n"
    assert submit(answers(b"Gr\xfc\xdfe vom Rechenzentrum\n4101\n", warning)) == HERE


@pytest.mark.parametrize("output", [b"", b"Auftrag 4101 wurde angenommen\n", b"Submitted batch job 4\n5\n"])
def test_a_success_without_an_id_may_be_a_submission(answers, output: bytes) -> None:
    with pytest.raises(NoAnswer, match="names no job") as silence:
        submit(answers(output))
    assert silence.value.maybe


def test_an_id_with_an_exit_code_may_be_a_submission(answers) -> None:
    with pytest.raises(
        NoAnswer, match="names job 4101 and ends with code 3: quota file is missing"
    ) as silence:
        submit(answers(b"4101\n", b"quota file is missing\n", 3))
    assert silence.value.maybe


@pytest.mark.parametrize(
    ("output", "code"), [(b"", 0), (b"", 1), (b"this is job 3 of 50 allowed\n", 0), (b"3\n", 1)]
)
def test_slurms_own_refusal_is_one_whatever_else_is_printed(answers, output: bytes, code: int) -> None:
    words = b"sbatch: error: Batch job submission failed: Invalid account\n"
    with pytest.raises(Refused, match="Invalid account"):
        submit(answers(output, words, code))


def test_what_it_answered_is_in_a_file_before_anybody_reads_it(answers, tmp_path: Path, monkeypatch) -> None:
    """A controller may be killed at any moment; `adopt` reads it then."""
    monkeypatch.setattr(sbatch, "_outcome", lambda *_: HERE)
    file = answers(b"4101;alpha\n")
    submit(file)
    assert accepted(answer_file(file).read_text()) == ALPHA


def test_an_sbatch_that_hangs_is_ended_and_its_outcome_is_unknown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sbatch, "SBATCH_TIMEOUT_S", 0.1)
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexec sleep 1800\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(NoAnswer, match=r"gave no answer within 0\.1 s"):
        submit(tmp_path / "g0.0.sh")
