"""One run trained by two processes together, on one node and on two."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.end_to_end.workplace import Workplace
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import SHORT
from tests.slurm.place import PATIENCE_S, SlurmPlace

At = Callable[..., SlurmPlace]


def test_two_processes_give_the_same_bits_on_one_node_as_on_two_and_the_result_of_one_process(
    cluster: Cluster, at: At, undisturbed_baseline: Workplace
):
    places = [at(cluster, **SHORT) for _ in range(2)]
    places[0].resources(processes=2, cpus=2, at_most=1)
    places[1].resources(processes=2, nodes=2, at_most=1)
    running = [place.start_submitting() for place in places]
    for place, process in zip(places, running, strict=True):
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output + errors + place.story()
    one_node, two_nodes = (place.results() for place in places)
    alone = undisturbed_baseline.results()
    assert one_node == two_nodes
    assert one_node.keys() == alone.keys()
    for run_id, together in one_node.items():
        # Sums in another order, for 8 steps; tests/training/test_distributed.py compares single steps.
        assert math.isclose(together["train_loss"], alone[run_id]["train_loss"], rel_tol=0.02)
