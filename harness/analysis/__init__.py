"""How sure are we: frames of records -> effects, intervals, verdicts. Pure functions; writes nothing."""

from harness.analysis.analyse import analyse, decide

__all__ = ["analyse", "decide"]
