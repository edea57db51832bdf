"""The test cluster (`cluster.sh`) and what tests do to it."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")
PORTS = 20  # that the script uses, from CLUSTER_PORT on
MAX_ARRAY_TASKS = 2  # so that three are more than an array may hold
INSTALL_S, START_S, STOP_S, COMMAND_S = 1200, 600, 300, 300  # limits against hanging


class NoClusterError(Exception):
    """Why there can be no cluster here."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; its nodes are n1 and n2 (partition main), n3 (low, high), n4 and n5 (mortal)."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "etc" / "slurm.conf"

    def start(self) -> None:
        """Install what is missing and start every daemon.

        Raises:
            NoClusterError: it cannot be installed here.
        """
        if os.geteuid() != 0:
            raise NoClusterError("the packages and the daemons of a test cluster need root")
        installed = self._script("install", time_s=INSTALL_S)
        if installed.returncode != 0:
            raise NoClusterError(f"cluster.sh install: {(installed.stderr.strip() or 'failed')[-600:]}")
        settings = {"CLUSTER_PORT": str(free_ports()), "CLUSTER_MAX_ARRAY": str(MAX_ARRAY_TASKS)}
        started = self._script("start", str(self.folder), settings=settings, time_s=START_S)
        assert started.returncode == 0, started.stderr

    def stop(self) -> None:
        """Stop every daemon that runs for this folder, and every job."""
        self._script("stop", str(self.folder), time_s=STOP_S)

    def do(self, command: str, *arguments: str) -> None:
        """A fault or its cure, e.g. `node-kill n4`."""
        done = self._script(command, str(self.folder), *arguments, time_s=COMMAND_S)
        assert done.returncode == 0, done.stderr

    def ask(self, *command: str) -> str:
        """What a client says, e.g. squeue; nothing where it fails."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
        return done.stdout

    def sbatch(self, *arguments: str) -> str:
        """Submit another user's job; its id."""
        command = ["sbatch", "--parsable", "--output=/dev/null", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def open_to_the_network(self) -> list[str]:
        """The sockets of the cluster's processes that listen on another address than 127.x or ::1."""
        ours = {str(pid) for pid in self.processes()}
        lines = self.ask("ss", "-H", "-l", "-t", "-u", "-n", "-p").splitlines()
        own = [line for line in lines if any(f"pid={pid}," in line for pid in ours)]
        assert own, "the daemons listen somewhere"
        return [line for line in own if not line.split()[4].startswith(("127.", "[::1]"))]

    def processes(self) -> list[int]:
        """The daemons and jobs of this cluster: all that have its SLURM_CONF, and this process's own not."""
        wanted = f"SLURM_CONF={self.configuration}".encode()
        found = []
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in file.read_bytes().split(b"\0"):
                    found.append(int(file.parent.name))
            except OSError:  # it has just ended
                continue
        return found

    def _script(
        self, command: str, *arguments: str, time_s: float, settings: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        # Daemons inherit what a pipe would wait for: the script writes to files.
        log = self.folder / f"{command}.log"
        with log.open("w+") as output:
            done = subprocess.run(
                [str(SCRIPT), command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | (settings or {}),
                timeout=time_s,
            )
        return subprocess.CompletedProcess(done.args, done.returncode, "", log.read_text())


def free_ports() -> int:
    """The first of PORTS ports on which nothing listens."""
    for first in range(17_817, 25_000, PORTS):
        if all(is_free(port) for port in range(first, first + PORTS)):
            return first
    raise NoClusterError("no 20 free ports in a row between 17817 and 25000")


def is_free(port: int) -> bool:
    with socket.socket() as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
