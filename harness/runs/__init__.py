"""Run folders, the only truth about runs: their records, who has a run, what its state is. No torch."""
