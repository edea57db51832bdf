"""Claims of runs, on real processes: of many one has a run, and a holder that is gone is followed."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.runs import claims as sighting
from harness.runs import claims as taking
from harness.runs import folder
from harness.runs.claims import Claims, Held, Taken, clear_cancel, request_cancel
from harness.runs.folder import MISSING, RUNNING, STOPPED, RunFolder, holder_of, run_state
from tests.timing import FOREVER_S, paces, until

RUN = "r" * 32
BEAT_S, STALE_S = 0.1, 0.8

HOLDER = """
import sys, time
from pathlib import Path
from harness.runs.claims import Claims, Taken

runs_dir, runs = Path(sys.argv[1]), sys.argv[2].split(",")
claims = Claims(runs_dir, job="17", beat_s=float(sys.argv[3]), stale_s=float(sys.argv[4]))
print("ready", flush=True)
for line in sys.stdin:
    if line == "take\\n":
        print(*[run for run in runs if isinstance(claims.take(run), Taken)], flush=True)
    elif line == "withdrawn\\n":
        while not claims.withdrawn():
            time.sleep(0.01)
        print(*claims.withdrawn().values(), flush=True)
"""


CROWD = """
import os, sys
from pathlib import Path
from harness.runs.claims import Claims, Taken

runs_dir, runs = Path(sys.argv[1]), sys.argv[2].split(",")
gate, opens = os.pipe()
end, ends = os.pipe()
for _ in range(64):
    if os.fork() == 0:
        os.close(opens)
        os.close(ends)
        claims = Claims(runs_dir)
        os.read(gate, 1)  # until it opens for all
        took = [run for run in runs if isinstance(claims.take(run), Taken)]
        os.write(1, f"{os.getpid()} {','.join(took)}\\n".encode())
        os.read(end, 1)  # the holders live until all have looked
        os._exit(0)
os.close(opens)
sys.stdin.read()
"""


class Other:
    """Another process that takes runs when it is told to."""

    def __init__(self, runs_dir: Path, runs: str = RUN) -> None:
        command = [sys.executable, "-c", HOLDER, str(runs_dir), runs, str(BEAT_S), str(STALE_S)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )

    def read(self) -> str:
        return self.process.stdout.readline().strip()

    def ask(self, what: str) -> None:
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def freeze(self) -> None:
        """Stop it, and wait until it has stopped."""
        self.signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Other]:
    """Another process, which has the run."""
    other = Other(tmp_path)
    assert other.read() == "ready"
    other.ask("take")
    assert other.read() == RUN
    yield other
    other.end()


@pytest.fixture
def claims(tmp_path: Path, clock: Clock) -> Iterator[Claims]:
    with Claims(tmp_path, beat_s=BEAT_S, stale_s=STALE_S) as these:
        yield these


class Clock:
    """The steady clock by which this process watches others: the test moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    @staticmethod
    def time() -> float:
        return time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sighting, "time", clock)
    return clock


def follow(claims: Claims, clock: Clock, beat: Callable[[], object], time_s: float) -> Taken | None:
    """Look at the run every 20 ms of the clock, after `beat`, until it is taken or `time_s` has passed."""
    end_s = clock.now_s + time_s
    while clock.now_s < end_s:
        beat()
        taken = claims.take(RUN)
        if isinstance(taken, Taken):
            return taken
        clock.now_s += 0.02
    return None


def follow_the_silent(claims: Claims, clock: Clock) -> tuple[Taken, float]:
    """The claim on a run whose holder does not beat, and how long it was watched for that."""
    start_s = clock.now_s
    taken = follow(claims, clock, lambda: None, 100 * STALE_S)
    assert taken is not None
    return taken, clock.now_s - start_s


def beats_of(file: Path) -> Callable[[], None]:
    """At every tenth call, twice in a beat of the clock, wait for the next beat of a living holder."""
    calls = itertools.count(1)

    def beat() -> None:
        if next(calls) % 10 == 0:
            before_ns = file.stat().st_mtime_ns
            until(lambda: file.stat().st_mtime_ns != before_ns)

    return beat


def newest(tmp_path: Path) -> Path:
    return tmp_path / RUN / f"claim.{folder.newest_number(tmp_path / RUN)}"


def test_of_64_processes_that_take_the_same_runs_at_once_one_has_each(tmp_path):
    """One of them was let go by a holder who could not write that."""
    runs = ["a", "b", "c"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "claim.1").touch(0o444)
    crowd = subprocess.Popen(
        [sys.executable, "-c", CROWD, str(tmp_path), ",".join(runs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    lines = [crowd.stdout.readline().split() for _ in range(64)]
    crowd.communicate()
    assert len({pid for pid, *_ in lines}) == 64
    took = [runs_of.split(",") for _, *said in lines for runs_of in said]
    assert sorted(itertools.chain(*took)) == runs
    found = [sorted(file.name for file in (tmp_path / run).iterdir()) for run in runs]
    assert found == [["claim.1"], ["claim.1"], ["claim.1", "claim.2"]]


@pytest.mark.parametrize("reaped", [False, True])
def test_a_holder_killed_with_9_is_followed_at_once_on_its_machine(holder, claims, reaped):
    held = claims.take(RUN)
    assert isinstance(held, Held)
    assert held.holder.pid == holder.process.pid
    assert held.holder.job == "17"
    holder.signal(signal.SIGKILL)
    if reaped:  # else it stays as a zombie
        holder.process.wait()
    taken = until(lambda: taken if isinstance(taken := claims.take(RUN), Taken) else None)
    assert taken.after.pid == holder.process.pid
    assert taken.number == 2
    assert claims.holds(RUN)


def test_a_process_that_has_the_pid_of_a_dead_holder_is_not_taken_for_it(holder, claims, tmp_path):
    content = json.loads(newest(tmp_path).read_text())
    newest(tmp_path).write_text(json.dumps({**content, "process_start": content["process_start"] - 1}))
    assert isinstance(claims.take(RUN), Taken)


@pytest.mark.parametrize("name", ["host", "boot_id", "pid_namespace"])
def test_a_holder_elsewhere_is_not_looked_for_among_the_processes_here(holder, claims, tmp_path, name):
    content = json.loads(newest(tmp_path).read_text())
    newest(tmp_path).write_text(json.dumps({**content, name: "another", "pid": 2**22 + 1}))
    assert isinstance(claims.take(RUN), Held)


def test_a_frozen_holder_is_followed_and_learns_it_when_it_goes_on(holder, claims, clock):
    holder.freeze()
    _, time_s = follow_the_silent(claims, clock)
    assert time_s > STALE_S / 2, "not before it had the time to beat"
    holder.signal(signal.SIGCONT)
    holder.ask("withdrawn")
    assert holder.read() == "lost"
    assert not claims.withdrawn()
    assert isinstance(claims.take("another"), Taken)


def test_a_holder_that_beats_keeps_its_run_and_is_seen_to_beat(holder, claims, clock, tmp_path):
    assert follow(claims, clock, beats_of(newest(tmp_path)), 3 * STALE_S) is None
    held = claims.take(RUN)
    assert isinstance(held, Held)
    assert held.beats


def test_a_claim_cut_to_nothing_holds_while_it_is_touched_and_not_longer(holder, claims, clock, tmp_path):
    newest(tmp_path).write_bytes(b"")
    assert follow(claims, clock, beats_of(newest(tmp_path)), 2 * STALE_S) is None
    holder.end()
    taken, time_s = follow_the_silent(claims, clock)
    assert taken.after.pid is None
    assert STALE_S / 2 < time_s < 4 * STALE_S


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"0" * 20_000, b"[" * 9_000),
        *(b'{"pid": "x", "host": 3, "time_s": []}', b'{"pid": -1, "boot_id": 7}', b'{"pid": 1e999}'),
    ],
)
def test_a_claim_of_any_content_is_a_claim(tmp_path, claims, clock, text):
    (tmp_path / RUN).mkdir()
    newest_claim = tmp_path / RUN / "claim.7"
    newest_claim.write_bytes(text)
    assert isinstance(claims.take(RUN), Held)
    assert holder_of(RunFolder(tmp_path / RUN)) == folder.read_claim(tmp_path / RUN, 7)
    os.utime(newest_claim, (1, 1))
    taken, _ = follow_the_silent(claims, clock)
    assert taken.number == 8


def test_released_means_free_at_once_and_numbers_are_not_used_again(tmp_path, claims):
    with Claims(tmp_path) as first:
        assert first.take(RUN) == Taken(1, None)
        assert isinstance(claims.take(RUN), Held)
        first.release(RUN)
        assert claims.take(RUN) == Taken(2, None)
        assert isinstance(first.take(RUN), Held)
        assert first.take("another") == Taken(1, None)
    assert claims.take("another") == Taken(2, None), "leaving the context releases"


def test_a_listing_that_fails_ends_no_claim_and_gives_none_away(holder, claims, tmp_path, monkeypatch):
    assert isinstance(claims.take("own"), Taken)

    def fail(*_: object) -> list[str]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "listdir", fail)
    held = claims.take(RUN)
    assert isinstance(held, Held)
    assert "Input/output error" in held.problem
    claims.beat()
    assert claims.withdrawn() == {}
    assert holder_of(RunFolder(tmp_path / RUN)) is None
    monkeypatch.undo()
    assert isinstance(claims.take(RUN), Held)


def test_an_old_listing_gives_no_second_claim(holder, claims, monkeypatch):
    monkeypatch.setattr(taking, "newest_number", lambda folder: 0)
    held = claims.take(RUN)
    assert isinstance(held, Held)
    assert held.holder.pid == holder.process.pid


@pytest.mark.parametrize("wrong_s", [-7200, 7200])
def test_a_living_holder_with_a_wrong_clock_keeps_its_run(tmp_path, elsewhere, claims, clock, wrong_s):
    def beat() -> None:
        time_s = time.time() + wrong_s
        os.utime(newest(tmp_path), (time_s, time_s))

    assert follow(claims, clock, beat, 4 * STALE_S) is None


@pytest.mark.parametrize("wrong_s", [-7200, 7200])
def test_a_dead_holder_with_a_wrong_clock_is_followed_all_the_same(
    tmp_path, elsewhere, claims, clock, wrong_s
):
    time_s = time.time() + wrong_s
    assert follow(claims, clock, lambda: os.utime(newest(tmp_path), (time_s, time_s)), 5) is not None


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Claims]:
    """Has the run, and beats only where a test does it."""
    with Claims(tmp_path, beat_s=FOREVER_S) as these:
        these.take(RUN)
        yield these


def test_this_machines_clock_is_not_believed(holder, claims, clock, monkeypatch):
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 1e6)
    holder.freeze()
    _, time_s = follow_the_silent(claims, clock)
    assert time_s > STALE_S / 2


def test_a_watcher_that_slept_sees_nobody_as_dead(holder, claims, clock):
    holder.freeze()
    assert isinstance(claims.take(RUN), Held)
    clock.now_s += 3600
    assert isinstance(claims.take(RUN), Held)


def test_cancelling_reaches_the_holder_and_can_be_taken_back(holder, claims, tmp_path):
    folder = RunFolder(tmp_path / RUN)
    request_cancel(folder, "someone@somewhere")
    holder.ask("withdrawn")
    assert holder.read() == "cancelled"
    assert run_state(folder) == RUNNING, "until it has stopped"
    holder.end()
    assert run_state(folder) == "cancelled"
    clear_cancel(folder)
    clear_cancel(folder)
    assert run_state(folder) == MISSING


def test_a_holder_whose_folder_was_deleted_has_lost_the_run(tmp_path, claims):
    claims.take(RUN)
    newest(tmp_path).unlink()
    claims.beat()
    assert claims.withdrawn() == {RUN: "lost"}
    claims.release(RUN)
    assert claims.withdrawn() == {}


def test_who_holds_a_run_is_read_without_writing(holder, tmp_path):
    folder = RunFolder(tmp_path / RUN)
    folder.append_event("attempt", attempt=1, device="cpu")
    holder.freeze()  # so that the beat is the last one
    before = sorted((tmp_path / RUN).iterdir())
    living = holder_of(folder)
    assert (living.pid, living.job, living.number) == (holder.process.pid, "17", 1)
    assert f"process {holder.process.pid} on {os.uname().nodename} (job 17)" == living.place
    assert run_state(folder) == RUNNING
    assert holder_of(folder, now_s=living.beat_s + 89) is not None
    assert holder_of(folder, now_s=living.beat_s + 91) is None
    assert holder_of(folder, now_s=living.beat_s - 91) is None, "a beat far in the future is no sign of life"
    holder.end()
    assert holder_of(folder) is None
    assert run_state(folder) == STOPPED
    assert holder_of(RunFolder(tmp_path / "none")) is None
    assert sorted((tmp_path / RUN).iterdir()) == before
    assert not (tmp_path / "none").exists()


def fail(number: int) -> Callable[..., int]:
    """In place of a call to the system that ends with this error."""

    def call(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def test_a_full_disk_is_waited_for_and_a_closed_folder_is_an_error(tmp_path, claims, monkeypatch):
    monkeypatch.setattr(os, "open", fail(errno.ENOSPC))
    held = claims.take(RUN)
    assert isinstance(held, Held)
    assert "No space left" in held.problem
    monkeypatch.setattr(os, "open", fail(errno.EACCES))
    with pytest.raises(PermissionError):
        claims.take(RUN)
    monkeypatch.undo()
    monkeypatch.setattr(os, "write", fail(errno.ENOSPC))
    assert isinstance(claims.take(RUN), Taken), "an empty claim holds as well"
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", fail(errno.ENOSPC))
    claims.release(RUN)
    monkeypatch.setattr(os, "chmod", fail(errno.EPERM))
    claims.release(RUN)
    assert isinstance(claims.take(RUN), Taken), "its own claim, which it could not mark as released"


SHORT = {  # what os.write does on a full disk
    "nothing": fail(errno.ENOSPC),
    "a part": lambda handle, content, write=os.write: write(handle, content[:5]),
}


@pytest.mark.parametrize("write", SHORT.values(), ids=SHORT)
def test_a_claim_on_a_full_disk_is_let_go_without_a_word(tmp_path, claims, clock, monkeypatch, write):
    with Claims(tmp_path) as first, monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        assert first.take(RUN) == Taken(1, None)
        held = claims.take(RUN)
        assert held.holder.place == "a process that has not written its name (a full disk?)"
        assert run_state(RunFolder(tmp_path / RUN)) == RUNNING
        first.release(RUN)
        assert run_state(RunFolder(tmp_path / RUN)) == MISSING
        assert [path.name for path in (tmp_path / RUN).iterdir()] == ["claim.1"]
        assert claims.take(RUN) == Taken(2, None), "at once, and nobody has died"
        assert isinstance(first.take(RUN), Held)


def test_a_claim_of_a_full_disk_is_written_when_there_is_space(tmp_path, claims, monkeypatch):
    with Claims(tmp_path, job="17", beat_s=FOREVER_S) as first:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", SHORT["a part"])
            first.take(RUN)
            first.beat()
            assert claims.take(RUN).holder.pid is None
        first.beat()
        assert (claims.take(RUN).holder.pid, claims.take(RUN).holder.job) == (os.getpid(), "17")
        first.release(RUN)
        first.beat()
        assert claims.take(RUN) == Taken(2, None), "a beat writes nothing over a claim that was let go"


def test_taking_and_releasing_costs_about_a_millisecond_and_waits_for_no_disk(tmp_path, claims, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("waits for the disk"))
    numbers = itertools.count()

    def take_and_release() -> None:
        run_id = f"run{next(numbers)}"
        claims.take(run_id)
        claims.release(run_id)

    assert paces(tmp_path, take_and_release) < 15
