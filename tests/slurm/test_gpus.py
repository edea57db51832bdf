"""GPUs are handed out by Slurm. Those of the test cluster are pretended, so nothing is trained on them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.place import SlurmPlace, wait_until

At = Callable[..., SlurmPlace]


def gpus_given(place: SlurmPlace) -> list[str]:
    """What the agents' logs say of CUDA_VISIBLE_DEVICES, one entry per log."""
    logs = (file.read_text() for folder in place.submissions() for file in sorted(folder.glob("logs/*.err")))
    return [number for text in logs for number in re.findall(r"CUDA_VISIBLE_DEVICES='([^']*)'", text)[:1]]


IN_EVERY_WAY: dict[str, dict[str, object]] = {
    "by the key": {"gpus": 1},
    "by gres": {"sbatch": ["--gres=gpu:1"]},
    "by gres in two words": {"sbatch": ["--gres", "gpu:1"]},
    "by a short name": {"sbatch": ["-G1"]},
    "by an abbreviation": {"sbatch": ["--gpus-per-t=1"]},
}


@pytest.mark.parametrize("resources", IN_EVERY_WAY.values(), ids=IN_EVERY_WAY)
def test_an_agent_gets_the_gpu_it_asked_for_and_trains_nothing_on_the_cpu(
    cluster: Cluster, at: At, resources: dict[str, object]
):
    """There is no real GPU behind the pretended ones, which the agents say, and leave."""
    place = at(cluster)
    place.resources(at_most=2, **resources)
    done = place.submit("--detach")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(gpus_given(place)) >= 2, place.story)
    assert set(gpus_given(place)) <= {"0", "1"}, "one each"
    assert not place.attempts()
