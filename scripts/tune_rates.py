"""Tune the learning rate of each network of a study, on images held out of its training set.

    python scripts/tune_rates.py bag_of_tricks [--seeds 2]

At `mini` a study trains small networks for a few epochs on small images, where the paper's learning rate
need not be a good one; and a comparison of badly trained networks says nothing. So each network's rate is
chosen once, by its top-1 on HELD_OUT training images (the test set is never looked at), and then stands in
the study. Nothing else is tuned: tricks and their options keep the paper's values.

The networks and the rates are in studies/tuning/networks.yaml. They are trained as the runs of any study are
(in $HARNESS_RUNS or runs), so a second call trains nothing. Writes studies/tuning/STUDY.csv: a line per
network and rate; `chosen` marks the rate of the highest mean, the smaller one of equals.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import yaml

import harness
from harness import cli

TUNING = Path(__file__).resolve().parents[1] / "studies" / "tuning"
HELD_OUT = 2000  # of the 10,000 embedded training images
LEFT_OUT = ("paper", "expect", "unknown", "claims", "tables", "priority", "smallest_effect", "rate_scale")


class Tried(NamedTuple):
    """A network at one rate: mean and standard deviation over seeds of top-1 (percent), held-out images."""

    network: str
    lr: float
    seeds: int
    held_out_top1: float
    sd: float | None
    chosen: bool


def tuning_study(
    study: Mapping[str, Any], networks: Mapping[str, str | None], rates: Sequence[float], seeds: int
) -> dict[str, Any]:
    """The study that trains every network at every rate: the same `mini` size and arms, but other images."""
    mini = {key: value for key, value in study["sizes"]["mini"].items() if key not in LEFT_OUT}
    mini.pop("test_images", None)
    mini["train_images"] = min(mini.get("train_images", 10_000), 10_000 - HELD_OUT)
    mini |= {"data": {"fashion_mnist": {"held_out": HELD_OUT}}, "seeds": seeds}
    rows = [
        {"label": label(network, lr), "set": {"lr": lr}} | ({"start_from": arm} if arm else {})
        for network, arm in networks.items()
        for lr in rates
    ]
    return {key: value for key, value in study.items() if key not in LEFT_OUT} | {
        "study": f"{study['study']}_rates",
        "question": "Which learning rate suits each network at mini, on images held out of the training set?",
        "metric": "top1",
        "smallest_effect": 1,
        "sizes": dict(study["sizes"]) | {"mini": mini},
        "tables": {"rates": {"title": "Learning rates", "design": "rows", "rows": rows}},
    }


def label(network: str, lr: float) -> str:
    return f"{network}, lr {lr:g}"


def chosen(
    networks: Sequence[str], rates: Sequence[float], top1: Mapping[str, Sequence[float]]
) -> list[Tried]:
    """Every network at every rate, from label -> top-1 of each seed; a rate that diverged counts 0 %."""
    tried = []
    for network in networks:
        values = {lr: top1.get(label(network, lr)) or (0.0,) for lr in rates}
        best = max(sorted(rates), key=lambda lr: mean(values[lr]))
        for lr in rates:
            sd = stdev(values[lr]) if len(values[lr]) > 1 else None
            tried.append(Tried(network, lr, len(values[lr]), mean(values[lr]), sd, lr == best))
    return tried


def main(name: str, seeds: int) -> None:
    settings = yaml.safe_load((TUNING / "networks.yaml").read_text())[name]
    study = yaml.safe_load((TUNING.parent / f"{name}.yaml").read_text())
    file = Path(tempfile.mkdtemp()) / f"{name}_rates.yaml"
    file.write_text(yaml.safe_dump(tuning_study(study, settings["networks"], settings["rates"], seeds)))
    code = cli.main(["run", str(file), "--no-report"])
    if code:
        sys.exit(code)
    values = harness.load(file).results().seeds("rates").dropna(subset="top1")
    top1 = {row: list(group["top1"]) for row, group in values.groupby("row")}
    tried = chosen(list(settings["networks"]), settings["rates"], top1)
    with (TUNING / f"{name}.csv").open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Tried._fields)
        writer.writerows(
            (
                t.network,
                t.lr,
                t.seeds,
                f"{t.held_out_top1:.2f}",
                "" if t.sd is None else f"{t.sd:.2f}",
                t.chosen,
            )
            for t in tried
        )
    print((TUNING / f"{name}.csv").read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=sorted(yaml.safe_load((TUNING / "networks.yaml").read_text())))
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    main(args.study, args.seeds)
