"""Inside the processes of a study under test: sees every write, and fails it or kills the process on order.

Loaded by a `sitecustomize` on PYTHONPATH, hence in the controller, its fork server and every worker. It
stands between Python and the system's calls: files opened for writing, os.replace and its kin, os.fsync,
and the statements that change an SQLite database. It knows nothing of the harness, but that it sets how often
a run writes a checkpoint and counts training steps.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.orders import CUT, DELAY, ENVIRONMENT, KILL, SHORT, Order

T = TypeVar("T")
Part = Callable[[float], tuple[int, int]]  # writes a share of the bytes: how many, of how many
DELAY_S = 0.5
POSSIBLE = {KILL: "", DELAY: "", SHORT: "write ", CUT: "write "}  # the beginnings of points; others:
CHANGES_BYTES = ("open", "create", "write", "mkdir", "fsync")  # what a full or broken disk refuses
_open, _write, _pwrite, _close, _stat = os.open, os.write, os.pwrite, os.close, os.stat
_read_text = Path.read_text


def install() -> None:
    """Do nothing unless this process belongs to a study under test."""
    control = os.environ.get(ENVIRONMENT)
    if control:
        from tests.chaos import patches

        patches.install(Injector(Path(control)))


@dataclass(slots=True)
class Attempt:
    """The training steps of one attempt at a run."""

    pid: int
    run_id: str
    file: int  # an open file of the control folder
    first: int  # the step it went on from
    since_s: float
    last: int = -1

    def __post_init__(self) -> None:
        self.last = self.first


class Injector:
    """Of one process. Forked processes have their own copy."""

    def __init__(self, control: Path) -> None:
        settings = json.loads((control / "settings.json").read_text())
        self.control = control
        self.watch = settings["watch"] + os.sep
        self.checkpoint_every_s: float = settings["checkpoint_every_s"]
        self._stamp: tuple[int, int] | None = None
        self._number, self._times, self._orders = 0, 0, list[Order]()
        self._seen: dict[Order, int] = {}
        self._run_id = ""  # of the run whose journal this process wrote last
        self._attempt: Attempt | None = None

    def around(self, op: str, path: str, call: Callable[[], T], part: Part | None = None) -> T:
        """Do `call` on a watched path, or what is ordered in its place; `part` does a share of its bytes."""
        point = f"{op} {name_of(path, self.watch)}"
        order = self._due(point)
        if order is not None:
            if order.do == DELAY:
                time.sleep(DELAY_S)
            elif order.phase == "after" and order.do == KILL:
                call()
                self._note(op, path)
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                return self._disturb(order, path, part)
        result = call()
        self._note(op, path)
        return result

    def watched(self, path: Any) -> str | None:
        """The absolute path, where it is below the watched folder. A descriptor is followed."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return None
            if not path.startswith(os.sep):  # a pipe or a socket
                return None
        text = os.path.abspath(os.fsdecode(path))
        return text if text.startswith(self.watch) else None

    def step(self, step: int) -> None:
        """A training step was made: the last one of each attempt is kept in a file."""
        attempt = self._attempt
        if attempt is None or (attempt.pid, attempt.run_id, attempt.last + 1) != (
            os.getpid(),
            self._run_id,
            step,
        ):
            name = f"{self._run_id}.{os.getpid()}.{time.monotonic_ns()}"
            file = _open(self.control / "steps" / name, os.O_WRONLY | os.O_CREAT, 0o600)
            attempt = self._attempt = Attempt(os.getpid(), self._run_id, file, step - 1, time.time())
        attempt.last = step
        text = f"{attempt.first} {step} {attempt.since_s:.6f} {time.time():.6f}\n"
        _pwrite(attempt.file, text.encode(), 0)

    def _disturb(self, order: Order, path: str, part: Part | None) -> T:
        is_part = part is not None and (order.phase == "half" or order.do in (SHORT, CUT))
        written, of = part(order.share) if is_part else (0, 0)
        if order.do == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if of and order.do in (SHORT, CUT):
            return of if order.do == CUT else written
        number = getattr(errno, order.do, errno.EIO)
        raise OSError(number, os.strerror(number), path)

    def _due(self, point: str) -> Order | None:
        """The order to obey now. Of all processes, as many as were ordered obey one."""
        self._read_orders()
        for order in self._orders:
            if order.point not in ("", point):
                continue
            if not point.startswith(POSSIBLE.get(order.do, CHANGES_BYTES)):
                continue
            self._seen[order] = self._seen.get(order, 0) + 1
            if self._seen[order] >= order.nth and self._claim(order, point):
                return order
        return None

    def _read_orders(self) -> None:
        status = _stat(self.control / "orders.json")
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            data = json.loads(_read_text(self.control / "orders.json"))
            self._stamp, self._number, self._times = stamp, data["number"], data["times"]
            self._orders = [Order(**order) for order in data["orders"]]
            self._seen = {}

    def _claim(self, order: Order, point: str) -> bool:
        """Whether this process is the one that obeys, recorded before it is done."""
        said = {
            "pid": os.getpid(),
            "point": point,
            "phase": order.phase,
            "do": order.do,
            "time_s": time.time(),
        }
        for index in range(self._times):
            try:
                name = f"{self._number}.{index:04}"
                file = _open(self.control / "fired" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            _write(file, json.dumps(said).encode())
            _close(file)
            return True
        return False

    def _note(self, op: str, path: str) -> None:
        below = path.removeprefix(self.watch)
        if below.endswith("/events.jsonl"):
            self._run_id = below.split(os.sep)[-2]
        line = json.dumps({"time_s": time.time(), "pid": os.getpid(), "op": op, "path": below}) + "\n"
        file = _open(self.control / "audit.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _write(file, line.encode())
        _close(file)


def name_of(path: str, watch: str) -> str:
    """What a file is for, whichever run it belongs to and whichever process writes it.

    >>> name_of("/w/runs/8e3a4dd28e3a4dd2/.checkpoint.pt.host.71.draft", "/w/")
    'checkpoint.pt'
    >>> name_of("/w/runs/8e3a4dd28e3a4dd2/claim.12", "/w/"), name_of("/w/runs/8e3a4dd28e3a4dd2", "/w/")
    ('claim.N', 'runs/N')
    >>> name_of("/w/mlartifacts/chaos/8e3a4dd28e3a4dd2/artifacts/summary.json", "/w/")
    'mlartifacts'
    """
    below = path.removeprefix(watch)
    first, _, rest = below.partition(os.sep)
    if first in ("mlartifacts", "reports") and rest:
        return first
    if first.lstrip(".").startswith("mlflow.db"):
        return "mlflow.db"
    if rest.startswith(".code"):
        return "snapshot"
    folder, _, name = below.rpartition(os.sep)
    draft = re.fullmatch(r"\.(claim\.\d+|.+?\.[a-z]+)\..*draft", name)
    name = re.sub(r"[0-9a-f]{12,}|\d+", "N", draft[1] if draft else name)
    is_run = re.fullmatch(r"runs/[0-9a-f]{16,}", folder)
    where = "" if is_run else re.sub(r"[0-9a-f]{12,}|\d+", "N", folder)
    return f"{where}/{name}" if where else name
