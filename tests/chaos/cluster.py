"""The same on a Slurm cluster: agents and daemons killed, a node taken away, while the study goes on."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.campaign import Campaign, Row
from tests.chaos.checks import violations
from tests.chaos.place import Place
from tests.chaos.regimes import WritePoints, every_card
from tests.chaos.trial import Outcome, Trial, undisturbed
from tests.chaos.victims import kill_one
from tests.slurm.cluster import Cluster, NoClusterError

WHAT = "Slurm: processes, slurmctld, slurmdbd killed; a node taken away"
RESOURCES = "partition: mortal\ncpus: 1\nmemory_gb: 4\ntime: 30min\nat_most: 2\n"
NODES = ("n4", "n5")  # of that partition
ARGUMENTS = ("--on", "slurm", "--cluster", "cluster.yaml")
HANGS_S = 900.0  # Slurm takes its time to see that a node is gone


def lost_daemons(campaign: Campaign, kills: int) -> list[Row]:
    """On a cluster of its own. Nothing is installed for it: `make test-slurm` does that."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    if not shutil.which("slurmctld"):
        return [Row(WHAT, "not done", [], "Slurm is not installed here; `make test-slurm` installs it")]
    folder = Path(tempfile.mkdtemp(prefix="chaos-slurm-"))  # a short path: it holds unix sockets
    cluster = Cluster(folder)
    try:
        cluster.start()
        os.environ["SLURM_CONF"] = str(cluster.configuration)
        return [_at_submission(campaign, cluster, kills), _killed(campaign, cluster, kills)]
    except NoClusterError as error:
        return [Row(WHAT, "not done", [], str(error))]
    finally:
        os.environ.pop("SLURM_CONF", None)
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _at_submission(campaign: Campaign, cluster: Cluster, kills: int) -> Row:
    """Kills at the writes that only a submission has, after one study without disturbance."""
    place = _place(campaign)
    quiet = undisturbed(place)
    faults = violations(place, campaign.undisturbed)
    campaign.keep(place, faults)
    points = sorted(quiet.points.keys() - campaign.undisturbed.points.keys())
    regime = WritePoints(points, campaign.rng, nths=(1, 1, 2))
    outcome = _studies(campaign, cluster, kills, regime)
    note = f"{len(regime.hit)} of {len(every_card(points))} write points; at most {outcome.repeats} in peace"
    what = "Slurm: kill -9 at the writes of submissions and agents"
    return Row(what, f"{outcome.count} kills", faults + outcome.faults, note)


def _killed(campaign: Campaign, cluster: Cluster, kills: int) -> Row:
    outcome = _studies(campaign, cluster, kills, _disturbance(cluster))
    listed = ", ".join(f"{times} {name}" for name, times in outcome.kills.most_common())
    note = f"at most {outcome.repeats} commands in peace"
    return Row(WHAT, f"{outcome.count} ({listed})", outcome.faults, note)


def _studies(campaign: Campaign, cluster: Cluster, kills: int, disturb: Callable[[Trial], None]) -> Outcome:
    total = Outcome(starts=0)
    while total.count < kills:
        place = _place(campaign)
        trial = Trial(place, campaign.undisturbed, campaign.rng, hangs_s=HANGS_S)
        outcome = trial.run(disturb, kills - total.count)
        if left := cluster.ask("squeue", "-h", "-o", "%i %T").split("\n")[:-1]:
            outcome.faults.append(f"orphan: jobs are left in the queue: {left}")
            cluster.ask("scancel", "--user", "root")
        total.add(outcome)
        campaign.keep(place, outcome.faults)
    return total


def _place(campaign: Campaign) -> Place:
    place = campaign.place(*ARGUMENTS)
    (place.work / "cluster.yaml").write_text(RESOURCES)
    return place


def _disturbance(cluster: Cluster) -> Callable[[Trial], None]:
    def disturb(trial: Trial) -> None:
        rng = trial.rng
        time.sleep(rng.uniform(1, 6))
        kind = rng.choice(("process", "process", "process", "ctld", "dbd", "node"))
        if kind == "process":
            victim = kill_one(trial.place.control.path, rng)
            if victim is not None:
                trial.outcome.kills[victim.role] += 1
            return
        name = (rng.choice(NODES),) if kind == "node" else ()
        cluster.do(f"{kind}-kill", *name)
        time.sleep(rng.uniform(0.5, 15))
        cluster.do(f"{kind}-start", *name)
        trial.outcome.kills[{"ctld": "slurmctld", "dbd": "slurmdbd", "node": "node"}[kind]] += 1

    return disturb
