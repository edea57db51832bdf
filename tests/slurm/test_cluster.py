"""The test cluster itself: closed to the network, and with what the other tests rely on."""

from __future__ import annotations

from tests.slurm.cluster import MAX_ARRAY_TASKS, Cluster


def test_nothing_of_it_listens_to_the_network(cluster: Cluster):
    assert cluster.open_to_the_network() == []
    assert cluster.folder.stat().st_mode & 0o077 == 0, "nor is its folder open to other users"


def test_it_is_real(cluster: Cluster):
    configuration = cluster.ask("scontrol", "show", "config")
    assert f"MaxArraySize            = {MAX_ARRAY_TASKS}\n" in configuration
    assert "accounting_storage/slurmdbd" in configuration
    assert cluster.ask("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster") == "test\n"
