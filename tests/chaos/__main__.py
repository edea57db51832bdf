"""`make chaos`: the campaign, and the table of docs/reliability.md at its end."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.chaos.campaign import Campaign, Row, markdown, say
from tests.chaos.cluster import lost_daemons
from tests.chaos.surroundings import full_disk, lost_server

FEW, MANY = 4, 64  # processes at once in the short campaign and in the long one
LONG = 500  # kills from which a campaign is long


def main() -> int:
    options = arguments()
    base = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    base.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(base.resolve(), random.Random(options.seed))
    for name, part in parts(campaign, options.kills).items():
        if not is_wanted(name, options):
            continue
        say(f"{name} ...")
        rows = part()
        for row in rows if isinstance(rows, list) else [rows]:
            campaign.rows.append(row)
            say(f"{name}: {row.done}; {len(row.faults)} faults")
            for fault in row.faults:
                print(f"    {fault}", flush=True)
    print(f"\nkills={options.kills} seed={options.seed}\n\n{markdown(campaign.rows)}")
    failed = any(row.faults for row in campaign.rows)
    if not failed and options.folder is None:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failed else 0


def parts(campaign: Campaign, kills: int) -> dict[str, Callable[[], Row | list[Row]]]:
    """Name -> what does it. Half of the kills come at any time, half at a write."""
    crowd = MANY if kills >= LONG else FEW
    return {
        "random": lambda: campaign.random_kills(kills - kills // 2),
        "points": lambda: campaign.write_points(kills // 2),
        "saves": lambda: campaign.saves(max(50, kills // 2)),
        "faults": lambda: campaign.faults(max(10, kills // 3)),
        "disk": lambda: full_disk(campaign, 3 if kills >= LONG else 1),
        "two": lambda: campaign.two_controllers(max(3, kills // 20)),
        "claims": lambda: campaign.crowd("claims", MANY),
        "stores": lambda: campaign.crowd("stores", crowd),
        "controllers": lambda: campaign.crowd("controllers", crowd // 2),
        "server": lambda: lost_server(campaign, max(1, kills // 100)),
        "cluster": lambda: lost_daemons(campaign, max(4, kills // 20)),
    }


def is_wanted(name: str, options: argparse.Namespace) -> bool:
    """What needs a cluster is done in the long campaign, or where it is asked for."""
    return name in options.only if options.only else name != "cluster" or options.kills >= LONG


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="kill -9 in all; half of them at write points")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--only", nargs="+", metavar="PART", help="only these parts")
    parser.add_argument("--folder", type=Path, help="kept, with every study that went wrong")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
