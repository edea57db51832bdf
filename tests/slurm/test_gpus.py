"""GPUs are handed out by Slurm. Those of the test cluster are pretended, so nothing is trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.slurm.cluster import Cluster
from tests.slurm.place import SlurmPlace, wait_until

At = Callable[..., SlurmPlace]


def visible_gpus(cluster: Cluster, job_ids: list[str]) -> dict[str, set[str]]:
    """Task -> CUDA_VISIBLE_DEVICES of its processes, of the tasks of these arrays that run now."""
    found: dict[str, set[str]] = {}
    for pid in cluster.processes():
        try:
            lines = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        values = dict(line.partition("=")[::2] for line in lines)
        if values.get("SLURM_ARRAY_JOB_ID") in job_ids:
            gpus = found.setdefault(values["SLURM_ARRAY_TASK_ID"], set())
            gpus.add(values.get("CUDA_VISIBLE_DEVICES", "none"))
    return found


def test_two_agents_on_one_node_get_different_gpus(cluster: Cluster, at: At):
    place = at(cluster)
    place.resources(gpus=1, at_most=2, sbatch=["--nodelist=n1"])
    done = place.submit("--detach")
    assert done.returncode == 0, done.stderr
    seen: dict[str, set[str]] = {}

    def both() -> bool:
        seen.update(visible_gpus(cluster, place.job_ids()))
        return len(seen) == 2

    wait_until(both, place.story)
    assert sorted(map(sorted, seen.values())) == [["0"], ["1"]], "one each, the same in all of its processes"
