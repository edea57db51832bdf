"""`harness agent`, which sbatch scripts call and nobody types: one task of an array of a submission."""

from __future__ import annotations

import argparse
import sys

from harness.errors import unknown
from harness.slurm.agent import run_agent
from harness.slurm.submission import read_submission
from harness.training import PRELOAD, SCRIPT_PRELOAD, run_one

NOT_STARTED = 2  # an exit code: Slurm says FAILED, and the log says why


def main(args: argparse.Namespace) -> int:
    try:
        submission = read_submission(args.runs_dir, args.token)
        if args.group not in submission.groups:
            raise ValueError(unknown("group", args.group, submission.groups))
        preload = SCRIPT_PRELOAD if submission.is_of_a_script else PRELOAD
        return run_agent(submission, submission.groups[args.group], run_one, preload)
    except (OSError, ValueError) as error:
        print(f"agent of submission {args.token}: {error}", file=sys.stderr)
        return NOT_STARTED
