"""How sure are we: frames of records -> effects, intervals, verdicts. Pure functions; writes nothing."""

from harness.analysis.analyse import analyse, decide, findings_of_part

__all__ = ["analyse", "decide", "findings_of_part"]
