"""The short form of `make chaos`: a study killed some times, checkpoints killed while saved, a crowd."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.place import Place
from tests.chaos.regimes import WritePoints
from tests.chaos.trial import Trial, undisturbed
from tests.timing import PATIENCE_S

pytestmark = pytest.mark.campaign
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
KILLS = 6
POINTS = ("replace checkpoint.pt", "write checkpoint.pt", "write events.jsonl")


@needs_proc
def test_a_study_that_is_killed_again_and_again_ends_in_the_bits_of_an_undisturbed_one(tmp_path: Path):
    reference = undisturbed(Place(tmp_path / "undisturbed", small=True).prepare())
    assert reference.points["replace summary.json"] == len(reference.runs) == 6
    place = Place(tmp_path / "killed", small=True).prepare(checkpoint_every_s=0.02)
    rng = random.Random(1)
    kills = WritePoints(POINTS, rng, nths=(8, 15), patience_s=PATIENCE_S)
    outcome = Trial(place, reference, rng).run(kills, KILLS)
    assert outcome.faults == []
    assert outcome.count >= KILLS - 1
    attempts = [event for folder in place.folders() for event in folder.read_events()]
    assert [event for event in attempts if event.get("resumed_from_step")], "some went on half-way"
    assert max(lost.steps for lost in outcome.lost) > 0, "and did some work again"


def test_no_kill_while_a_checkpoint_is_saved_makes_it_unreadable(tmp_path: Path):
    row = Campaign(tmp_path, random.Random(1)).saves(15)
    assert row.faults == []
    assert row.done == "15 kills"


@needs_proc
def test_of_64_processes_that_claim_the_same_runs_at_once_each_run_has_one(tmp_path: Path):
    row = Campaign(tmp_path, random.Random(1)).crowd("claims", 64)
    assert row.faults == []
    assert row.done == "64 succeed"
