"""`harness check-plugin`: does a plugin keep the contracts that the harness's own tables are tested with?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from itertools import groupby

from harness.commands.workspace import workspace
from harness.errors import DONE, SOME_FAILED
from harness.plugins import PluginError, load, only

WORDS = {"kept": "kept       ", "broken": "BROKEN     ", "skipped": "not checked"}


def main(args: argparse.Namespace) -> int:
    try:
        plugin = load(args.file)
        from harness.plugins.contract import check_plugin

        print(f"{plugin.name}, sha256 {plugin.sha256}", flush=True)
        with only([plugin]):
            outcomes = list(_show(check_plugin(plugin, workspace(args).data_dir)))
    except PluginError as error:
        print(error, file=sys.stderr)
        return SOME_FAILED
    counts = {word: outcomes.count(word) for word in WORDS}
    print(
        f"\n{len(outcomes)} checks: {counts['kept']} kept, {counts['broken']} broken, "
        f"{counts['skipped']} not checked"
    )
    return SOME_FAILED if counts["broken"] else DONE


def _show(findings: Iterable) -> Iterable[str]:
    """Print each finding as it comes; yields the outcomes."""
    for subject, group in groupby(findings, key=lambda finding: finding.subject):
        print(f"\n{subject}")
        for finding in group:
            why = f": {finding.why}" if finding.why else ""
            print(f"  {WORDS[finding.outcome]}  {finding.claim}{why}", flush=True)
            if finding.mend:
                print(f"               mend: {finding.mend}", flush=True)
            yield finding.outcome
