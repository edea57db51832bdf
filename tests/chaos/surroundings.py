"""What a study depends on, taken away while it runs: the space on the disk, and the MLflow server."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.campaign import Campaign, Row
from tests.chaos.checks import violations, wrong_mirror
from tests.chaos.place import Place
from tests.chaos.trial import Trial
from tests.timing import wait_until

DISK = "64m"
STARTS_S = 240.0


def full_disk(campaign: Campaign, rounds: int) -> Row:
    """A small file system of its own on which the study finds too little space, and then enough."""
    what = "disk full (a tmpfs of its own)"
    faults: list[str] = []
    for _ in range(rounds):
        base = campaign.base / f"disk{random.randrange(10**9)}"
        with _small_disk(base / "work") as mounted:
            if not mounted:
                return Row(
                    what, "not done", [], "mounting needs root; the injector's ENOSPC stands in for it"
                )
            place = Place(base).prepare()
            faults += _fill_and_free(campaign, place)
        if not faults:
            shutil.rmtree(base)
    return Row(
        what,
        f"{rounds} studies",
        faults,
        "the command ends in words; repeated with space it ends in the same bits",
    )


def _fill_and_free(campaign: Campaign, place: Place) -> list[str]:
    trial = Trial(place, campaign.undisturbed, campaign.rng)
    free = shutil.disk_usage(place.work).free
    filler = place.work / "filler"
    left = campaign.rng.randint(100_000, 2_500_000)  # bytes; a study writes about 4 MB
    filler.write_bytes(bytes(free - left))
    code = trial.wait(place.start())
    filler.unlink()
    faults = trial.outcome.faults
    if code not in (0, 1):
        faults.append(f"wrong: the command ended with {code} on a full disk")
    trial.finish()
    return faults + violations(place, campaign.undisturbed)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


class Server:
    """`mlflow server` on this machine."""

    def __init__(self, base: Path) -> None:
        self.base = base
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.database = base / "server.db"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait_s: float = STARTS_S) -> bool:
        store = f"sqlite:///{self.database}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", store]
        command += ["--artifacts-destination", str(self.base / "server-artifacts")]
        with (self.base / "server.txt").open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, process_group=0)
        return wait_until(self.answers, wait_s)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def lost_server(campaign: Campaign, kills: int) -> Row:
    """An HTTP MLflow server that is killed and started again while the study runs."""
    server = Server(campaign.base)
    place = campaign.place("--tracking-uri", server.uri)
    what = "MLflow server (HTTP) killed and started again"
    if not server.start():
        return Row(what, "not done", ["hang: the server did not start"])
    done = 0

    def disturb(trial: Trial) -> None:
        nonlocal done
        time.sleep(trial.rng.uniform(0.5, 4))
        server.kill()
        done += 1
        trial.outcome.kills["server"] += 1
        time.sleep(trial.rng.uniform(0, 6))
        server.start(wait_s=0)

    try:
        trial = Trial(place, campaign.undisturbed, campaign.rng, store=False)
        outcome = trial.run(disturb, kills)
        wait_until(server.answers, STARTS_S)
        trial.wait(place.start("sync", "chaos.yaml", "--tracking-uri", server.uri))
        faults = [*outcome.faults, *wrong_mirror(server.database, campaign.undisturbed)]
    finally:
        server.kill()
    campaign.keep(place, faults)
    return Row(
        what,
        f"{done} kills",
        faults,
        "no run waits for it; `harness sync` afterwards: each run once, finished",
    )
